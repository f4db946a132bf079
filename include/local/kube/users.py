"""Who a request is from: bearer tokens, kept in one file below the state folder."""

from __future__ import annotations

import csv
import hmac
import io
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from include.local.kube.errors import unauthorized

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"


@dataclass(frozen=True)
class User:
    """An authenticated client."""

    name: str
    groups: tuple[str, ...] = ()

    @property
    def is_master(self) -> bool:
        """Masters may do anything, whatever the rules say."""
        return MASTERS in self.groups


class Users:
    """Tokens in the format of a static token file: ``token,user,uid,"group1,group2"``.

    :param path: created with one administrator when it does not exist; only its owner may read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, User] = {}
        if path.exists():
            for row in csv.reader(path.read_text().splitlines()):
                if len(row) >= 2:
                    groups = tuple(row[3].split(",")) if len(row) > 3 and row[3] else ()
                    self._known[row[0]] = User(row[1], groups)
        if not self._known:
            self.add("admin", (MASTERS,))

    def add(self, name: str, groups: tuple[str, ...] = ()) -> str:
        """Add a user; return the token, which is written to the file."""
        token = secrets.token_urlsafe(32)
        self._known[token] = User(name, groups)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for known, user in self._known.items():
            writer.writerow([known, user.name, user.name, ",".join(user.groups)])
        temporary = self._path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(text.getvalue())
        temporary.replace(self._path)
        return token

    def admin_token(self) -> str:
        """Return a token of an administrator."""
        return next(token for token, user in self._known.items() if user.is_master)

    def authenticate(self, header: str) -> User:
        """Return the user of an ``Authorization`` header.

        :raises ApiError: 401 without a known token.
        """
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer":
            for known, user in self._known.items():
                if hmac.compare_digest(known.encode(), token.strip().encode()):
                    return user
        raise unauthorized()
