"""Reading foreign files: every refusal names file, line and field."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from include.errors import IntegrityError

JsonObject = dict[str, Any]
EXPORT_AGAIN = "export it again with a current version of the tool"


def refused(path: Path, line: int | None, field: str, problem: str, fix: str) -> IntegrityError:
    """Return the error for a file that cannot be imported."""
    where = f"{path}:{line}" if line else str(path)
    return IntegrityError("ImportRefused", f"{where}: field {field}: {problem}", fix=fix)


@dataclass(frozen=True)
class Document:
    """A parsed file and its text, so that a bad field can be shown where it stands."""

    path: Path
    text: str
    content: JsonObject

    def bad(self, field: str, problem: str, fix: str = EXPORT_AGAIN) -> IntegrityError:
        """Return the error for one field, given as a dotted path."""
        return refused(self.path, line_of(self.text, field), field, problem, fix)

    def get(self, field: str, kind: type | tuple[type, ...], *, required: bool = True) -> Any:
        """Return a field by its dotted path, ``None`` when it is absent and not required.

        :raises IntegrityError: absent, of another type, or below something that is no object.
        """
        found: Any = self.content
        parts = field.split(".")
        for place, part in enumerate(parts):
            if found is not None and not isinstance(found, Mapping):
                raise self.bad(".".join(parts[:place]), f"is {type(found).__name__}, not an object")
            found = found.get(part) if found is not None else None
        if found is None:
            if required:
                raise self.bad(field, "is missing")
            return None
        if isinstance(found, bool) or not isinstance(found, kind):
            raise self.bad(field, f"is {type(found).__name__} {str(found)[:40]!r}")
        return found

    def count(self, field: str, *, required: bool = True) -> int:
        """Return a whole number that is not negative, 0 when it is absent and not required."""
        found = self.number(field, required=required) or 0.0
        if found != int(found):
            raise self.bad(field, f"is {found}, not a whole number")
        return int(found)

    def moment(self, field: str) -> dt.datetime | None:
        """Return a time as UTC, ``None`` when it is absent."""
        text = self.get(field, (str, dt.datetime), required=False)
        if text is None:
            return None
        if (found := moment(str(text))) is None:
            raise self.bad(field, f"is {str(text)[:40]!r}, not a time", "write it as 2026-03-31T10:15:00Z")
        return found

    def number(self, field: str, *, required: bool = True) -> float | None:
        """Return a number that is finite and not negative."""
        found = self.get(field, (int, float), required=required)
        if found is not None and not 0 <= found < float("inf"):
            raise self.bad(field, f"is {found}, not a finite number of at least 0")
        return None if found is None else float(found)

    def numbers(self, field: str) -> list[float]:
        """Return a list of numbers, empty when it is absent."""
        found = self.get(field, list, required=False) or []
        if not all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in found):
            raise self.bad(field, "holds something that is not a number")
        return [float(item) for item in found]


def moment(text: str) -> dt.datetime | None:
    """Return a time as UTC; ``None`` when it is not one. ``20260331-101500`` is vLLM's way."""
    try:
        if match := re.fullmatch(r"(\d{8})-(\d{6})", text):
            return dt.datetime.strptime("".join(match.groups()), "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def read_document(path: Path) -> Document:
    """Read a JSON or YAML file that holds one object.

    :raises IntegrityError: cut short, malformed, or not an object; with the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise refused(
            path, None, "(file)", f"is not UTF-8 at byte {error.start}", "give the JSON file itself"
        ) from error
    try:
        content = yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(content, ensure_ascii=False, default=str).encode()
    except json.JSONDecodeError as error:
        cut = "is cut short" if error.pos >= len(text.rstrip()) - 1 else f"is not JSON: {error.msg}"
        raise refused(path, error.lineno, "(file)", cut, "copy the whole file again") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        raise refused(path, line, "(file)", "is not YAML", "copy the whole file again") from error
    except (ValueError, RecursionError) as error:
        # A date that does not exist, a number of thousands of digits, half a surrogate pair, a million brackets.
        problem = f"holds a value that cannot be read: {str(error)[:80]}"
        raise refused(path, None, "(file)", problem, "correct the file") from error
    if not isinstance(content, dict):
        raise refused(path, 1, "(file)", f"holds a {type(content).__name__}, not an object", "give the result's file")
    return Document(path, text, content)


def line_of(text: str, field: str) -> int | None:
    """Return the line of a field, or of the nearest part of its path that is there; JSON is read as YAML."""
    try:
        node = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    line: int | None = 1
    for part in field.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((key, value) for key, value in pairs if key.value == part), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
