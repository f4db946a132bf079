"""Will this be servable, and is it safe to load? Asked of the source, before a byte moves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from include.catalog.weights import WeightsSpec
from include.errors import ConfigurationError, IntegrityError
from include.staging.gguf import check_gguf
from include.staging.safetensors import INDEX, check_index, tensors_of
from include.staging.sources import Listing, SourceFile

SAFETENSORS, GGUF = ".safetensors", ".gguf"
WEIGHT_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
WEIGHTS = (SAFETENSORS, GGUF, *WEIGHT_PICKLES)
# Loading one of these may run code that it holds (arrays of numpy too, when they hold objects).
PICKLES = (*WEIGHT_PICKLES, ".joblib", ".dill", ".npy", ".npz")
TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "tekken.json",
    "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
CONFIGS = ("config.json", "params.json", "model_index.json")
HEADS_AT_ONCE = 8
PART = re.compile(r"^(?P<start>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.[a-z]+)$", re.IGNORECASE)


def check_formats(model: WeightsSpec, listing: Listing) -> tuple[str, ...]:
    """Check the weight files of a source, and that what serving needs lies beside them.

    :returns: sentences that a person should read, about what the model's spec allows.
    :raises ConfigurationError: no weights, pickles that the model does not allow, or no config or tokenizer.
    :raises IntegrityError: a header, an index or a set of parts that is not what the format says.
    """
    weights = [file for file in listing.files if _is(file, *WEIGHTS)]
    if not weights:
        raise ConfigurationError(
            "NoWeights",
            f"model {model.name!r}: none of {len(listing.files)} files is {', '.join(WEIGHTS)}",
            fix=_filters(model),
        )
    _refuse_pickles(model, listing)
    said = _companions(model, listing)
    _check_parts(model, listing)
    with ThreadPoolExecutor(HEADS_AT_ONCE) as pool:
        shards = [file for file in weights if _is(file, SAFETENSORS)]
        ggufs = pool.map(check_gguf, [file for file in weights if _is(file, GGUF)])
        tensors = dict(zip((file.path for file in shards), pool.map(tensors_of, shards), strict=True))
        list(ggufs)
    paths = frozenset(file.path for file in listing.files)
    for file in listing.files:
        # An index of pickled weights names its shards in the same way.
        if _is(file, *(f"{suffix}{INDEX}" for suffix in (SAFETENSORS, *WEIGHT_PICKLES))):
            check_index(file, paths, tensors, _filters(model))
    return tuple(said)


def _is(file: SourceFile, *suffixes: str) -> bool:
    return file.path.casefold().endswith(suffixes)


def _filters(model: WeightsSpec) -> str:
    """What to do about files that are not there: only some sources can leave any out."""
    if getattr(model.source, "include", ()) or getattr(model.source, "exclude", ()):
        return "correct source.include and source.exclude, or the source"
    return "the source is incomplete: correct it, or name another"


def _refuse_pickles(model: WeightsSpec, listing: Listing) -> None:
    pickles = [file.path for file in listing.files if _is(file, *PICKLES)]
    if pickles and not model.allow_pickle:
        exclude = ", exclude these files" if hasattr(model.source, "exclude") else ", remove these files"
        raise ConfigurationError(
            "PickleRefused",
            f"model {model.name!r}: {', '.join(pickles[:3])} can run code when loaded",
            fix=f"take a safetensors revision{exclude}, or set allow_pickle: true if you trust them",
        )


def _companions(model: WeightsSpec, listing: Listing) -> Iterator[str]:
    """Look for what an engine reads besides safetensors; a GGUF file has both inside.

    :raises ConfigurationError: there is none, and the model does not say that this is meant.
    """
    folders = {PurePosixPath(file.path).parent for file in listing.files if _is(file, SAFETENSORS)}
    if not folders:
        return iter(())
    missing = [
        *_lacking("config", CONFIGS, {PurePosixPath(file.path) for file in listing.files}, folders),
        *_without_tokenizer(listing),
    ]
    if missing and not model.weights_only:
        raise ConfigurationError(
            "ModelIncomplete",
            f"model {model.name!r}: safetensors without {' and without '.join(missing)}",
            fix=f"{_filters(model)}; where the image has them, set weights_only: true",
        )
    return (f"model {model.name!r} is staged without {text}: the image must have it" for text in missing)


def _lacking(
    what: str, names: tuple[str, ...], paths: set[PurePosixPath], folders: set[PurePosixPath]
) -> Iterator[str]:
    """Yield the folders that have no such file, and neither has a folder above."""
    have = {path.parent for path in paths if path.name in names}
    for folder in sorted(folders):
        if not have & {folder, *folder.parents}:
            yield f"a {what} ({', '.join(names)}) in {'the top folder' if folder == PurePosixPath() else folder}"


def _without_tokenizer(listing: Listing) -> Iterator[str]:
    # Anywhere: pipelines of several models keep it in a folder of its own.
    if not any(PurePosixPath(file.path).name in TOKENIZERS for file in listing.files):
        yield f"a tokenizer ({', '.join(TOKENIZERS[:4])} …)"


def _check_parts(model: WeightsSpec, listing: Listing) -> None:
    """Check that of files named ``…-00001-of-00003`` every part is there."""
    found: dict[tuple[str, int, str], set[int]] = {}
    for file in listing.files:
        if _is(file, *WEIGHTS) and (part := PART.match(file.path)):
            found.setdefault((part["start"], int(part["count"]), part["end"]), set()).add(int(part["number"]))
    for (start, count, end), numbers in sorted(found.items()):
        missing = sorted(set(range(1, count + 1)) - numbers)
        if missing:
            raise IntegrityError(
                "ShardMissing",
                f"{start}-{missing[0]:05}-of-{count:05}{end}: {len(missing)} of {count} parts are not in the source",
                fix=_filters(model),
            )
