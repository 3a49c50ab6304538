"""A registry and a Hugging Face on this machine that fail on purpose."""
import hashlib
import http.server
import json
import re
import threading


class Registry(http.server.ThreadingHTTPServer):
    """`models`: {"space/name:tag": manifest text}; `blobs`: {digest: bytes}; `files`: {"org/repo": {path: bytes}}.

    `faults`: what happens to requests for blobs, in order and one each; then all is well. A fault is a status, or a pair
    of a status and headers, or one of "cut" (half of it), "range ignored", "wrong total", "wrong begin", "wrong bytes".
    `always`: a fault of every one."""

    daemon_threads = True

    def __init__(self, test):
        super().__init__(("127.0.0.1", 0), Handler)
        self.models, self.blobs, self.files = {}, {}, {}
        self.faults, self.always, self.asked = [], None, []
        self.token, self.realm, self.redirect_to, self.gate = None, None, None, None
        self.lock = threading.Lock()
        self.host = f"127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        test.addCleanup(self.server_close)
        test.addCleanup(self.shutdown)

    def handle_error(self, request, address):
        pass  # clients that go are what is tested

    def blob(self, kind, content):
        content = content if isinstance(content, bytes) else content.encode()
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest, "size": len(content)}

    def model(self, name, *layers):
        text = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                           "config": self.blob("config", "{}"), "layers": layers})
        self.models[name] = text
        return f"{self.host}/{name}"

    def ranges(self):
        """Of the requests for blobs, as they were asked for."""
        with self.lock:
            return [r["range"] for r in self.asked if "/blobs/" in r["path"] or "/resolve/" in r["path"]]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        s = self.server
        with s.lock:
            s.asked.append({"path": self.path, "range": self.headers.get("Range"), "secret": self.headers.get("Authorization")})
        if s.token and self.path.startswith("/v2/") and self.headers.get("Authorization") != f"Bearer {s.token}":
            realm = s.realm or f"http://{s.host}/token"
            return self.reply(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="me",scope="all of it"'})
        if self.path.startswith("/token?"):
            return self.reply(200, json.dumps({"token": s.token}).encode())
        found = re.fullmatch(r"/v2/([^/]+/[^/]+)/(manifests|blobs)/(.+)", self.path)
        if found and found[2] == "manifests":
            text = s.models.get(f"{found[1]}:{found[3]}") or s.blobs.get(found[3])
            return self.reply(200 if text else 404, text.encode() if isinstance(text, str) else text or b"")
        if found:
            return self.content(s.blobs.get(found[3]))
        if self.path.startswith("/elsewhere/"):
            return self.content(s.blobs.get(self.path.rpartition("/")[2]))
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/main\?recursive=true", self.path)
        if found and found[1] in s.files:
            return self.reply(200, json.dumps([
                {"type": "file", "path": path, "oid": "1", "size": len(data),
                 "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}}
                for path, data in s.files[found[1]].items()]).encode())
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", self.path)
        if found and found[1] in s.files:
            return self.content(s.files[found[1]].get(found[2]))
        self.reply(404, b"")

    def content(self, data):
        s = self.server
        if data is None:
            return self.reply(404, b"")
        if s.gate:
            s.gate.wait(60)
        if s.redirect_to and not self.path.startswith("/elsewhere/"):
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            return self.reply(307, b"", {"Location": f"{s.redirect_to}/elsewhere/{digest}"})
        with s.lock:
            fault = s.faults.pop(0) if s.faults else s.always
        if isinstance(fault, int):
            return self.reply(fault, b"")
        if isinstance(fault, tuple):
            return self.reply(fault[0], b"", fault[1])
        if fault == "wrong bytes":
            data = bytes(len(data))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if not asked or fault == "range ignored":
            return self.reply(200, data, cut=fault == "cut")
        begin, end = int(asked[1]), min(int(asked[2]), len(data) - 1)
        shown = begin + 1 if fault == "wrong begin" else begin
        total = len(data) + 1 if fault == "wrong total" else len(data)
        self.reply(206, data[begin:end + 1], {"Content-Range": f"bytes {shown}-{end}/{total}"}, cut=fault == "cut")

    def reply(self, status, body, headers=(), cut=False):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True
