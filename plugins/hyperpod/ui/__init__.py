"""The benchmarks page inside Airflow's UI."""
