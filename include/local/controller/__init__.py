"""List+watch controllers over any Kubernetes API: client, informer, work queue, events."""
