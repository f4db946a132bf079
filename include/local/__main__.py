"""``python -m include.local up|down|status|env|restart|logs|fault``: the local HyperPod from a shell."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pydantic

from include.errors import PipelineError
from include.local.aws.faults import ApiFault, ApiFaultKind
from include.local.environment import local_environment
from include.local.faultcontrol import FaultControl, is_api_kind, kinds
from include.local.processes import Managed, alive, end_group
from include.local.services import SERVICES, Layout, is_ready
from include.local.state import DEFAULT_STATE, StackState, read_state, supervised
from include.local.supervisor import LocalHyperPod, end_stack
from include.objects import PROJECT_ROOT

NOT_RUNNING = 3


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    given = _parser().parse_args(argv)
    try:
        return int(given.run(given) or 0)
    except PipelineError as error:
        print(error, file=sys.stderr)
        for line in error.evidence:
            print(f"  {line}", file=sys.stderr)
        return NOT_RUNNING if error.reason == "NotRunning" else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m include.local", description=__doc__)
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, help="folder of the stack")
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help="start everything; Ctrl-C ends it")
    up.add_argument("--detach", action="store_true", help="return when it is up; `down` ends it")
    up.set_defaults(run=_up)
    commands.add_parser("down", help="end everything, also what a killed session left").set_defaults(run=_down)
    status = commands.add_parser("status", help="what runs; exit 0 when all is ready, 3 when nothing runs")
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=_status)
    commands.add_parser("env", help="print export lines for a shell").set_defaults(run=_env)
    restart = commands.add_parser("restart", help="kill one service; it is started again")
    restart.add_argument("service", choices=tuple(SERVICES))
    restart.set_defaults(run=_restart)
    logs = commands.add_parser("logs", help="print the log of one service")
    logs.add_argument("service", choices=(*SERVICES, "supervisor"))
    logs.add_argument("--tail", type=int, default=100, help="lines")
    logs.set_defaults(run=_logs)
    _fault_parser(commands.add_parser("fault", help="scripted faults"))
    return parser


def _fault_parser(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True)
    add = commands.add_parser("add", help="put a fault in force")
    add.add_argument("kind", choices=kinds(), metavar="KIND", help=", ".join(kinds()))
    add.add_argument("--match", default="*", help="cluster faults: glob on the endpoint's or Job's name")
    add.add_argument("--service", default="*", help="API faults: glob on the client's name, such as fsx")
    add.add_argument("--operation", default="*", help="API faults: glob on the API name")
    add.add_argument("--times", type=int, help="how many targets or calls it hits; default: all")
    add.add_argument("--skip", type=int, default=0, help="API faults: calls that pass first")
    add.add_argument("--param", action="append", default=[], metavar="NAME=VALUE")
    add.set_defaults(run=_add_fault)
    commands.add_parser("list", help="faults in force").set_defaults(run=_list_faults)
    clear = commands.add_parser("clear", help="lift one fault, or all")
    clear.add_argument("id", nargs="?")
    clear.set_defaults(run=_clear_faults)


def _up(given: argparse.Namespace) -> int:
    if supervised(given.state):
        print(f"the local HyperPod is running already ({given.state})")
        return 0
    if given.detach:
        return _detach(given.state)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _interrupt(ending))
    stack = LocalHyperPod(given.state)
    try:
        stack.up(say=lambda line: print(line, flush=True))
        print('Ctrl-C ends it; in another shell: eval "$(python -m include.local env)"', flush=True)
        ending.wait()
    except KeyboardInterrupt:
        print("ending", flush=True)
    finally:
        ending.set()
        stack.down()
    return _told_leftovers(stack.leftovers())


def _interrupt(ending: threading.Event) -> None:
    # The first signal ends the stack; a second one must not leave half of it running.
    if not ending.is_set():
        ending.set()
        raise KeyboardInterrupt


def _detach(state: Path) -> int:
    log = state / "logs" / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "include.local", "--state", str(state), "up"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=PROJECT_ROOT, start_new_session=True,
        )  # fmt: skip
    shown = 0
    while process.poll() is None:
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[shown:]:
            print(line, flush=True)
        shown = len(lines)
        with contextlib.suppress(PipelineError):
            recorded = read_state(state)
            if recorded.ready and recorded.supervisor == process.pid:
                return 0
        time.sleep(0.1)
    print(log.read_text(errors="replace"), file=sys.stderr)
    return 1


def _down(given: argparse.Namespace) -> int:
    stack = LocalHyperPod(given.state)
    with contextlib.suppress(PipelineError):
        stack.ports = dict(read_state(given.state).ports)
    ended = end_stack(given.state)
    print(f"ended {', '.join(ended)}" if ended else "nothing was running")
    return _told_leftovers(stack.leftovers())


def _told_leftovers(left: list[str]) -> int:
    if left:
        print(f"still there: {', '.join(left)}", file=sys.stderr)
    return 1 if left else 0


def _status(given: argparse.Namespace) -> int:
    recorded = read_state(given.state)
    layout = Layout(given.state, recorded.ports)
    rows = [_row(name, recorded, layout) for name in SERVICES]
    if given.json:
        print(json.dumps({"supervised": supervised(given.state), "services": rows}, indent=1))
    else:
        for row in rows:
            print(f"{row['name']:<10}{row['state']:<10}{row['pid'] or '-':<9}{row['url'] or ''}")
        if not supervised(given.state):
            print("no supervisor: what is dead stays dead; `down` ends the rest")
    if all(row["state"] == "dead" for row in rows):
        return NOT_RUNNING
    return 0 if all(row["state"] == "ready" for row in rows) else 1


def _row(name: str, recorded: StackState, layout: Layout) -> dict[str, str | int | None]:
    service = recorded.services.get(name)
    if service is None or not alive(service.pid, service.created):
        return {"name": name, "state": "dead", "pid": None, "url": None}
    state = "ready" if is_ready(SERVICES[name], layout, service.created) else "starting"
    return {"name": name, "state": state, "pid": service.pid, "url": service.url}


def _env(given: argparse.Namespace) -> int:
    import shlex

    for name, value in local_environment(given.state).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _restart(given: argparse.Namespace) -> int:
    before = read_state(given.state).services[given.service]
    end_group(Managed(given.service, before.pid, before.created), grace=0)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        recorded = read_state(given.state)
        layout = Layout(given.state, recorded.ports)
        now = recorded.services[given.service]
        new = (now.pid, now.created) != (before.pid, before.created)
        if new and is_ready(SERVICES[given.service], layout, now.created):
            print(f"{given.service} started again, pid {now.pid}")
            return 0
        time.sleep(0.1)
    print(f"{given.service} was killed, but nobody started it again: see `status`", file=sys.stderr)
    return 1


def _logs(given: argparse.Namespace) -> int:
    log = given.state / "logs" / f"{given.service}.log"
    if log.exists():
        print("\n".join(log.read_text(errors="replace").splitlines()[-given.tail :]))
    return 0


def _control(given: argparse.Namespace) -> FaultControl:
    return FaultControl(Layout(given.state, read_state(given.state).ports))


def _add_fault(given: argparse.Namespace) -> int:
    params = dict(pair.partition("=")[::2] for pair in given.param)
    control = _control(given)
    try:
        if is_api_kind(given.kind):
            seconds = {"seconds": float(params.pop("seconds"))} if "seconds" in params else {}
            fault = ApiFault(
                service=given.service, operation=given.operation, kind=ApiFaultKind(given.kind), times=given.times,
                skip=given.skip, params=params, **seconds,
            )  # fmt: skip
            print(control.add_api(fault).id)
        else:
            print(control.add_cluster(given.kind, given.match, params, given.times).id)
    except (pydantic.ValidationError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _list_faults(given: argparse.Namespace) -> int:
    control = _control(given)
    for rule in control.cluster():
        left = "all" if rule.times is None else f"{rule.times - len(rule.used)} more"
        print(f"{rule.id:<34}{rule.match:<24}{left:<10}{rule.params or ''}")
    for one in control.api():
        left = "all" if one["times"] is None else f"{one['times']} more"
        what = f"{one['service']}:{one['operation']}"
        print(f"{one['id']:<10}{one['kind']:<24}{what:<24}{left:<10}{one['params'] or ''}")
    return 0


def _clear_faults(given: argparse.Namespace) -> int:
    print(f"lifted {_control(given).clear(given.id)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
