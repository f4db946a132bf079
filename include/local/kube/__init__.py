"""A Kubernetes API server for laptops and tests: real HTTP, real semantics, one process, no cluster.

It is a development tool. Not imitated: protobuf bodies (415), CEL rules, admission webhooks, conversion between
versions, exec/attach, service account tokens, quotas, aggregation of other API servers.
"""
