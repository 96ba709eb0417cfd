"""A small Hub on loopback: what huggingface_hub and datasets ask of the real one, answered from folders.

    python -m tests.hub FOLDER [--port P]     serves FOLDER/{models,datasets,spaces}/org/name until it is stopped

Clients find it by HF_ENDPOINT; those that upload also need HF_HUB_DISABLE_XET=1. As on the real Hub, a large file is
answered with a redirect to another host, and that host serves ranges.
"""

import argparse
import base64
import contextlib
import hashlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import uvicorn
import yaml
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse

KINDS = ("models", "datasets", "spaces")
TOKENS = {"can-write": "write", "can-read": "read", "free": "write"}
"""Roles by token. That of a free account, which has no plan for Gradio Spaces on a CPU, is "free"."""
USER, ORGS = "someone", ("org",)
LARGE = 2**20
PIECE = 2**16
STEP = 10 * 2**20


@dataclass(frozen=True)
class Stored:
    """A file of a repo: where its bytes lie, and the hashes that the Hub tells of it."""

    path: Path
    size: int
    sha256: str
    git: str
    lfs: bool

    @classmethod
    def of(cls, path):
        data = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return cls(path, len(data), hashlib.sha256(data).hexdigest(), git, is_lfs(data[:512], len(data)))

    @property
    def oid(self):
        return self.sha256 if self.lfs else self.git


@dataclass
class Repo:
    """A repo of any kind; `commits` maps each commit to its files by path, oldest first."""

    commits: dict[str, dict[str, Stored]]
    private: bool = False
    gated: bool = False
    sdk: str | None = None
    hardware: str = "cpu-basic"
    secrets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    volumes: list[dict] = field(default_factory=list)

    @property
    def head(self):
        return list(self.commits)[-1]

    @property
    def files(self):
        return self.commits[self.head]


class Hub:
    """The server: `with Hub(folder) as hub` runs it in a thread, on a free port or the one given.

    `requests` lists (method, path) of all that was asked, `ranges` the ranges among them; `uploaded` counts the bytes
    of large files that came in, `sent` those of files that went out. `break_off` names the files that break off
    half-way when they are next asked for.
    """

    def __init__(self, folder=None, port=0, volumes=True):
        self.repos, self.volumes = {}, volumes
        self.requests, self.ranges, self.uploaded, self.sent, self.break_off = [], [], 0, 0, set()
        self._temporary = tempfile.TemporaryDirectory(prefix="hub-")
        self._objects = Path(self._temporary.name)
        self._port = port
        for kind in KINDS if folder else ():
            for path in sorted((Path(folder) / kind).glob("*/*")):
                self.add(kind, f"{path.parent.name}/{path.name}", path)

    def add(self, kind, name, folder=None, **settings):
        """A repo with the files of `folder`, served from where they are; a second time, its next commit."""
        files = {p.relative_to(folder).as_posix(): Stored.of(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        repo = self.repos.setdefault((kind, name), Repo({}, **settings))
        self._commit(repo, files)
        return repo

    def repo(self, kind, name):
        return self.repos[kind, name]

    def read(self, kind, name, path):
        """The bytes of a file as it is now."""
        return self.repo(kind, name).files[path].path.read_bytes()

    def asked(self, method, part):
        """How many requests there were by a method, with something in their path."""
        return sum(one == method and part in path for one, path in self.requests)

    def __enter__(self):
        listener = socket.create_server(("127.0.0.1", self._port))
        self.port = listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._server = uvicorn.Server(uvicorn.Config(self._app(), log_level="critical", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """From now on there is no Hub; a second time it does nothing."""
        self._server.should_exit = True
        self._thread.join()

    def environment(self, home, token=None):
        """The variables by which the client libraries of another process find this Hub, and nothing else."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": token or "",
            "USE_TORCH": "0",  # as on a Space, which has no torch: where there is one, datasets imports it for 2 s
        }

    def _commit(self, repo, files):
        told = json.dumps([(name, file.sha256) for name, file in sorted(files.items())] + list(repo.commits))
        repo.commits[hashlib.sha1(told.encode()).hexdigest()] = files

    def _found(self, kind, name, request, content=False):
        repo = self.repos.get((kind, name))
        role = role_of(request)
        if repo is None or (repo.private and role is None):
            raise Refusal(404 if role else 401, "RepoNotFound", "Repository not found")
        if content and repo.gated and role is None:
            raise Refusal(401, "GatedRepo", f"Access to {name} is restricted.")
        return repo

    def _at(self, kind, name, revision, request, content=True):
        repo = self._found(kind, name, request, content)
        commit = repo.head if revision == "main" else revision
        if commit not in repo.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, commit, repo.commits[commit]

    def _writable(self, kind, name, request):
        repo = self._found(kind, name, request)
        if role_of(request) != "write":
            raise Refusal(403, None, "You don't have the rights to write to this repo")
        return repo

    def _body(self, file, request):
        """A file's bytes, whole or the range that is asked for; or half of them, if it is to break off."""
        headers = {"ETag": f'"{file.oid}"'}
        if request.method == "HEAD":
            return FileResponse(file.path, headers=headers)
        if "range" in request.headers:
            self.ranges.append(request.headers["range"])
            first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
            self.sent += (int(last) + 1 if last else file.size) - int(first)
            return FileResponse(file.path, headers=headers)
        name = request.url.path.rpartition("/")[2]
        if name not in self.break_off:
            self.sent += file.size
            return FileResponse(file.path, headers=headers)
        self.break_off.remove(name)

        # What the client has of its last step of 10 MiB is lost to it, however it is asked to go on.
        steps = file.size // 2 // STEP
        end = steps * STEP + PIECE if steps else file.size // 2

        def half():
            with file.path.open("rb") as source:
                while piece := source.read(min(PIECE, end - source.tell())):
                    self.sent += len(piece)
                    yield piece
            raise ConnectionError

        return StreamingResponse(half(), headers=headers | {"Content-Length": str(file.size)})

    def _app(self):
        app = FastAPI(openapi_url=None)

        @app.middleware("http")
        async def count(request: Request, call_next):
            self.requests.append((request.method, request.url.path))
            return await call_next(request)

        @app.exception_handler(Refusal)
        async def refused(request: Request, error: Refusal):
            headers = {"X-Error-Message": error.detail, "X-Error-Code": error.code, "X-Repo-Commit": error.commit}
            told = {name: value for name, value in headers.items() if value}
            return Response(json.dumps({"error": error.detail}), error.status_code, told, "application/json")

        @app.api_route("/", methods=["GET", "HEAD"])
        def root():
            return {}

        @app.get("/api/whoami-v2")
        def whoami(request: Request):
            role = role_of(request)
            if role is None:
                raise Refusal(401, None, "Invalid username or password.")
            token = {"displayName": "test", "role": role}
            orgs = [{"name": name, "roleInOrg": "write"} for name in ORGS]
            return {"type": "user", "name": USER, "orgs": orgs, "auth": {"accessToken": token}}

        @app.post("/api/validate-yaml")
        async def validate(request: Request):
            asked = await request.json()
            try:
                block = asked["content"].split("---\n")[1]
                if not isinstance(yaml.safe_load(block), dict):
                    raise yaml.YAMLError("no mapping")
            except (IndexError, yaml.YAMLError) as error:
                return Response(json.dumps({"errors": [{"message": str(error)}], "warnings": []}), 400)
            return {"errors": [], "warnings": []}

        @app.post("/api/repos/create")
        async def create(request: Request):
            asked = await request.json()
            owner = asked.get("organization") or USER
            name, kind = f"{owner}/{asked['name']}", f"{asked.get('type') or 'model'}s"
            if role_of(request) != "write" or owner not in (USER, *ORGS):
                raise Refusal(403, None, f"You don't have the rights to create a {kind[:-1]} under {owner}")
            hardware = asked.get("hardware") or "cpu-basic"
            mine = [one for (of, name), one in self.repos.items() if of == "spaces" and name.startswith(f"{owner}/")]
            has_none_left = hardware != "zero-a10g" or sum(one.hardware == hardware for one in mine) >= 2
            if kind == "spaces" and bearer(request) == "free" and has_none_left:
                raise Refusal(402, None, "Payment Required: subscribe to PRO to create this Space")
            url = f"{self.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"
            if (kind, name) in self.repos:
                return Response(json.dumps({"error": "You already created this repo", "url": url}), 409)
            repo = self.repos[kind, name] = Repo({}, asked.get("visibility") == "private", sdk=asked.get("sdk"))
            self._commit(repo, {})
            repo.hardware = hardware
            repo.variables = {one["key"]: one["value"] for one in asked.get("variables", [])}
            repo.volumes = asked.get("volumes", [])
            return {"url": url, "name": name}

        @app.get("/api/{kind}/{org}/{repo}")
        @app.get("/api/{kind}/{org}/{repo}/revision/{revision}")
        def info(kind: str, org: str, repo: str, request: Request, revision: str = "main"):
            found, commit, files = self._at(kind, f"{org}/{repo}", revision, request, content=False)
            card = files["README.md"].path.read_text() if "README.md" in files else ""
            return {
                "id": f"{org}/{repo}",
                "sha": commit,
                "private": found.private,
                "gated": "auto" if found.gated else False,
                "siblings": [{"rfilename": name} for name in files],
                "cardData": yaml.safe_load(card.split("---\n")[1]) if card.startswith("---\n") else None,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "sdk": found.sdk,
            }

        @app.get("/api/{kind}/{org}/{repo}/auth-check")
        def auth_check(kind: str, org: str, repo: str, request: Request):
            self._found(kind, f"{org}/{repo}", request, content=True)
            return {}

        @app.get("/api/{kind}/{org}/{repo}/refs")
        def refs(kind: str, org: str, repo: str, request: Request):
            head = self._found(kind, f"{org}/{repo}", request).head
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": head}
            return {"branches": [main], "converts": [], "tags": []}

        @app.get("/api/{kind}/{org}/{repo}/tree/{revision}")
        @app.get("/api/{kind}/{org}/{repo}/tree/{revision}/{path:path}")
        def tree(kind: str, org: str, repo: str, revision: str, request: Request, path: str = ""):
            _, _, files = self._at(kind, f"{org}/{repo}", revision, request)
            rows = listing(files, path, recursive=request.query_params.get("recursive", "").lower() in ("1", "true"))
            if path and not rows:
                raise Refusal(404, "EntryNotFound", f"{path} does not exist")
            return rows

        @app.post("/api/{kind}/{org}/{repo}/paths-info/{revision}")
        async def paths_info(kind: str, org: str, repo: str, revision: str, request: Request):
            _, _, files = self._at(kind, f"{org}/{repo}", revision, request)
            body = (await request.body()).decode()
            paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
            rows = {row["path"]: row for row in listing(files, "", recursive=True)}
            return [rows[path] for path in paths if path in rows]

        @app.post("/api/{kind}/{org}/{repo}/preupload/{revision}")
        async def preupload(kind: str, org: str, repo: str, revision: str, request: Request):
            files = self._writable(kind, f"{org}/{repo}", request).files
            return {"files": [upload_mode(one, files) for one in (await request.json())["files"]]}

        @app.post("/{org}/{repo}.git/info/lfs/objects/batch")
        @app.post("/{kind}/{org}/{repo}.git/info/lfs/objects/batch")
        async def batch(org: str, repo: str, request: Request, kind: str = "models"):
            self._writable(kind, f"{org}/{repo}", request)
            answers = []
            for one in (await request.json())["objects"]:
                there = (self._objects / one["oid"]).exists()
                upload = {"upload": {"href": f"{self.endpoint}/lfs/{one['oid']}"}}
                answers.append(one | ({} if there else {"actions": upload}))
            return {"transfer": "basic", "objects": answers}

        @app.put("/lfs/{oid}")
        async def put(oid: str, request: Request):
            draft, digest = self._objects / f"{oid}.{time.monotonic_ns()}", hashlib.sha256()
            with draft.open("wb") as target:
                async for piece in request.stream():
                    self.uploaded += len(piece)
                    digest.update(piece)
                    target.write(piece)
            if digest.hexdigest() != oid:
                raise Refusal(422, None, "The content does not have the announced hash")
            os.replace(draft, self._objects / oid)
            return Response()

        @app.post("/api/{kind}/{org}/{repo}/commit/{revision}")
        async def commit(kind: str, org: str, repo: str, revision: str, request: Request):
            found = self._writable(kind, f"{org}/{repo}", request)
            files = dict(found.files)
            for line in (await request.body()).splitlines():
                operation = json.loads(line)
                value = operation["value"]
                match operation["key"]:
                    case "header":
                        if value.get("parentCommit", found.head) != found.head:
                            raise Refusal(412, None, "A commit has happened since. Please refresh and try again.")
                    case "file":
                        data = base64.b64decode(value["content"])
                        path = self._objects / hashlib.sha256(data).hexdigest()
                        path.write_bytes(data)
                        files[value["path"]] = Stored.of(path)
                    case "lfsFile":
                        files[value["path"]] = Stored.of(self._objects / value["oid"])
                    case "deletedFile":
                        del files[value["path"]]
                    case "deletedFolder":
                        files = {n: f for n, f in files.items() if not n.startswith(value["path"].rstrip("/") + "/")}
            self._commit(found, files)
            return {"commitUrl": f"{self.endpoint}/{org}/{repo}/commit/{found.head}", "commitOid": found.head}

        @app.api_route("/{org}/{repo}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
        @app.api_route("/{kind}/{org}/{repo}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
        def resolve(org: str, repo: str, revision: str, path: str, request: Request, kind: str = "models"):
            _, commit, files = self._at(kind, f"{org}/{repo}", revision, request)
            if path not in files:
                raise Refusal(404, "EntryNotFound", f"{path} does not exist", commit)
            file = files[path]
            if file.lfs:
                # Another name of this host: to the client it is another host, which must not get its token.
                answer = RedirectResponse(f"http://localhost:{self.port}/cdn/{kind}/{org}/{repo}/{commit}/{path}", 302)
                answer.headers["X-Linked-Size"], answer.headers["X-Linked-ETag"] = str(file.size), f'"{file.oid}"'
            else:
                answer = self._body(file, request)
            answer.headers["X-Repo-Commit"] = commit
            return answer

        @app.api_route("/cdn/{kind}/{org}/{repo}/{commit}/{path:path}", methods=["GET", "HEAD"])
        def cdn(kind: str, org: str, repo: str, commit: str, path: str, request: Request):
            if "authorization" in request.headers:
                raise Refusal(400, None, "A token was sent to another host")
            return self._body(self.repos[kind, f"{org}/{repo}"].commits[commit][path], request)

        @app.get("/api/spaces/{org}/{repo}/runtime")
        def runtime(org: str, repo: str, request: Request):
            found = self._found("spaces", f"{org}/{repo}", request)
            hardware = {"current": found.hardware, "requested": found.hardware}
            return {"stage": "RUNNING", "volumes": found.volumes or None, "hardware": hardware}

        @app.post("/api/spaces/{org}/{repo}/hardware")
        async def hardware(org: str, repo: str, request: Request):
            found = self._writable("spaces", f"{org}/{repo}", request)
            found.hardware = (await request.json())["flavor"]
            return runtime(org, repo, request)

        @app.api_route("/api/spaces/{org}/{repo}/secrets", methods=["GET", "POST"])
        async def secrets(org: str, repo: str, request: Request):
            found = self._writable("spaces", f"{org}/{repo}", request)
            if request.method == "POST":
                asked = await request.json()
                found.secrets[asked["key"]] = asked["value"]
            return {key: {"key": key, "updatedAt": "2026-01-01T00:00:00.000Z"} for key in found.secrets}

        @app.post("/api/spaces/{org}/{repo}/restart")
        def restart(org: str, repo: str, request: Request):
            self._writable("spaces", f"{org}/{repo}", request)
            return {"stage": "BUILDING"}

        @app.put("/api/spaces/{org}/{repo}/volumes")
        async def volumes(org: str, repo: str, request: Request):
            found = self._writable("spaces", f"{org}/{repo}", request)
            if not self.volumes:
                raise Refusal(402, None, "Payment Required")
            found.volumes = (await request.json())["volumes"]
            return {}

        @app.api_route("/api/spaces/{org}/{repo}/variables", methods=["GET", "POST", "DELETE"])
        async def variables(org: str, repo: str, request: Request):
            found = self._writable("spaces", f"{org}/{repo}", request)
            asked = {} if request.method == "GET" else await request.json()
            if request.method == "POST":
                found.variables[asked["key"]] = asked["value"]
            elif request.method == "DELETE":
                found.variables.pop(asked["key"], None)
            return {key: {"key": key, "value": value} for key, value in found.variables.items()}

        return app


class Refusal(HTTPException):
    """An error as the Hub words it, with the code by which its client tells it from others."""

    def __init__(self, status, code, message, commit=None):
        super().__init__(status, message)
        self.code, self.commit = code, commit


def bearer(request):
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def role_of(request):
    return TOKENS.get(bearer(request))


def is_lfs(sample, size):
    return size > LARGE or b"\0" in sample or sample[:4] in (b"RIFF", b"ARRO", b"PAR1")


def upload_mode(asked, files):
    known, lfs = files.get(asked["path"]), is_lfs(base64.b64decode(asked["sample"]), asked["size"])
    oid = None if known is None else known.sha256 if lfs else known.git
    return {"path": asked["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid}


def listing(files, path, recursive):
    """The rows of a folder of a repo: its files, and the folders among them."""
    start = path.rstrip("/") + "/" if path else ""
    below = {name: file for name, file in files.items() if name.startswith(start)}
    folders = {
        "/".join(parts[:depth])
        for parts in (name.split("/") for name in below)
        for depth in range(1, len(parts))
        if "/".join(parts[:depth]).startswith(start)
    }
    rows = [{"type": "directory", "path": folder, "size": 0, "oid": "0" * 40} for folder in sorted(folders)]
    for name, file in below.items():
        row = {"type": "file", "path": name, "size": file.size, "oid": file.git}
        rows.append(row | ({"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {}))
    return [row for row in rows if recursive or "/" not in row["path"].removeprefix(start)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with Hub(options.folder, options.port) as hub, contextlib.suppress(KeyboardInterrupt):
        print(hub.endpoint, flush=True)
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
