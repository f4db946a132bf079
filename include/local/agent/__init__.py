"""The node agent: kubelet, scheduler, Deployment, Job and Endpoints controllers of the local HyperPod."""
