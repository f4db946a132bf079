"""An S3 server for measuring clients: TLS, one process a connection, uploads are checked and dropped.

    python -m bench.staging_sink FOLDER CERTIFICATE KEY      (prints its port)

A real S3 server on the same machine would be the limit (SeaweedFS spends about 10 CPU-seconds per GB received, this
one about 0.7), and the figures would say little about the clients. What it does not do: keep what is uploaded, check
signatures. An object that is to be downloaded is a file below ``FOLDER/content``. CRC64NVME is checked
and reported as S3 does (full object); entity tags of single uploads are MD5.
"""

from __future__ import annotations

import base64
import datetime as dt
import email.utils
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from awscrt.checksums import combine_crc64nvme, crc64nvme

PIECE = 1 << 18
SMALL = 1 << 20
CRC = "x-amz-checksum-crc64nvme"
Meta = dict[str, Any]


class Reader(Protocol):
    """Bytes of a request, piece by piece."""

    def line(self) -> bytes:
        """Return a line without its end."""

    def some(self, limit: int) -> memoryview:
        """Return up to ``limit`` bytes, valid until the next call."""


class Wire:
    """A connection's bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = memoryview(bytearray(PIECE))
        self._begin = self._end = 0

    def _fill(self) -> None:
        self._begin, self._end = 0, self.connection.recv_into(self._buffer)
        if not self._end:
            raise ConnectionResetError

    def line(self) -> bytes:
        found = bytearray()
        while not found.endswith(b"\n"):
            if self._begin == self._end:
                self._fill()
            part = bytes(self._buffer[self._begin : self._end])
            end = part.find(b"\n") + 1 or len(part)
            found += part[:end]
            self._begin += end
        return bytes(found).rstrip(b"\r\n")

    def some(self, limit: int) -> memoryview:
        if self._begin == self._end:
            self._fill()
        end = min(self._end, self._begin + limit)
        piece, self._begin = self._buffer[self._begin : end], end
        return piece


class Chunked:
    """The payload inside HTTP or aws-chunked framing; ends with an empty piece."""

    def __init__(self, inner: Reader) -> None:
        self._inner = inner
        self._left: int | None = None

    def line(self) -> bytes:
        found = bytearray()
        while not found.endswith(b"\n"):
            piece = self.some(1)
            if not piece:
                break
            found += piece
        return bytes(found).rstrip(b"\r\n")

    def some(self, limit: int) -> memoryview:
        if self._left is None:
            self._left = int(self._inner.line().split(b";")[0], 16)
        if self._left == 0:
            return memoryview(b"")
        piece = self._inner.some(min(limit, self._left))
        self._left -= len(piece)
        if self._left == 0:
            self._inner.line()
            self._left = None
        return piece

    def finish(self) -> dict[str, str]:
        """Read the trailer."""
        found: dict[str, str] = {}
        while line := self._inner.line():
            name, _, value = line.decode().partition(":")
            found[name.strip().lower()] = value.strip()
        return found


class Store:
    """What is known of objects: a small file each, shared by all processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("meta", "uploads", "content"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, value: Meta) -> None:
        partial = path.with_name(f".{path.name[:50]}.{os.getpid()}")
        partial.write_text(json.dumps(value))
        partial.replace(path)

    def meta_path(self, key: str) -> Path:
        return self.root / "meta" / quote(key, safe="")

    def head(self, key: str) -> Meta | None:
        try:
            return dict(json.loads(self.meta_path(key).read_text()))
        except FileNotFoundError:
            return None

    def put(self, key: str, meta: Meta) -> None:
        self.write(self.meta_path(key), meta | {"modified": dt.datetime.now(dt.UTC).timestamp()})

    def keys(self, prefix: str) -> list[str]:
        names = (unquote(entry.name) for entry in os.scandir(self.root / "meta") if not entry.name.startswith("."))
        return sorted(name for name in names if name.startswith(prefix))


class Handler:
    """Serves one connection."""

    def __init__(self, connection: socket.socket, store: Store) -> None:
        self.wire = Wire(connection)
        self.store = store
        self.headers: dict[str, str] = {}
        self.query: dict[str, str] = {}
        self.key = ""

    def serve(self) -> None:
        while True:
            method, target, _ = self.wire.line().decode().split(" ", 2)
            self.headers = {}
            while line := self.wire.line():
                name, _, value = line.decode("latin-1").partition(":")
                self.headers[name.strip().lower()] = value.strip()
            parts = urlsplit(target)
            self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
            self.key = unquote(parts.path).strip("/")
            if self.headers.get("expect", "").lower() == "100-continue":
                self.wire.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            getattr(self, f"do_{method.lower()}")()

    def body(self, keep: bool = False) -> tuple[int, int, str, bytes]:
        """Read the request's body: size, CRC64NVME, MD5 (hex; of small bodies), the bytes if asked for."""
        size, crc, kept, trailer = 0, 0, bytearray(), dict[str, str]()
        layers: list[Chunked] = []
        reader: Reader = self.wire
        left = int(self.headers.get("content-length") or 0)
        if self.headers.get("transfer-encoding") == "chunked":
            layers.append(Chunked(reader))
            reader, left = layers[-1], 1 << 60
        if "aws-chunked" in self.headers.get("content-encoding", ""):
            layers.append(Chunked(reader))
            reader, left = layers[-1], 1 << 60
        while left:
            piece = reader.some(min(left, PIECE))
            if not piece:
                break
            left -= len(piece)
            size += len(piece)
            crc = crc64nvme(bytes(piece), crc)
            if keep or size <= SMALL:
                kept += piece
        for layer in reversed(layers):
            trailer |= layer.finish()
        stated = self.headers.get(CRC) or trailer.get(CRC)
        if stated and stated != as_text(crc):
            raise ValueError(f"BadDigest {stated} {as_text(crc)}")
        return size, crc, hashlib.md5(kept).hexdigest() if size <= SMALL else "", bytes(kept) if keep else b""

    def answer(self, status: str, body: bytes = b"", **headers: str) -> None:
        fields = {"Content-Length": str(len(body)), "x-amz-request-id": "1"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.wire.connection.sendall(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)

    def xml(self, text: str) -> None:
        self.answer("200 OK", f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode(), Content_Type="application/xml")

    def missing(self, head: bool = False) -> None:
        body = b"" if head else b"<Error><Code>NoSuchKey</Code><Message>not here</Message></Error>"
        self.answer("404 Not Found", body, Content_Type="application/xml")

    def do_put(self) -> None:
        if "x-amz-copy-source" in self.headers:
            self._copy()
            return
        size, crc, md5, kept = self.body(keep="partNumber" not in self.query and self._small())
        if "uploadId" in self.query:
            path = self.store.root / "uploads" / self.query["uploadId"] / self.query["partNumber"]
            self.store.write(path, {"size": size, "crc": crc})
            self.answer("200 OK", ETag=f'"{md5 or f"{crc:032x}"}"', **{CRC: as_text(crc)})
            return
        if self.headers.get("if-none-match") == "*" and self.store.head(self.key):
            self.answer("412 Precondition Failed", b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        # Not in the form of an MD5, which clients would compare.
        etag = md5 or f"{crc:032x}-1"
        self._keep(kept, size, crc, etag)
        self.answer("200 OK", ETag=f'"{etag}"', **{CRC: as_text(crc)})

    def _small(self) -> bool:
        return int(self.headers.get("content-length") or 1 << 40) <= SMALL

    def _keep(self, kept: bytes, size: int, crc: int, etag: str) -> None:
        user = {name: value for name, value in self.headers.items() if name.startswith("x-amz-meta-")}
        content = ""
        if kept and len(kept) == size:
            content = quote(self.key, safe="")
            (self.store.root / "content" / content).write_bytes(kept)
        self.store.put(self.key, {"size": size, "crc": crc, "etag": etag, "user": user, "content": content})

    def _copy(self) -> None:
        self.body()
        source = self.store.head(unquote(self.headers["x-amz-copy-source"]).strip("/"))
        if source is None:
            self.missing()
            return
        self.store.put(self.key, source)
        self.xml(f'<CopyObjectResult><ETag>"{source["etag"]}"</ETag></CopyObjectResult>')

    def do_post(self) -> None:
        if "uploads" in self.query:
            self.body()
            name = uuid.uuid4().hex
            user = {name: value for name, value in self.headers.items() if name.startswith("x-amz-meta-")}
            folder = self.store.root / "uploads" / name
            folder.mkdir()
            self.store.write(folder / "user", user)
            bucket, _, key = self.key.partition("/")
            self.xml(
                f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
                f"<UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            )
            return
        listed = self.body(keep=True)[3].decode()
        if "delete" in self.query:
            names = re.findall(r"<Key>(.*?)</Key>", listed)
            for name in names:
                self.store.meta_path(f"{self.key}/{name}").unlink(missing_ok=True)
            done = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
            self.xml(f"<DeleteResult>{done}</DeleteResult>")
            return
        folder = self.store.root / "uploads" / self.query["uploadId"]
        size = crc = 0
        numbers = sorted(map(int, re.findall(r"<PartNumber>(\d+)</PartNumber>", listed)))
        for number in numbers:
            part = json.loads((folder / str(number)).read_text())
            size, crc = size + part["size"], combine_crc64nvme(crc, part["crc"], part["size"])
        etag = f"{crc:032x}-{len(numbers)}"
        user = json.loads((folder / "user").read_text())
        self.store.put(self.key, {"size": size, "crc": crc, "etag": etag, "user": user, "content": ""})
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        bucket, _, key = self.key.partition("/")
        self.xml(
            f"<CompleteMultipartUploadResult><Location>/{bucket}</Location><Bucket>{bucket}</Bucket>"
            f"<Key>{escape(key)}</Key><ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
        )

    def do_delete(self) -> None:
        self.body()
        if "uploadId" not in self.query:
            self.store.meta_path(self.key).unlink(missing_ok=True)
        self.answer("204 No Content")

    def _fields(self, meta: Meta) -> dict[str, str]:
        fields = {
            "ETag": f'"{meta["etag"]}"',
            "Last-Modified": email.utils.formatdate(meta["modified"], usegmt=True),
            "Accept-Ranges": "bytes",
            **meta["user"],
        }
        if self.headers.get("x-amz-checksum-mode", "").lower() == "enabled" and "range" not in self.headers:
            fields |= {CRC: as_text(meta["crc"]), "x-amz-checksum-type": "FULL_OBJECT"}
        return fields

    def do_head(self) -> None:
        self.body()
        meta = self.store.head(self.key)
        if "/" not in self.key:
            self.answer("200 OK")
        elif meta is None:
            self.missing(head=True)
        else:
            self.answer("200 OK", **self._fields(meta) | {"Content-Length": str(meta["size"])})

    def do_get(self) -> None:
        self.body()
        if "uploads" in self.query:
            self.xml("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>")
        elif "/" not in self.key:
            self._list()
        else:
            self._get()

    def _get(self) -> None:
        meta = self.store.head(self.key)
        if meta is None or not (meta["content"] or meta["size"] == 0):
            self.missing()
            return
        begin, end, status = 0, meta["size"], "200 OK"
        fields = self._fields(meta)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if wanted:
            begin, end = int(wanted[1]), min(end, int(wanted[2] or end) + 1)
            status = "206 Partial Content"
            fields["Content-Range"] = f"bytes {begin}-{end - 1}/{meta['size']}"
        fields |= {"Content-Length": str(end - begin)}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.wire.connection.sendall(f"HTTP/1.1 {status}\r\n{head}\r\n".encode())
        if begin < end:
            with (self.store.root / "content" / meta["content"]).open("rb", buffering=0) as file:
                file.seek(begin)
                while begin < end:
                    piece = file.read(min(PIECE, end - begin))
                    self.wire.connection.sendall(piece)
                    begin += len(piece)

    def _list(self) -> None:
        bucket = self.key
        prefix, after = self.query.get("prefix", ""), self.query.get("continuation-token", "")
        limit = int(self.query.get("max-keys") or 1000)
        names = [key.partition("/")[2] for key in self.store.keys(f"{bucket}/{prefix}")]
        names = [name for name in names if name > after]
        shown, rest = names[:limit], names[limit:]
        rows = []
        for name in shown:
            meta = self.store.head(f"{bucket}/{name}")
            if meta is not None:
                when = dt.datetime.fromtimestamp(meta["modified"], dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
                rows.append(
                    f"<Contents><Key>{escape(name)}</Key><LastModified>{when}</LastModified>"
                    f"<ETag>&quot;{meta['etag']}&quot;</ETag><Size>{meta['size']}</Size>"
                    "<StorageClass>STANDARD</StorageClass></Contents>"
                )
        more = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if rest else ""
        self.xml(
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(rows)}</KeyCount>"
            f"<MaxKeys>{limit}</MaxKeys><IsTruncated>{'true' if rest else 'false'}</IsTruncated>{more}{''.join(rows)}"
            "</ListBucketResult>"
        )


def as_text(crc: int) -> str:
    """The checksum as S3 writes it."""
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def add_content(root: Path, key: str, file: Path) -> None:
    """Give an object that was uploaded, and dropped, its bytes back, so that it can be downloaded."""
    store, name = Store(root), quote(key, safe="")
    meta = store.head(key)
    if meta is None:
        raise FileNotFoundError(key)
    (root / "content" / name).unlink(missing_ok=True)
    os.link(file, root / "content" / name)
    store.put(key, meta | {"content": name})


def _serve(listener: socket.socket, make: Callable[[socket.socket], ssl.SSLSocket], store: Store) -> None:
    while True:
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        listener.close()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            Handler(make(connection), store).serve()
        except (OSError, ValueError):
            pass
        finally:
            os._exit(0)


def main(arguments: list[str]) -> int:
    """Serve until killed."""
    root, certificate, key = arguments
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(listener.getsockname()[1], flush=True)
    _serve(listener, lambda connection: context.wrap_socket(connection, server_side=True), Store(Path(root)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
