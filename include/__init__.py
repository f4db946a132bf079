"""The domain of the pipelines; never imports Airflow, usable from a shell, a notebook or a pod."""
