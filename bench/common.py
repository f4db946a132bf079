"""What every area's bench shares: the machine, the rows' file, and the table."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from include.objects import PROJECT_ROOT

OUT = PROJECT_ROOT / "var" / "bench"

Row = dict[str, Any]


def row(case: str, tool: str, metric: str, value: float, unit: str, runs: int) -> Row:
    """Return one figure: what was done, by which tool, and the median (or what the metric says) over ``runs``."""
    return {"case": case, "tool": tool, "metric": metric, "value": value, "unit": unit, "runs": runs}


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(area: str, rows: Sequence[Row], left_out: Mapping[str, str], **more: Any) -> Path:
    """Write ``var/bench/<area>.json``; ``left_out``: tool → why it was not measured."""
    OUT.mkdir(parents=True, exist_ok=True)
    target = OUT / f"{area}.json"
    content = {"area": area, "machine": {**machine(), **more}, "rows": list(rows), "left_out": dict(left_out)}
    target.write_text(json.dumps(content, indent=1))
    return target


def table(content: Mapping[str, Any]) -> str:
    """Return an area's rows as text: one line a case and tool, its metrics beside each other."""
    lines = [f"{content['area']} on {content['machine']['cores']} x {content['machine']['cpu']}"]
    cells: dict[tuple[str, str], list[str]] = {}
    for item in content["rows"]:
        cells.setdefault((item["case"], item["tool"]), []).append(f"{item['metric']} {item['value']:.4g}")
    lines += [f"  {case:<18} {tool:<16} {'  '.join(figures)}" for (case, tool), figures in cells.items()]
    lines += [f"  left out: {tool}: {reason}" for tool, reason in content["left_out"].items()]
    return "\n".join(lines)
