"""A Hugging Face hub on this machine, which its real client talks to: models, revisions, commits.

It keeps files in memory and answers what the client asks when it reads a snapshot, makes a
repository and pushes a folder, large files by Git LFS included.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from spd_deploy.hub import snapshot

TOKEN = "hf_test"
# Files of these kinds are pushed by Git LFS, as .gitattributes of the hub says.
_LARGE = (".safetensors", ".onnx", ".bin")
Files = dict[str, bytes]


@dataclass(kw_only=True)
class Repository:
    """A model: its commits, and the commit that each branch or tag is at."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], *revisions: str) -> str:
        """Add files to a branch; the commit's name is a hash of all that it holds then."""
        branch = (revisions or ("main",))[0]
        all_files = {**self.commits.get(self.revisions.get(branch, ""), {}), **files}
        content = b"".join(name.encode() + data for name, data in sorted(all_files.items()))
        sha = hashlib.sha1(content).hexdigest()
        self.commits[sha] = all_files
        for revision in revisions or ("main",):
            self.revisions[revision] = sha
        return sha


class Hub(ThreadingHTTPServer):
    """The server; ``requests`` has a line for each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.messages: list[str] = []
        # What a path is answered with instead, by the part of it that is looked for.
        self.refuse: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name: str, folder: Path, *revisions: str) -> str:
        """Put a folder into a repository; returns the commit."""
        files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        repository = self.repositories.setdefault(name, Repository())
        return repository.commit(files, *revisions)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers until the end of the block."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


def use_hub(patch: pytest.MonkeyPatch, url: str, cache: Path, token: str | None = TOKEN) -> None:
    """Let the client of this process talk to the hub at ``url``, with a cache of its own."""
    from huggingface_hub import constants

    patch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    patch.setattr(constants, "HF_STORED_TOKENS_PATH", str(cache / "tokens"))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(snapshot, "cache_folder", lambda: cache / "spd")
    patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    if token is None:
        patch.delenv("HF_TOKEN", raising=False)
    else:
        patch.setenv("HF_TOKEN", token)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {path}")
        for part, status in self.server.refuse.items():
            if part in path:
                self._answer(status, {"error": "refused"})
                return
        writes = self.command in ("POST", "PUT") and not path.startswith("/objects/")
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
            return
        for pattern, handle in _ROUTES:
            if match := re.fullmatch(pattern, path):
                handle(self, body, *match.groups())
                return
        self._answer(404, {"error": f"no {path}"}, {"X-Error-Code": "EntryNotFound"})

    def _answer(
        self, status: int, value: object = None, headers: Mapping[str, str] | None = None
    ) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _found(self, name: str, revision: str) -> tuple[str, Files] | None:
        """A commit and its files; None after an answer that there is none."""
        repository = self.server.repositories.get(name)
        signed_in = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not signed_in):
            status = 404 if signed_in else 401
            self._answer(status, {"error": "no such model"}, {"X-Error-Code": "RepoNotFound"})
            return None
        if repository.gated:
            self._answer(403, {"error": "ask for access"}, {"X-Error-Code": "GatedRepo"})
            return None
        sha = repository.revisions.get(revision, revision)
        if sha not in repository.commits:
            reason = {"X-Error-Code": "RevisionNotFound"}
            self._answer(404, {"error": f"no revision {revision}"}, reason)
            return None
        return sha, repository.commits[sha]

    def _home(self, body: bytes) -> None:
        self._answer(200, {})

    def _info(self, body: bytes, name: str, revision: str | None = None) -> None:
        if found := self._found(name, revision or "main"):
            sha, files = found
            siblings = [{"rfilename": path} for path in files]
            private = self.server.repositories[name].private
            info = {"id": name, "sha": sha, "siblings": siblings, "private": private}
            self._answer(200, info)

    def _tree(self, body: bytes, name: str, revision: str) -> None:
        if found := self._found(name, revision):
            _, files = found
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": _blob(data)}
                for path, data in files.items()
            ]
            self._answer(200, entries)

    def _file(self, body: bytes, name: str, revision: str, path: str) -> None:
        if not (found := self._found(name, revision)):
            return
        sha, files = found
        if path not in files:
            self._answer(404, {"error": f"no {path}"}, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{_blob(files[path])}"', "X-Repo-Commit": sha}
        self._answer(200, files[path], headers)

    def _create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization'] or 'someone'}/{wanted['name']}"
        if name in self.server.repositories:
            known = {"error": "You already created this repo", "url": f"{self.server.url}/{name}"}
            self._answer(409, known)
            return
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        repository = self.server.repositories[name] = Repository(private=private)
        repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self._answer(200, {"url": f"{self.server.url}/{name}"})

    def _branch(self, body: bytes, name: str, branch: str) -> None:
        repository = self.server.repositories[name]
        if branch in repository.revisions:
            self._answer(409, {"error": "Reference already exists"})
            return
        repository.revisions[branch] = repository.revisions["main"]
        self._answer(200, {})

    def _whoami(self, body: bytes) -> None:
        self._answer(200, {"type": "user", "name": "someone", "orgs": []})

    def _yaml(self, body: bytes) -> None:
        self._answer(200, {"errors": [], "warnings": []})

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        if self._found(name, revision):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})

    def _lfs(self, body: bytes, name: str) -> None:
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.server.url}/objects/{one['oid']}"}},
            }
            for one in json.loads(body)["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _object(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self._answer(200)

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        if not self._found(name, revision):
            return
        files: Files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "header":
                    self.server.messages.append(value["summary"])
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
                case other:
                    raise AssertionError(other)
        sha = self.server.repositories[name].commit(files, revision)
        url = f"{self.server.url}/{name}/commit/{sha}"
        self._answer(200, {"commitUrl": url, "commitOid": sha, "pullRequestUrl": None})


def _blob(data: bytes) -> str:
    """The name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_NAME, _REST = r"([^/]+(?:/[^/]+)?)", r"(.+)"
_ROUTES: Any = (
    ("/", _Handler._home),
    (r"/api/models/([^/]+/[^/]+)", _Handler._info),
    (f"/api/models/{_NAME}/revision/{_REST}", _Handler._info),
    (f"/api/models/{_NAME}/tree/{_REST}", _Handler._tree),
    (f"/{_NAME}/resolve/([^/]+)/{_REST}", _Handler._file),
    ("/api/repos/create", _Handler._create),
    (f"/api/models/{_NAME}/branch/{_REST}", _Handler._branch),
    ("/api/whoami-v2", _Handler._whoami),
    ("/api/validate-yaml", _Handler._yaml),
    (f"/api/models/{_NAME}/preupload/{_REST}", _Handler._preupload),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler._lfs),
    (r"/objects/([0-9a-f]+)", _Handler._object),
    (f"/api/models/{_NAME}/commit/{_REST}", _Handler._commit),
)
