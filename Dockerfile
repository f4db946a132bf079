# Airflow's official image plus this project's direct requirements, held to the versions that are tested.
FROM apache/airflow:3.3.2-python3.11
COPY requirements.txt requirements.lock /
RUN uv pip install --no-cache --requirement /requirements.txt --constraint /requirements.lock
ENV PYTHONPATH=/opt/airflow:/opt/airflow/plugins
