"""A small Kubernetes API server for the local HyperPod: the wire protocol, kept in memory and in SQLite.

It does not imitate admission webhooks, CEL, conversion, quotas, or schemas of the built-in kinds; custom resources
are validated strictly.
"""
