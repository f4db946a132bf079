"""Commands for people: stage a model, verify, list and look at what is staged, fetch it, collect what is old."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import ConfigurationError, FailureClass, PipelineError

if TYPE_CHECKING:
    from include.catalog.specs import ClusterSpec
    from include.catalog.weights import WeightsSpec
    from include.staging.context import StagingContext
    from include.staging.target import Target

EXIT_WRONG, EXIT_FAILED, EXIT_STOPPED = 1, 2, 130


def main(arguments: Sequence[str]) -> int:
    """Run a command. Exit code: 0 done, 1 bytes are not what they should be, 2 it could not be done, 130 stopped."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.function(options))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return EXIT_STOPPED
    except Exception as error:
        found = _explained(error, options)
        if found is None:
            raise
        print(found, file=sys.stderr)
        for line in found.evidence:
            print(f"  {line}", file=sys.stderr)
        return EXIT_WRONG if found.failure_class is FailureClass.INTEGRITY else EXIT_FAILED


def _explained(error: Exception, options: argparse.Namespace) -> PipelineError | None:
    """What a person reads instead of a traceback; ``None`` for a defect of ours."""
    if isinstance(error, PipelineError):
        return error
    from include.staging.refusals import Asked, explain

    asked = Asked("--models-uri", options.models_uri) if options.models_uri else Asked("--cluster", options.cluster)
    found = explain(error, asked)
    if found is None and isinstance(error, OSError) and error.filename is not None:
        return ConfigurationError(
            "FileUnusable", f"{error.filename}: {error.strerror}", fix="check the path, its owner and the disk"
        )
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m include.staging", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, function: Any, what: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=what)
        made.add_argument("--cluster", default="local", help="catalog name: whose store, region and connections")
        made.add_argument("--models-uri", help="s3://bucket[/prefix], instead of the cluster's")
        made.set_defaults(function=function)
        return made

    stage = command("stage", _stage, "move a model's revision to the store, or check that it is there")
    stage.add_argument("model", help="name in the catalog; with --source any name")
    stage.add_argument("--source", help="folder, hf://org/name[@revision] or s3://bucket/prefix, not from the catalog")
    stage.add_argument("--revision", help="a commit of the Hub; others fail unless the source is at this one")
    stage.add_argument("--repair", action="store_true", help="move again what no longer matches its manifest")
    stage.add_argument("--budget-gb", type=float, help="refuse to move more")
    stage.add_argument("--allow-pickle", action="store_true", help="with --source: pickled weights run code")
    # Of its own in every process: a stager of the same owner is taken for its predecessor and replaces it at once.
    owner = f"shell-{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
    stage.add_argument("--owner", default=owner, help="who holds the lock; of one owner only the newest goes on")
    verify = command("verify", _verify, "compare a staged revision with its manifest")
    verify.add_argument("model")
    verify.add_argument("revision")
    verify.add_argument("--depth", choices=("listing", "checksums", "content"), default="checksums")
    listing = command("list", _list, "what is staged")
    listing.add_argument("model", nargs="?")
    explore = command("explore", _explore, "the files of a revision, or of a path on FSx")
    explore.add_argument("model", nargs="?")
    explore.add_argument("revision", nargs="?")
    explore.add_argument("--fsx-claim", help="look into this PersistentVolumeClaim, through a short-lived pod")
    explore.add_argument("--path", default="", help="with --fsx-claim: folder inside it")
    explore.add_argument("--image", help="with --fsx-claim: what the pod runs; else the cluster's fsx_delivery.image")
    explore.add_argument("--folder", type=Path, help="a folder of this machine (what the pod does)")
    fetch = command("fetch", _fetch, "copy a staged revision into a folder, verified")
    fetch.add_argument("model")
    fetch.add_argument("revision")
    fetch.add_argument("--to", type=Path, required=True, help="gets <model>/<revision>/files and manifest.json")
    fetch.add_argument("--warm", action="store_true", help="read everything once more, also what was there before")
    fetch.add_argument(
        "--durable", action="store_true", help="wait until the disk has it, not only this machine's memory"
    )
    deliver = command("deliver", _deliver, "bring a staged revision onto the cluster's FSx file system")
    deliver.add_argument("model", help="name in the catalog")
    deliver.add_argument("revision")
    warm = command("warm", _warm, "read a fetched revision, so that its bytes are resident, and check it")
    warm.add_argument("folder", type=Path, help="…/<model>/<revision>")
    collect = command("collect", _collect, "delete old revisions; without --yes it only says what")
    collect.add_argument("model", nargs="?")
    collect.add_argument("--keep", type=int, default=2, help="newest revisions of each model that stay")
    collect.add_argument("--days", type=float, default=7, help="everything younger stays")
    collect.add_argument("--yes", action="store_true", help="delete")
    collect.add_argument("--without-cluster", action="store_true", help="ask no cluster which revisions are served")
    collect.add_argument(
        "--kube-context", action="append", default=[], metavar="CLUSTER=CONTEXT", help="of the kubeconfig; repeatable"
    )
    discard = command("discard", _discard, "delete a fetched revision from a folder (what collect's pods do)")
    discard.add_argument("folder", type=Path, help="…/<model>/<revision>")
    return parser


def _place(options: argparse.Namespace) -> tuple[str, StagingContext]:
    """Where to stage, and with whose rights: the environment's (``AWS_*``, ``HF_TOKEN``, ``HF_ENDPOINT``)."""
    from include.staging.context import StagingContext

    context = StagingContext(
        region=os.environ.get("AWS_REGION"),
        hf_token=os.environ.get("HF_TOKEN") or None,
        hf_endpoint=os.environ.get("HF_ENDPOINT") or None,
    )
    if options.models_uri:
        return options.models_uri, context
    cluster = _cluster(options)
    bucket = cluster.models_bucket
    return cluster.models_uri, replace(
        context,
        region=cluster.region,
        expected_bucket_owner=bucket.owner,
        kms_key=bucket.kms_key,
        storage_class=bucket.storage_class,
        tags=bucket.tags,
    )


def _cluster(options: argparse.Namespace) -> ClusterSpec:
    from include.catalog.loader import load_catalog

    return load_catalog().cluster(options.cluster)


def _model(options: argparse.Namespace) -> WeightsSpec:
    if not options.source:
        from include.catalog.loader import load_catalog

        return load_catalog().model(options.model)
    from pydantic import ValidationError

    from include.catalog.weights import WeightsSpec

    try:
        return WeightsSpec.model_validate(
            {
                "name": options.model,
                "source": _source(options.source),
                "allow_pickle": options.allow_pickle,
                # Nothing says how it will be served, so that a missing tokenizer is told and not refused.
                "weights_only": True,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ConfigurationError(
            "ModelInvalid", f"{field}: {first['msg']}", fix="correct the name or --source"
        ) from error


def _source(text: str) -> dict[str, str]:
    scheme, mark, rest = text.partition("://")
    if mark and scheme == "s3":
        return {"type": "s3", "uri": text if "/" in rest else f"{text}/"}
    if mark and scheme == "hf":
        repo, _, revision = rest.partition("@")
        return {"type": "huggingface", "repo": repo, "revision": revision or "main"}
    return {"type": "folder", "path": str(Path(text).resolve())}


def _target(options: argparse.Namespace) -> Target:
    from include.staging.target import Target

    uri, context = _place(options)
    return Target.open(uri, options.model, options.revision, context)


def _say(text: object) -> None:
    print(text, file=sys.stderr, flush=True)


def _stage(options: argparse.Namespace) -> int:
    from include.staging.api import resolve_revision, stage

    uri, context = _place(options)
    context = replace(context, reading=lambda progress: _say(f"reading {progress}"))
    model = _model(options)
    revision = options.revision or resolve_revision(model, context)
    budget = _budget(options)
    staged = stage(
        model, revision, uri, context, owner=options.owner, progress=_say, budget_bytes=budget, notice=_say,
        repair=options.repair,
    )  # fmt: skip
    print(staged.model_dump_json(indent=1))
    return 0


def _budget(options: argparse.Namespace) -> int | None:
    """What is asked for, else the cluster's limit when it is its store."""
    if options.budget_gb is not None:
        return int(options.budget_gb * 1e9)
    return None if options.models_uri else _cluster(options).max_staged_bytes


def _verify(options: argparse.Namespace) -> int:
    from include.staging.api import verify
    from include.staging.inspection import Depth

    uri, context = _place(options)
    staged = verify(uri, options.model, options.revision, context, depth=Depth(options.depth))
    print(f"{staged.uri}: {staged.files} files, {staged.total_bytes} bytes: as {staged.manifest_digest} says")
    return 0


def _list(options: argparse.Namespace) -> int:
    from include.staging.collect import list_staged

    uri, context = _place(options)
    for one in list_staged(uri, context, options.model):
        state = "damaged" if one.damaged else one.digest[:19] if one.finished else "unfinished"
        print(f"{one.name:<30} {one.revision:<42} {one.size / 1e9:>9.3f} GB {one.at:%Y-%m-%d %H:%M} {state}")
    return 0


def _explore(options: argparse.Namespace) -> int:
    from include.staging.explore import explore_claim, explore_folder, explore_target

    if options.folder:
        lines = explore_folder(options.folder)
    elif options.fsx_claim:
        lines = explore_claim(_kube(options), _cluster(options), options.fsx_claim, options.path, options.image)
    elif options.model and options.revision:
        lines = explore_target(_target(options))
    else:
        raise ConfigurationError("NothingToExplore", "no revision and no claim given", fix="explore MODEL REVISION")
    for line in lines:
        print(line)
    return 0


def _deliver(options: argparse.Namespace) -> int:
    from include.catalog.loader import load_catalog
    from include.staging.delivery import deliver, place_of

    cluster = _cluster(options)
    place = place_of(load_catalog().model(options.model), cluster)
    if place is None:
        raise ConfigurationError(
            "NotOnFsx", f"model {options.model!r} is not served from FSx", fix="set deployment.model_source: fsx"
        )
    target = _target(options)
    done = deliver(replace(target, context=replace(target.context, kube=_kube(options))), place, _say)
    print(done.model_dump_json(indent=1))
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from include.staging.readers import Readers

    # They load while the rest does.
    with Readers() as readers:
        from include.staging.fetch import fetch, warm
        from include.staging.progress import Meter

        target = _target(options)
        manifest = target.require_manifest()
        meter = Meter(manifest.total_bytes, _say)
        done = fetch(target, options.to, meter.count, durable=options.durable, readers=readers, manifest=manifest)
    if options.warm:
        warm(done.folder)
    print(json.dumps({"folder": str(done.folder), "moved_bytes": done.moved_bytes}))
    return 0


def _warm(options: argparse.Namespace) -> int:
    from include.staging.fetch import warm

    print(json.dumps({"folder": str(options.folder), "read_bytes": warm(options.folder)}))
    return 0


def _collect(options: argparse.Namespace) -> int:
    from include.catalog.loader import load_catalog
    from include.staging.clusters import contexts_of, kube_of, sharing
    from include.staging.collect import Retention
    from include.staging.garbage import Collection, kubes

    uri, context = _place(options)
    clusters = sharing(load_catalog().clusters.values(), uri)
    contexts = contexts_of(options.kube_context)
    asked = None if options.without_cluster else kubes(lambda cluster: kube_of(cluster, contexts, clusters))
    retention = Retention(options.keep, dt.timedelta(days=options.days))
    for line in Collection(uri, context, clusters, asked).run(retention, options.model, yes=options.yes):
        print(line)
    return 0


def _discard(options: argparse.Namespace) -> int:
    from include.staging.explore import discard_folder

    print(f"{discard_folder(options.folder)} bytes deleted from {options.folder}")
    return 0


def _kube(options: argparse.Namespace) -> Any:
    from include.staging.clusters import kube_of

    return kube_of(_cluster(options), {})
