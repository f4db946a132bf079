"""Base of the models that people write and stages hand on; apart from the catalog, whose classes take long to load."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

JsonObject = dict[str, Any]


class Spec(BaseModel):
    """Base of everything that a person writes: frozen, strict about unknown fields.

    A class's validator is built when it is first used: a command needs few of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)
