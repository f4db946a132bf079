"""``python -m include.endpoint list|hold|release``: endpoints of ours on the current kubeconfig's cluster.

python -m include.endpoint list --namespace team-a
python -m include.endpoint hold <name> --hours 4     keep it for debugging; teardown and reaper leave it alone
python -m include.endpoint release <name>            give it back: the reaper deletes it at its next tick
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
from collections.abc import Sequence

from include.endpoint.clients import Clients
from include.endpoint.inventory import Endpoint, inventory
from include.endpoint.lifecycle import hold, release_hold
from include.endpoint.rules.identity import DNS_LABEL
from include.errors import ConfigurationError, PipelineError

LONGEST_HOLD_HOURS = 72


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m include.endpoint", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("list", "hold", "release"):
        command = commands.add_parser(name)
        command.add_argument("--namespace", default="default")
        command.add_argument("--context", help="of the kubeconfig; the current one by default")
        if name != "list":
            command.add_argument("name")
        if name == "hold":
            command.add_argument("--hours", type=float, required=True, help=f"at most {LONGEST_HOLD_HOURS}")
    given = parser.parse_args(arguments)
    try:
        return _run(given)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 1


def _run(given: argparse.Namespace) -> int:
    _check(given)
    clients, now = _clients(given.context), dt.datetime.now(dt.UTC)
    found = list(inventory(clients, given.namespace, now))
    if given.command == "list":
        for endpoint in found:
            print(endpoint.line)
        print(f"{len(found)} endpoints of ours in {given.namespace}, ${sum(item.cost_usd for item in found)} so far")
        return 0
    endpoint = _named(given.name, found, given.namespace)
    if given.command == "hold":
        until = now + dt.timedelta(hours=given.hours)
        hold(endpoint, clients, until)
        print(f"{endpoint.name} is held until {until:%Y-%m-%d %H:%M} UTC")
        return 0
    release_hold(endpoint, clients)
    print(f"{endpoint.name} expires now; reap_endpoints deletes it at its next tick")
    return 0


def _check(given: argparse.Namespace) -> None:
    if not DNS_LABEL.match(given.namespace):
        raise ConfigurationError(
            "NamespaceInvalid", f"--namespace {given.namespace!r} is none", fix="give a name of a-z, 0-9 and -"
        )
    if given.command == "hold" and not 0 < given.hours <= LONGEST_HOLD_HOURS:
        raise ConfigurationError(
            "HoldInvalid",
            f"--hours {given.hours} is not between 0 and {LONGEST_HOLD_HOURS}",
            fix="choose a shorter hold; it can be made again",
        )


def _named(name: str, found: Sequence[Endpoint], namespace: str) -> Endpoint:
    for endpoint in found:
        if endpoint.name == name:
            return endpoint
    there = ", ".join(item.name for item in found) or "none"
    raise ConfigurationError(
        "EndpointUnknown", f"{namespace} has no endpoint of ours named {name!r}", fix=f"there are: {there}"
    )


def _clients(context: str | None) -> Clients:
    from kubernetes import config
    from kubernetes.config import ConfigException
    from yaml import YAMLError

    try:
        return Clients(
            kube=config.new_client_from_config(os.environ.get("KUBECONFIG"), context), session=None, region=""
        )
    except (ConfigException, OSError, YAMLError, TypeError, AttributeError, KeyError) as error:
        # The client takes a kubeconfig's shape for granted: what is none comes out as any of these.
        raise ConfigurationError(
            "KubeconfigInvalid",
            str(error) or type(error).__name__,
            fix="set KUBECONFIG, or name one of its contexts with --context",
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
