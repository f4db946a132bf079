"""The local node: kubelet, scheduler, workload controllers and load balancer over local processes."""
