"""What the HyperPod inference operator is documented to do, for the local HyperPod.

It does not imitate: certificates from ACM, a real load balancer (the Ingress only gets a host name), the nginx and
OpenTelemetry sidecars, KV cache tiers, routing decisions, KEDA's scaling.
"""
