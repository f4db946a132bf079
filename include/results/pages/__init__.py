"""The benchmark pages as HTML: no script, nothing fetched; served by Airflow's plugin or written as files."""
