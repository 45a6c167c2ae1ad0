"""A hub on 127.0.0.1 that takes what huggingface_hub sends, and keeps it."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_secret"


class FakeHub:
    """Repositories in memory. What is over ``small`` bytes goes by LFS, as on the hub."""

    def __init__(self, small=1000):
        self.small, self.repos, self.private, self.blobs = small, {}, {}, {}
        self.requests, self.fails, self.commits, self.cards = [], None, [], []

    def __enter__(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.answer(self)

            do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815 - the server's names

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request):
        size = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(size)
        path = request.path.partition("?")[0]
        self.requests.append((request.command, path))
        try:
            status, content = self._route(request, path, body)
        except Exception as fault:
            status, content = 500, {"error": repr(fault)}
        sent = b"" if content is None else json.dumps(content).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(sent)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(sent)

    def _route(self, request, path, body):
        if path.startswith("/blobs/"):
            self.blobs[path.rsplit("/", 1)[1]] = body
            return 200, {}
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if self.fails is not None and self.fails in path:
            return 403, {"error": "You have no right to do that."}
        if path == "/api/whoami-v2":
            return 200, {"name": "me", "type": "user", "auth": {}}
        if path == "/api/validate-yaml":
            self.cards.append(json.loads(body)["content"])
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["size"] > self.small else "regular",
                    "shouldIgnore": False,
                }
                for each in files
            ]
            return 200, {"files": modes}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, self._batch(json.loads(body))
        if path.endswith("/commit/main"):
            repo = path.removeprefix("/api/models/").removesuffix("/commit/main")
            return 200, self._commit(repo, body)
        repo = path.removeprefix("/api/models/").removesuffix("/revision/main")
        if repo in self.repos:
            there = [{"rfilename": path} for path in self.repos[repo]]
            about = {"id": repo, "sha": "0" * 40, "private": self.private[repo], "siblings": there}
            return 200, {"modelId": repo, "tags": [], **about}
        return 404, {"error": f"no {path}"}

    def _create(self, asked):
        repo = "/".join(filter(None, (asked.get("organization") or "me", asked["name"])))
        is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
        if repo in self.repos:
            return 409, {"error": "You already created this model repo", "url": self._web(repo)}
        self.repos[repo], self.private[repo] = {}, is_private
        return 200, {"url": self._web(repo), "name": repo}

    def _web(self, repo):
        return f"{self.url}/{repo}"

    def _batch(self, asked):
        objects = []
        for each in asked["objects"]:
            upload = {"href": f"{self.url}/blobs/{each['oid']}"}
            objects.append({**each, "authenticated": True, "actions": {"upload": upload}})
        return {"transfer": "basic", "objects": objects}

    def _commit(self, repo, body):
        files, repo_files = {}, self.repos[repo]
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.commits.append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "deletedFile":
                del repo_files[value["path"]]
            elif entry["key"] == "lfsFile":
                content = self.blobs[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                assert len(content) == value["size"]
                files[value["path"]] = content
        self.repos[repo] |= files
        return {"commitUrl": f"{self._web(repo)}/commit/{'0' * 40}", "commitOid": "0" * 40}
