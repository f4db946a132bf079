"""Realistic deployments: what users of HyperPod inference write."""

from __future__ import annotations

from typing import Any

from tests.include.endpoint.builders import COMMIT

GPU = {"requests": {"cpu": "6", "memory": "48Gi", "nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}
SEED = {"PYTHONHASHSEED": "123"}
INVOCATIONS: dict[str, Any] = {
    "name": "invocations",
    "namespace": "AWS/SageMaker",
    "metric_name": "Invocations",
    "dimensions": {"EndpointName": "ep", "VariantName": "AllTraffic"},
    "target_value": 10,
    "metric_collection_period": 60,
    "metric_stat": "Sum",
    "metric_type": "Average",
    "min_value": 0,
    "activation_target_value": 1,
    "metric_collection_start_time": 300,
    "use_cached_metrics": False,
}
QUEUE_DEPTH: dict[str, Any] = {
    "name": "queue",
    "namespace": "ml",
    "server_address": "https://aps-workspaces.us-west-2.amazonaws.com/workspaces/ws-abc",
    "query": "sum(vllm:num_requests_waiting)",
    "target_value": 5,
    "activation_target_value": 1,
    "custom_headers": "X-Scope=a",
    "metric_type": "Value",
    "use_cached_metrics": True,
}
SCALING: dict[str, Any] = {
    "min_replica_count": 0,
    "max_replica_count": 4,
    "polling_interval": 15,
    "cooldown_period": 120,
    "initial_cooldown_period": 60,
    "scale_down_stabilization_time": 60,
    "scale_up_stabilization_time": 0,
    "cloudwatch": [INVOCATIONS],
    "prometheus": [QUEUE_DEPTH],
}
MANY: dict[str, Any] = {
    "max_replica_count": 3,
    "cloudwatch": [INVOCATIONS, {**INVOCATIONS, "name": "other"}],
    "prometheus": [QUEUE_DEPTH, {**QUEUE_DEPTH, "name": "latency"}],
}
CAPTURE = {
    "enabled": True,
    "modes": ["Input", "Output"],
    "csv_content_types": ["text/csv"],
    "json_content_types": ["application/json"],
    "sampling_percentage": 50,
    "kms_key_id": "alias/capture",
}

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "s3-cache-and-routing": {
        "args": ["--model", "/opt/ml/model", "--served-model-name", "qwen3-8b"],
        "served_model_name": "qwen3-8b",
        "env": SEED,
        "resources": GPU,
        "replicas": 2,
        "kv_cache": {"l1": True, "l2": "tieredstorage"},
        "routing": "prefixaware",
        "router_autoscaling": SCALING,
        "metrics": {"enabled": True, "scrape_interval_seconds": 30, "path": "/metrics", "port": 8000},
        "prefetch": True,
        "tags": {"team": "ml"},
    },
    "redis-cache": {
        "env": SEED,
        "kv_cache": {"l1": False, "l2": "redis", "l2_url": "redis://cache:6379"},
        "priority_class": "inference-priority",
    },
    "cache-by-file": {"kv_cache": {"config_file": "/etc/lmcache.yaml"}, "model_version": "7"},
    "kvaware-completions": {"env": SEED, "routing": "kvaware", "invocation_path": "v1/completions"},
    "session-routing": {
        "routing": "session",
        "router_autoscaling": MANY,
        "load_balancer": {"routing_algorithm": "round_robin"},
    },
    "fsx": {
        "model_source": "fsx",
        "fsx": {"file_system_id": "fs-00000000aaaaaaaa1", "dns_name": "fs.fsx.aws", "mount_name": "abcd"},
        "model_location": "models/qwen3",
        "request_limits": {"max_concurrent_requests": 8, "max_queue_size": 16, "overflow_status_code": 503},
    },
    "huggingface-gated": {
        "model_source": "huggingface",
        "huggingface": {"commit_sha": COMMIT, "token": {"secret": "hf", "key": "token", "optional": False}},
    },
    "kubernetes-volume": {
        "model_source": "kubernetesVolume",
        "model_location": "llama",
        "volume": {"name": "weights", "mount_path": "/models"},
        "kubernetes": {
            "volumes": [{"name": "weights", "persistentVolumeClaim": {"claimName": "models"}}],
            "init_containers": [{"name": "warm", "image": "busybox:1", "command": ["true"]}],
            "scheduler_name": "default-scheduler",
            "service_account_name": "serving",
        },
    },
    "autoscaled-from-zero": {
        "autoscaling": SCALING,
        "instance_type": None,
        "instance_types": ["ml.g6e.2xlarge", "ml.g5.2xlarge"],
    },
    "many-triggers": {
        "autoscaling": MANY,
    },
    "disaggregated": {
        "env": SEED,
        "instance_type": "ml.p5.48xlarge",
        "disaggregation": {
            "prefill": {
                "args": ["--tp", "4"],
                "replicas": 2,
                "node_selector": {"pool": "prefill"},
                "resources": {"limits": {"nvidia.com/gpu": "4"}},
            },
            "decode": {
                "args": ["--tp", "8"],
                "node_selector": {"pool": "decode"},
                "resources": {"limits": {"nvidia.com/gpu": "8"}, "requests": {"nvidia.com/gpu": "8"}},
                "resource_claims": [{"name": "efa"}],
            },
            "routing_threshold": 2048,
            "topology": {"same_az": True, "availability_zone": "us-west-2a", "placement_group": "pg"},
            "prefill_autoscaling": SCALING,
            "decode_autoscaling": SCALING,
        },
    },
    "disaggregated-many-triggers": {
        "disaggregation": {
            "prefill": {"resource_claims": [{"name": "efa"}]},
            "decode": {},
            "prefill_autoscaling": MANY,
            "decode_autoscaling": MANY,
        },
    },
    "mig-and-affinity": {
        "instance_type": None,
        "node_affinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [
                            {
                                "key": "node.kubernetes.io/instance-type",
                                "operator": "In",
                                "values": ["ml.p5.48xlarge"],
                            }
                        ]
                    }
                ]
            }
        },
        "resources": {"requests": {"nvidia.com/mig-1g.10gb": "1"}, "limits": {"nvidia.com/mig-1g.10gb": "1"}},
        "resource_claims": [{"name": "nic", "request": "one"}],
    },
    "tls-dns-capture": {
        "tls": {
            "output_uri": "s3://hyperpod-tls-own/certs",
            "acm_arn": "arn:aws:acm:us-west-2:111122223333:certificate/0a1b2c3d-0000-1111-2222-333344445555",
            "domain_name": "llm.example.com",
        },
        "hosted_zone_id": "Z0123456789ABC",
        "load_balancer": {"health_check_path": "/health", "routing_algorithm": "least_outstanding_requests"},
        "data_capture": {
            "s3_uri": "s3://capture/prefix",
            "load_balancer": True,
            "sagemaker_endpoint": CAPTURE,
            "model_pod": {**CAPTURE, "batch_size": 50, "flush_interval_seconds": 30, "max_payload_size_kb": 512},
        },
    },
    "container-details": {
        "command": ["python", "-m", "serve"],
        "args": ["--port", "8000"],
        "working_dir": "/srv",
        "port": 8000,
        "port_name": "http",
        "health_path": "/health",
        "env": {
            "PLAIN": "x",
            "FROM_SECRET": {"secret": "s", "key": "k", "optional": True},
            "FROM_MAP": {"config_map": "m", "key": "k", "optional": False},
            "POD_IP": {"field": "status.podIP"},
            "MEMORY": {"resource": "limits.memory", "container": "main", "divisor": "1Mi"},
            "FROM_FILE": {"volume": "v", "path": "a.env", "key": "K", "optional": True},
        },
        "probes": {
            "liveness_probe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 10},
            "readiness_probe": {"httpGet": {"path": "/health", "port": 8000}},
            "startup_probe": {"tcpSocket": {"port": 8000}, "failureThreshold": 60},
        },
        "labels": {"team": "ml"},
        "annotations": {"example.com/note": "a note"},
        "extra_spec": {"InitialReplicaCount": 1},
    },
    "newer-operator": {
        "model_cache": {"weights": {"enabled": True, "host_path": "/opt/dlami/nvme"}, "images": True},
        "load_balancer": {"idle_timeout_seconds": 600},
        "sidecar_resources": {
            "metrics_sidecar": {"limits": {"cpu": "1"}},
            "metrics_collector": {"limits": {"cpu": "1"}},
            "s3_uploader": {"limits": {"cpu": "1"}},
        },
        "inference_gateway": {"enabled": True, "name": "shared"},
    },
    "jumpstart-gated": {
        "kind": "JumpStartModel",
        "engine": "djl",
        "instance_type": "ml.g5.2xlarge",
        "env": {"SM_NUM_GPUS": "1"},
        "invocation_path": "invocations",
        "jumpstart": {
            "accept_eula": True,
            "hub_name": "SageMakerPublicHub",
            "gated_model_download_role": "arn:aws:iam::111122223333:role/gated",
            "additional_configs": {"config": "a"},
            "execution_role": "arn:aws:iam::111122223333:role/execute",
            "accelerator_partition_type": "mig-1g.10gb",
            "validate_accelerator_partition": False,
        },
    },
    "jumpstart-everything-shared": {
        "kind": "JumpStartModel",
        "instance_type": "ml.g5.2xlarge",
        "autoscaling": SCALING,
        "kv_cache": {"l1": True, "l2": "redis", "l2_url": "redis://cache:6379"},
        "routing": "roundrobin",
        "router_autoscaling": SCALING,
        "load_balancer": {"health_check_path": "/ping", "routing_algorithm": "round_robin"},
        "metrics": {"enabled": True, "scrape_interval_seconds": 30, "path": "/metrics", "port": 8080},
        "tls": {
            "acm_arn": "arn:aws:acm:us-west-2:111122223333:certificate/0a1b2c3d-0000-1111-2222-333344445555",
            "domain_name": "llm.example.com",
        },
        "hosted_zone_id": "Z0123456789ABC",
        "data_capture": {
            "s3_uri": "s3://capture/prefix",
            "load_balancer": False,
            "sagemaker_endpoint": CAPTURE,
            "model_pod": {**CAPTURE, "batch_size": 50, "flush_interval_seconds": 30, "max_payload_size_kb": 512},
        },
    },
    "jumpstart-many-triggers": {
        "kind": "JumpStartModel",
        "instance_type": "ml.g5.2xlarge",
        "kv_cache": {"config_file": "/etc/lmcache.yaml"},
        "routing": "session",
        "router_autoscaling": MANY,
        "autoscaling": MANY,
    },
    "direct": {"kind": "direct", "sagemaker_endpoint": False, "resources": GPU},
    "direct-fsx": {"kind": "direct", "sagemaker_endpoint": False, "model_source": "fsx"},
}
