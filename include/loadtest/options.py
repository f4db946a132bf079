"""What a person gives on the command line, as checked load levels and limits; every refusal names option and value."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from include.catalog.specs import LoadSpec, PromptSpec, SearchSpec, Slo, WorkloadSpec
from include.loadtest.checks import bad_option, checked
from include.loadtest.planning import check_load
from include.loadtest.target_options import add_target_options, target

__all__ = [
    "add_load_options",
    "add_search_options",
    "add_slo_options",
    "add_target_options",
    "loads",
    "search_of",
    "slo_of",
    "target",
    "workload_of",
]

# What makes a load level of its own, beside the catalog's; bounds alone only cut the catalog's levels short.
_SHAPES = ("arrivals", "burstiness", "end_rate", "stop_error_rate", "workers")
_LENGTHS = ("input_tokens", "output_tokens")


def add_slo_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `slo_of` reads: one for each limit that there is."""
    for name in Slo.model_fields:
        text = "most of the requests that may fail, as a share" if name == "error_rate" else "limit of the SLO, ms"
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, help=text)


def slo_of(options: argparse.Namespace, base: Slo | None = None) -> Slo:
    """Return the SLO: the options' limits over those of ``base``.

    :raises ConfigurationError: ``BadOption``.
    """
    limits = {name: getattr(options, name) for name in Slo.model_fields}
    given = {name: value for name, value in limits.items() if value is not None}
    return checked(Slo, (base or Slo()).model_dump() | given)


def workload_of(options: argparse.Namespace) -> WorkloadSpec:
    """Return the workload that the options name, with their prompt lengths.

    :raises ConfigurationError: ``BadOption``, or what is wrong with the file or the catalog.
    """
    from include.catalog.loader import load_catalog, load_workload

    name = options.workload
    if Path(name).suffix in (".yaml", ".yml"):
        if not Path(name).is_file():
            raise bad_option(f"--workload {name!r}: no such file", "give a YAML file, or a name of the catalog")
        found = load_workload(Path(name))
    else:
        found = load_catalog().workload(name)
    lengths = {field: getattr(options, field) for field in _LENGTHS if getattr(options, field) is not None}
    if not lengths:
        return found
    if any(prompt.dataset for prompt in found.prompts):
        option, value = next(iter(lengths.items()))
        fix = "leave it out, or choose a workload without a data set"
        raise bad_option(f"--{option.replace('_', '-')} {value}: a data set has lengths of its own", fix)
    prompts = tuple(checked(PromptSpec, prompt.model_dump() | lengths) for prompt in found.prompts)
    return found.model_copy(update={"prompts": prompts})


def add_length_options(parser: argparse.ArgumentParser) -> None:
    """Add the prompt lengths that `workload_of` reads."""
    parser.add_argument("--input-tokens", type=int, help="instead of the workload's, for each of its prompts")
    parser.add_argument("--output-tokens", type=int, help="instead of the workload's, for each of its prompts")


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `search_of` reads; what is not given is the workload's, then the defaults."""
    parser.add_argument("--by", choices=("rate", "concurrency"))
    for name, text in (
        ("start", "first level"),
        ("limit", "highest level that is tried"),
        ("duration", "seconds of one probe"),
        ("attainment", "share of requests that must meet the SLO"),
        ("precision", "width of the final bracket, as a share of its lower end"),
    ):
        parser.add_argument(f"--{name}", type=float, help=text)
    parser.add_argument("--max-probes", type=int)
    parser.add_argument("--knee", action="store_true", default=None, help="the saturation knee instead; needs no SLO")
    add_slo_options(parser)
    add_length_options(parser)
    parser.add_argument("--json", action="store_true", help="print the finding as JSON")


def search_of(options: argparse.Namespace, workload: WorkloadSpec) -> tuple[SearchSpec, Slo]:
    """Return how to search and for what SLO: the options over the workload's own.

    :raises ConfigurationError: ``BadOption``.
    """
    names = ("by", "start", "limit", "attainment", "precision", "max_probes", "knee")
    given = {name: getattr(options, name) for name in names} | {"duration_s": options.duration}
    base = (workload.search or SearchSpec()).model_dump()
    search = checked(SearchSpec, base | {name: value for name, value in given.items() if value is not None})
    return search, slo_of(options, workload.slo)


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `loads` reads."""
    level = parser.add_mutually_exclusive_group()
    level.add_argument(
        "--concurrency", type=_several(int), metavar="N[,N…]", help="closed loops: instead of the workload's levels"
    )
    level.add_argument(
        "--rate",
        type=_several(float),
        metavar="R[,R…]",
        help="open loops, requests/s: instead of the workload's levels",
    )
    level.add_argument("--replay", metavar="TRACE", help="open loop: a recorded trace with its own times")
    parser.add_argument("--arrivals", choices=("constant", "poisson", "gamma", "ramp"), help="with --rate")
    parser.add_argument("--burstiness", type=float, help="with --arrivals gamma: shape of the gaps; 1 is Poisson")
    parser.add_argument("--end-rate", type=float, help="with --arrivals ramp: rate at the end")
    parser.add_argument("--max-in-flight", type=int, help="with --rate or --replay: the others wait on our side")
    parser.add_argument("--requests", type=int, help="bound; alone, for each of the workload's levels")
    parser.add_argument("--duration", type=float, help="bound in seconds; alone, for each of the workload's levels")
    parser.add_argument("--stop-error-rate", type=float, help="end the run beyond this share of failed requests")
    parser.add_argument("--workers", type=int, help="generator processes; default: by the target rate")
    add_length_options(parser)


def _several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def numbers(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",")]

    numbers.__name__ = f"list of {getattr(kind, '__name__', kind)}"
    return numbers


def loads(options: argparse.Namespace, workload: WorkloadSpec) -> tuple[LoadSpec, ...]:
    """Return the load levels to run: those made of the options, or the workload's within the bounds given.

    :raises ConfigurationError: ``BadOption`` or ``BadLoad``.
    """
    bounds = {"requests": options.requests, "duration_s": options.duration}
    given = {name: getattr(options, name) for name in _SHAPES if getattr(options, name) is not None}
    _refuse_unused(options, given)
    shapes = _levels(options)
    if shapes is None:
        bounded = bounds if any(value is not None for value in bounds.values()) else {}
        return tuple(checked(LoadSpec, level.model_dump() | bounded | given) for level in workload.loads)
    named = {"concurrency": "max-in-flight"} if options.concurrency is None else {}
    levels = tuple(checked(LoadSpec, {**bounds, **given, **shape}, **named) for shape in shapes)
    for level in levels:
        check_load(level)
    return levels


def _levels(options: argparse.Namespace) -> list[dict[str, Any]] | None:
    """Return what tells the levels of the options apart; ``None``: they make none."""
    for name in ("concurrency", "rate"):
        values = getattr(options, name)
        if values is not None and len(set(values)) < len(values):
            raise bad_option(f"--{name} {','.join(map(str, values))} holds a level twice", "give each one once")
    cap = {} if options.max_in_flight is None else {"concurrency": options.max_in_flight}
    if options.concurrency is not None:
        return [{"mode": "closed", "concurrency": users} for users in options.concurrency]
    if options.rate is not None:
        return [{"mode": "open", "rate": rate, **cap} for rate in options.rate]
    if options.replay is not None:
        return [{"mode": "open", "trace": options.replay, "arrivals": "replay", **cap}]
    return None


def _refuse_unused(options: argparse.Namespace, given: dict[str, Any]) -> None:
    """Refuse an option that would be ignored: a load that is not the one asked for."""
    given = given | ({} if options.max_in_flight is None else {"max_in_flight": options.max_in_flight})
    wants = {
        "arrivals": options.rate is not None,
        "burstiness": options.arrivals == "gamma",
        "end_rate": options.arrivals == "ramp",
        "max_in_flight": options.rate is not None or options.replay is not None,
    }
    needs = {
        "arrivals": "--rate",
        "burstiness": "--arrivals gamma",
        "end_rate": "--arrivals ramp",
        "max_in_flight": "--rate or --replay",
    }
    for name, used in wants.items():
        if name in given and not used:
            option = "--" + name.replace("_", "-")
            raise bad_option(f"{option} {given[name]!r} says nothing without {needs[name]}", f"add {needs[name]}")
