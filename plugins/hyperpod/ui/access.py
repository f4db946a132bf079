"""Who may see the page: Airflow's own users, with Airflow's own permissions."""

from __future__ import annotations

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import HTTPException, status


def may_read_results(user: GetUserDep) -> None:
    """Let through who may use the website and read Dag runs; results tell what runs tell.

    :raises HTTPException: 401 without a valid login, 403 without the permission.
    """
    manager = get_auth_manager()
    allowed = manager.is_authorized_view(access_view=AccessView.WEBSITE, user=user) and manager.is_authorized_dag(
        method="GET", access_entity=DagAccessEntity.RUN, user=user
    )
    if not allowed:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "You may not read Dag runs. Fix: ask for a role that can.")
