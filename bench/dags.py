"""What a worker pays to parse each DAG file, beside a minimal file with the same Airflow imports.

Whole processes, alternating, so that a change of the machine's speed meets both sides; the figure is the median of
the pairs' ratios.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import common
from include.objects import PROJECT_ROOT

ROUNDS = 5
# The classes that our operators, assets and DAG files take from Airflow, and nothing of ours.
MINIMAL = """
from airflow.sdk import Asset, AssetAlias, BaseHook, BaseOperator, Param, TriggerRule, dag, task_group
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

@dag(schedule=None)
def minimal():
    BaseOperator(task_id="nothing")

minimal()
"""


def seconds(file: Path, home: str) -> float:
    """Return the wall time of a process that imports a DAG file (s)."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{PROJECT_ROOT}{os.pathsep}{PROJECT_ROOT / 'plugins'}",
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    started = time.monotonic()
    subprocess.run([sys.executable, str(file)], env=environment, check=True, capture_output=True)
    return time.monotonic() - started


def main(_: list[str]) -> int:
    """Measure every file in ``dags/``, write ``var/bench/dags.json``."""
    rows = []
    with tempfile.TemporaryDirectory() as home:
        minimal = Path(home) / "minimal.py"
        minimal.write_text(MINIMAL)
        seconds(minimal, home)
        for file in sorted((PROJECT_ROOT / "dags").glob("*.py")):
            seconds(file, home)
            pairs = [(seconds(file, home), seconds(minimal, home)) for _ in range(ROUNDS)]
            ours, least = (statistics.median(side) for side in zip(*pairs, strict=True))
            case = f"import-{file.stem}"
            rows += [
                common.row(case, "ours", "wall_seconds", ours, "s", ROUNDS),
                common.row(case, "ours", "ratio", statistics.median(a / b for a, b in pairs), "", ROUNDS),
                common.row(case, "minimal-dag", "wall_seconds", least, "s", ROUNDS),
            ]
    common.write("dags", rows, {})
    return 0
