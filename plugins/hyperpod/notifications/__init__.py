"""Notifiers for alerts; any Airflow notifier works in their place."""
