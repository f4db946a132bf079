"""Read the catalog's YAML files; report every problem of every file at once."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from include.catalog.specs import ClusterSpec, ModelSpec, NightlySpec, PriceBook, Spec, WorkloadSpec
from include.errors import ConfigurationError

CATALOG_ROOT = Path(__file__).resolve().parent

S = TypeVar("S", bound=Spec)
N = TypeVar("N", ModelSpec, ClusterSpec, WorkloadSpec)


@dataclass(frozen=True)
class Problem:
    """One thing wrong in one file: the field as a dotted path, the value as written, what to do."""

    file: str
    field: str
    value: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field} = {self.value}: {self.fix}"


@dataclass(frozen=True)
class Catalog:
    """Everything that can be run, by name."""

    models: Mapping[str, ModelSpec]
    clusters: Mapping[str, ClusterSpec]
    workloads: Mapping[str, WorkloadSpec]
    nightly: NightlySpec
    prices: PriceBook

    def model(self, name: str) -> ModelSpec:
        """Return a model; an unknown name is a configuration error that lists the known ones."""
        return _pick("model", self.models, name)

    def cluster(self, name: str) -> ClusterSpec:
        """Return a cluster; an unknown name is a configuration error that lists the known ones."""
        return _pick("cluster", self.clusters, name)

    def workload(self, name: str) -> WorkloadSpec:
        """Return a workload; an unknown name is a configuration error that lists the known ones."""
        return _pick("workload", self.workloads, name)


@dataclass
class _Reader:
    root: Path
    problems: list[Problem] = field(default_factory=list)

    def one(self, path: Path, kind: type[S]) -> S | None:
        """Parse one file into ``kind``, or note what is wrong with it."""
        name = str(path.relative_to(self.root))
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 (safe subclass)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            where = getattr(error, "problem_mark", None)
            place = f"line {where.line + 1}, column {where.column + 1}" if where else "the file"
            said = getattr(error, "problem", None) or str(error)
            self.problems.append(Problem(name, place, repr(said), "make it valid YAML"))
            return None
        except (ValueError, RecursionError) as error:
            self.problems.append(Problem(name, "the file", repr(str(error)), "quote dates that are text; nest less"))
            return None
        if not isinstance(content, dict):
            self.problems.append(Problem(name, "the file", type(content).__name__, "write a mapping of field: value"))
            return None
        try:
            return kind.model_validate(content)
        except ValidationError as error:
            self.problems += _problems(name, error, kind)
            return None

    def folder(self, name: str, kind: type[N]) -> dict[str, N]:
        """Parse every YAML file of a folder; the file's name must be the object's name."""
        found: dict[str, N] = {}
        for path in sorted((self.root / name).glob("*.y*ml")):
            spec = self.one(path, kind)
            if spec is None:
                continue
            if spec.name != path.stem:
                file = str(path.relative_to(self.root))
                fix = f"rename the file to {spec.name}.yaml or the object to {path.stem}"
                self.problems.append(Problem(file, "name", repr(spec.name), fix))
            found[spec.name] = spec
        return found

    def optional(self, name: str, kind: type[S], default: S) -> S:
        """Parse a single file that may be absent."""
        path = self.root / name
        return (self.one(path, kind) or default) if path.exists() else default


def load_catalog(root: Path | None = None) -> Catalog:
    """Load the catalog below ``root`` (default: the shipped one).

    :raises ConfigurationError: listing every problem of every file, one per line.
    """
    reader = _Reader(root or CATALOG_ROOT)
    catalog = Catalog(
        models=reader.folder("models", ModelSpec),
        clusters=reader.folder("clusters", ClusterSpec),
        workloads=reader.folder("workloads", WorkloadSpec),
        nightly=reader.optional("nightly.yaml", NightlySpec, NightlySpec()),
        prices=reader.optional("prices.yaml", PriceBook, PriceBook(id="none")),
    )
    problems = reader.problems or list(_dangling(catalog))
    if problems:
        raise _invalid(reader.root, problems)
    return catalog


def load_workload(path: Path) -> WorkloadSpec:
    """Load one workload from a file anywhere.

    :raises ConfigurationError: listing every problem of the file.
    """
    reader = _Reader(path.parent)
    found = reader.one(path, WorkloadSpec)
    if found is None:
        raise _invalid(reader.root, reader.problems)
    return found


def _invalid(root: Path, problems: list[Problem]) -> ConfigurationError:
    lines = [str(problem) for problem in problems]
    return ConfigurationError(
        "CatalogInvalid",
        f"{len(lines)} problem(s) in {root}:\n  " + "\n  ".join(lines),
        fix="correct the fields named above; nothing was started",
        evidence=tuple(lines),
    )


def _dangling(catalog: Catalog) -> Iterator[Problem]:
    for index, cell in enumerate(catalog.nightly.cells):
        wanted = [("model", cell.model, catalog.models), ("cluster", cell.cluster, catalog.clusters)]
        wanted += [("workloads", name, catalog.workloads) for name in cell.workloads]
        for what, name, known in wanted:
            if name not in known:
                yield Problem("nightly.yaml", f"cells[{index}].{what}", repr(name), _known(name, known))


def _problems(file: str, error: ValidationError, kind: type[Spec]) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        path = _path(item["loc"])
        value = "absent" if item["type"] == "missing" else repr(item["input"])
        yield Problem(file, path, _short(value), _fix(item, kind))


def _path(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "the file"


def _fix(item: Any, kind: type[Spec]) -> str:
    message = str(item["msg"])
    if item["type"] == "extra_forbidden":
        name = str(item["loc"][-1])
        near = difflib.get_close_matches(name, _fields(kind), n=1)
        return f"no such field{f', did you mean {near[0]!r}' if near else ''}; remove or correct it"
    if item["type"] == "missing":
        return "this field is required; add it"
    return message[:1].lower() + message[1:]


def _fields(kind: type[Spec]) -> list[str]:
    names: list[str] = []
    pending: list[Any] = [kind]
    seen: set[Any] = set()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        fields = getattr(current, "model_fields", None)
        if isinstance(fields, dict):
            names += list(fields)
            pending += [info.annotation for info in fields.values()]
        pending += list(getattr(current, "__args__", ()))
    return names


def _pick(what: str, known: Mapping[str, N], name: str) -> N:
    if name not in known:
        raise ConfigurationError(
            f"Unknown{what.capitalize()}",
            f"{what} {name!r} is not in the catalog",
            fix=_known(name, known),
        )
    return known[name]


def _known(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(sorted(known)) or 'none'}"


def _short(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice; plain YAML silently keeps the last one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing a repeated key."""
        seen: set[Any] = set()
        for key_node, _ in getattr(node, "value", ()):
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
