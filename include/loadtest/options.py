"""What a person gives on the command line, as checked target and load levels; every refusal names option and value."""

from __future__ import annotations

import argparse
import ssl
from typing import Any, TypeVar

from pydantic import ValidationError

from include.catalog.specs import LoadSpec, SearchSpec, Slo, Spec, WorkloadSpec
from include.errors import ConfigurationError
from include.loadtest.planning import check_load
from include.loadtest.target import Target

_S = TypeVar("_S", bound=Spec)
_OPTIONS = {"base_url": "url", "duration_s": "duration", "trace": "replay"}
# What makes a load level of its own, beside the catalog's; bounds alone only cut the catalog's levels short.
_SHAPES = ("arrivals", "burstiness", "end_rate", "stop_error_rate", "workers")


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `target` reads, and the workload's name."""
    parser.add_argument("--url", required=True, help="base URL, http(s)://host[:port][/prefix]")
    parser.add_argument("--model", default="", help="model name in the request body")
    parser.add_argument("--workload", default="smoke", help="name in include/catalog/workloads")
    parser.add_argument("--protocol", help="openai-chat, openai-completions, invocations, sagemaker or embeddings")
    parser.add_argument("--ca-file")
    parser.add_argument("--insecure", action="store_true", help="do not check the server's certificate")


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `search_of` reads; what is not given is the workload's, then the defaults."""
    parser.add_argument("--by", choices=("rate", "concurrency"))
    for name, text in (
        ("start", "first level"),
        ("limit", "highest level that is tried"),
        ("duration", "seconds of one probe"),
        ("attainment", "share of requests that must meet the SLO"),
        ("precision", "width of the final bracket, as a share of its lower end"),
        ("ttft-ms", "limit of the SLO"),
        ("tpot-ms", "limit of the SLO"),
        ("e2e-ms", "limit of the SLO"),
    ):
        parser.add_argument(f"--{name}", type=float, help=text)
    parser.add_argument("--max-probes", type=int)
    parser.add_argument("--json", action="store_true", help="print the finding as JSON")


def search_of(options: argparse.Namespace, workload: WorkloadSpec) -> tuple[SearchSpec, Slo]:
    """Return how to search and for what SLO: the options over the workload's own.

    :raises ConfigurationError: ``BadOption``.
    """
    names = ("by", "start", "limit", "attainment", "precision", "max_probes")
    given = {name: getattr(options, name) for name in names} | {"duration_s": options.duration}
    base = (workload.search or SearchSpec()).model_dump()
    search = checked(SearchSpec, base | {name: value for name, value in given.items() if value is not None})
    limits = {name: getattr(options, name) for name in ("ttft_ms", "tpot_ms", "e2e_ms")}
    slo = workload.slo.model_dump() | {name: value for name, value in limits.items() if value is not None}
    return search, checked(Slo, slo)


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `loads` reads."""
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--concurrency", type=int, help="closed loop: instead of the workload's load levels")
    level.add_argument("--rate", type=float, help="open loop, requests per second: instead of the workload's levels")
    level.add_argument("--replay", metavar="TRACE", help="open loop: a recorded trace with its own times")
    parser.add_argument("--arrivals", choices=("constant", "poisson", "gamma", "ramp"), help="with --rate")
    parser.add_argument("--burstiness", type=float, help="with --arrivals gamma: shape of the gaps; 1 is Poisson")
    parser.add_argument("--end-rate", type=float, help="with --arrivals ramp: rate at the end")
    parser.add_argument("--requests", type=int, help="bound; alone, for each of the workload's levels")
    parser.add_argument("--duration", type=float, help="bound in seconds; alone, for each of the workload's levels")
    parser.add_argument("--stop-error-rate", type=float, help="end the run beyond this share of failed requests")
    parser.add_argument("--workers", type=int, help="generator processes; default: by the target rate")


def loads(options: argparse.Namespace, workload: WorkloadSpec) -> tuple[LoadSpec, ...]:
    """Return the load levels to run: one made of the options, or the workload's within the bounds given.

    :raises ConfigurationError: ``BadOption`` or ``BadLoad``.
    """
    bounds = {"requests": options.requests, "duration_s": options.duration}
    given = {name: getattr(options, name) for name in _SHAPES if getattr(options, name) is not None}
    _refuse_unused(options, given)
    if options.concurrency is not None:
        values = {"mode": "closed", "concurrency": options.concurrency, **bounds, **given}
    elif options.rate is not None:
        values = {"mode": "open", "rate": options.rate, **bounds, **given}
    elif options.replay is not None:
        values = {"mode": "open", "trace": options.replay, **bounds, **given, "arrivals": "replay"}
    else:
        bounded = bounds if any(value is not None for value in bounds.values()) else {}
        return tuple(checked(LoadSpec, level.model_dump() | bounded | given) for level in workload.loads)
    level = checked(LoadSpec, values)
    check_load(level)
    return (level,)


def target(options: argparse.Namespace) -> Target:
    """Return where the load goes.

    :raises ConfigurationError: ``BadOption``; the certificate file is tried too.
    """
    found = checked(
        Target,
        {
            "base_url": options.url,
            "model": options.model,
            "protocol": options.protocol,
            "ca_file": options.ca_file,
            "insecure": options.insecure,
        },
    )
    if found.ca_file:
        try:
            ssl.create_default_context(cafile=found.ca_file)
        except OSError as error:  # SSLError is one
            raise _bad(f"--ca-file {found.ca_file!r}: {error.strerror or error}", "give a PEM file") from error
    return found


def checked(kind: type[_S], values: dict[str, Any]) -> _S:
    """Return a model of the values.

    :raises ConfigurationError: ``BadOption`` with option, value and what would be right, for every bad one.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = []
        for item in error.errors(include_url=False):
            field = str(item["loc"][0])
            name = "--" + _OPTIONS.get(field, field).replace("_", "-")
            message = item["msg"]
            if field == "base_url":
                message = "should be http://host:port or https://host:port"
            problems.append(f"{name} {item.get('input')!r}: {message[:1].lower() + message[1:]}")
        raise _bad("; ".join(problems), "correct the option; --help lists them") from error


def _refuse_unused(options: argparse.Namespace, given: dict[str, Any]) -> None:
    """Refuse an option that would be ignored: a load that is not the one asked for."""
    wants = {
        "arrivals": options.rate is not None,
        "burstiness": options.arrivals == "gamma",
        "end_rate": options.arrivals == "ramp",
    }
    needs = {"arrivals": "--rate", "burstiness": "--arrivals gamma", "end_rate": "--arrivals ramp"}
    for name, used in wants.items():
        if name in given and not used:
            option = "--" + name.replace("_", "-")
            raise _bad(f"{option} {given[name]!r} says nothing without {needs[name]}", f"add {needs[name]}")


def _bad(message: str, fix: str) -> ConfigurationError:
    return ConfigurationError("BadOption", message, fix=fix)
