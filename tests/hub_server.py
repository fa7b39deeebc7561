"""A small Hub on localhost that huggingface_hub's own client talks to through HF_ENDPOINT.

It speaks the routes a download at a commit uses, as the real Hub answers them: `/api/models/…` with
sizes and digests, `/<repo>/resolve/<commit>/<file>` with X-Repo-Commit and ETag, and for files in
LFS a redirect to another origin (a CDN) that honours Range. It can also misbehave, on purpose.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Request:
    """One request the Hub got."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Repo:
    """One repository at one commit, which `main` and `v1` point to, and what to do wrong.

    `sent` replaces a file's bytes on the way, not in the listing. `cut_once` maps a file to the
    byte after which its first transfer is cut. `failing` files answer with that status.
    """

    name: str
    files: Mapping[str, bytes]
    lfs: frozenset[str] = frozenset()
    sent: dict[str, bytes] = field(default_factory=dict)
    cut_once: dict[str, int] = field(default_factory=dict)
    failing: dict[str, int] = field(default_factory=dict)
    private: str | None = None
    requests: list[Request] = field(default_factory=list)

    def transfers(self, name: str) -> list[str | None]:
        """The Range of every GET of a file's bytes."""
        resolve = f"/{self.name}/resolve/{COMMIT}/{name}"
        place = f"/cdn/{self.name}/{name}" if name in self.lfs else resolve
        return [r.range for r in self.requests if r.method == "GET" and r.path == place]

    def fetched(self) -> set[str]:
        """Names of all files of which bytes were asked for."""
        return {name for name in self.files if self.transfers(name)}

    def listing(self, *, blobs: bool) -> dict[str, Any]:
        """Body of /api/models/…"""
        siblings = [self._sibling(name) if blobs else {"rfilename": name} for name in self.files]
        return {"id": self.name, "sha": COMMIT, "tags": [], "siblings": siblings}

    def _sibling(self, name: str) -> dict[str, Any]:
        data = self.files[name]
        entry = {"rfilename": name, "size": len(data), "blobId": blob_id(data)}
        if name in self.lfs:
            entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
        return entry


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()


class Hub:
    """The server: repositories by name."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        loop = {"poll_interval": 0.02}
        threading.Thread(target=self._server.serve_forever, kwargs=loop, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        found = re.match(r"/(?:cdn/|api/models/)?([^/]+/[^/]+)", path)
        repo = self.hub.repos.get(found[1]) if found else None
        if repo is None:
            self._fail(404, "RepoNotFound")
            return
        token = self.headers["Authorization"]
        repo.requests.append(Request(self.command, path, self.headers["Range"], token))
        if path.startswith(f"/cdn/{repo.name}/"):
            self._send_file(repo, path.removeprefix(f"/cdn/{repo.name}/"), {})
        elif repo.private and token != f"Bearer {repo.private}":
            self._fail(401, "RepoNotFound")
        elif path.startswith("/api/models/"):
            self._send_info(repo, path.rpartition("/")[2], blobs="blobs" in parse_qs(url.query))
        else:
            self._resolve(repo, path.removeprefix(f"/{repo.name}/resolve/{COMMIT}/"))

    def _send_info(self, repo: Repo, revision: str, *, blobs: bool) -> None:
        if revision not in (COMMIT, "main", "v1"):
            self._fail(404, "RevisionNotFound")
            return
        body = json.dumps(repo.listing(blobs=blobs)).encode()
        self._send(200, body, {"Content-Type": "application/json"})

    def _resolve(self, repo: Repo, name: str) -> None:
        if name not in repo.files:
            self._fail(404, "EntryNotFound")
            return
        data = repo.files[name]
        headers = {"X-Repo-Commit": COMMIT}
        if name not in repo.lfs:
            self._send_file(repo, name, headers | {"ETag": f'"{blob_id(data)}"'})
            return
        headers |= {"X-Linked-ETag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
        # Another origin, as the real CDN is: the client must not send its token there.
        headers["Location"] = f"http://localhost:{self.hub.port}/cdn/{repo.name}/{name}?sign=x"
        self._send(302, b"", headers)

    def _send_file(self, repo: Repo, name: str, headers: dict[str, str]) -> None:
        if self.command == "GET" and name in repo.failing:
            self._fail(repo.failing[name], "")
            return
        data = repo.sent.get(name, repo.files[name])
        start = 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or ""):
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = repo.cut_once.pop(name, None) if self.command == "GET" else None
        self._send(206 if start else 200, data[start:], headers, cut=cut)

    def _fail(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code})

    def _send(
        self, status: int, data: bytes, headers: Mapping[str, str], *, cut: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True
