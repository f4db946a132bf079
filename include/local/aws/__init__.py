"""The AWS APIs of the local HyperPod, over the real wire protocols.

``gateway`` (this package) stands in front of moto's server, which runs in a process of its own. What the pipelines
depend on is answered here and kept on disk: SageMaker endpoints, HyperPod clusters, hub contents, FSx for Lustre,
EKS and ``InvokeEndpoint``, so that a killed gateway forgets nothing. STS, IAM, ECR, ACM, ELBv2, CloudWatch and the
rest are moto's, which keeps them in memory: they survive the gateway, but not moto. S3 is not here but SeaweedFS.
Not imitated: IAM authorisation, quotas, prices, regions, eventual consistency.
"""

ACCOUNT = "123456789012"
