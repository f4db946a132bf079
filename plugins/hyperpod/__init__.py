"""Airflow operators, hooks, triggers and task groups for SageMaker HyperPod inference."""
