"""The server is healthy and serves the model that was staged, not another one and not a stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from include.endpoint.model import Check
from include.endpoint.validation.subject import Subject, skip, verdict
from include.errors import PipelineError

STAND_INS = ("llm-d-inference-sim", "simulator", "fakellm", "mock", "echo")


def health(subject: Subject) -> Iterator[Check]:
    """The health path answers 200."""
    if not subject.asker.invocation.direct:
        yield skip("health", "SageMaker forwards inference requests only")
        return
    path = subject.deployment.health_path
    answer = subject.asker.get(path)
    fix = "check deployment.health_path and the model server's log"
    yield verdict("health", answer.status == 200, f"200 from {path}", answer.said, fix)


def model_list(subject: Subject) -> Iterator[Check]:
    """The server lists the requested model name."""
    name, wanted = "model list", subject.asker.invocation.model
    if not subject.asker.invocation.direct or not subject.speaks_openai:
        yield skip(name, "the way of invoking does not reach /v1/models")
        return
    answer = subject.asker.get("/v1/models")
    if answer.status == 404:
        yield skip(name, "the server has no /v1/models")
        return
    cards: list[Any] = (answer.json or {}).get("data") or [] if answer.ok else []
    served = [str(card.get("id")) for card in cards]
    fix = "another model answers here: check served_model_name, and that the address is this endpoint's"
    yield verdict(name, wanted in served, wanted, ", ".join(served) or answer.said, fix)
    lengths = [card.get("max_model_len") for card in cards if card.get("id") == wanted and card.get("max_model_len")]
    asked = subject.deployment.max_model_len
    if asked and lengths:
        yield verdict("context length served", lengths[0] == asked, asked, lengths[0], "correct args or max_model_len")


def server_identity(subject: Subject) -> Iterator[Check]:
    """The server is a real engine, started with the requested arguments, on the staged bytes."""
    information = subject.information
    told = json.dumps(information).lower()
    owners = _owners(subject).lower()
    stand_in = next(
        (mark for mark in STAND_INS if mark in owners or mark in str(information.get("engine", "")).lower()), ""
    )
    if stand_in and not _is_planned(subject, stand_in):
        yield verdict("real model server", False, "a model server", f"calls itself {stand_in}", "deploy a real engine")
    if not information:
        yield skip("model bytes", "the server does not say which files it loaded")
        return
    if "args" in information:
        live = [str(item) for item in information["args"]]
        # A server may name its model folder by another path than the container's.
        mounted = subject.deployment.volume.mount_path
        wanted = [
            given if asked == mounted and given.startswith("/") else asked
            for asked, given in zip_longest(subject.deployment.args, live, fillvalue="")
        ]
        yield verdict("server arguments", live == wanted, wanted, live, "the server runs with other arguments")
    yield from _bytes(subject, information, told)


def _owners(subject: Subject) -> str:
    if not subject.asker.invocation.direct:
        return ""
    cards = (subject.asker.get("/v1/models").json or {}).get("data") or []
    return " ".join(str(card.get("owned_by", "")) for card in cards)


def _is_planned(subject: Subject, mark: str) -> bool:
    return mark in str(subject.deployment.image).lower() or mark in subject.deployment.engine.lower()


def _bytes(subject: Subject, information: dict[str, Any], _told: str) -> Iterator[Check]:
    name, loaded = "model bytes", information.get("files")
    if subject.staged is None or not isinstance(loaded, dict):
        yield skip(name, "nothing was staged" if subject.staged is None else "the server lists no files")
        return
    manifest = _manifest(subject)
    if manifest is None:
        yield verdict(
            name, False, subject.staged.manifest_uri, "the manifest cannot be read", "check the models bucket"
        )
        return
    wanted = {str(entry["path"]): str(entry["sha256"]) for entry in manifest["files"]}
    wrong = sorted(path for path, digest in loaded.items() if wanted.get(path) != digest)
    fix = "the server loaded other bytes than were staged: tear it down, verify the revision"
    yield verdict(name, not wrong and bool(loaded), f"{len(wanted)} staged files", ", ".join(wrong) or "equal", fix)


def _manifest(subject: Subject) -> dict[str, Any] | None:
    from include.objects import Objects

    assert subject.staged is not None  # noqa: S101 (the caller has checked)
    folder, _, file = subject.staged.manifest_uri.rpartition("/")
    try:
        data = Objects.open(folder, session=subject.clients.session, region=subject.clients.region).get(file)
    except (OSError, PipelineError):
        return None
    loaded: dict[str, Any] | None = json.loads(data) if data else None
    return loaded
