#!/usr/bin/env python3
"""`steelyard pull` and /api/pull against a registry and a Hugging Face that fail on purpose."""
import hashlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import unittest
import urllib.error
import urllib.request

from registry import Registry
from support import BINARY, PATIENCE, SteelyardTest


class Pulls(SteelyardTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.weights = cls.synth("tiny-llama", "--type", "f32").read_bytes()  # some parts' worth

    def setUp(self):
        self.models = self.dir / self.id().rpartition(".")[2]
        self.registry = Registry(self)
        self.env = {"STEELYARD_MODELS": str(self.models), "XDG_CACHE_HOME": str(self.dir / "cache"), "HF_TOKEN": "",
                    "HF_HOME": str(self.dir / "no hub"), "HF_ENDPOINT": f"http://{self.registry.host}"}
        self.layer = self.registry.blob("model", self.weights)
        self.name = self.registry.model("library/tiny:1b", self.layer, self.registry.blob("system", "be brief"))

    def names(self):
        return [m["name"] for m in self.ok_json("list", "--json", env=self.env)["models"]]

    def files(self):
        return sorted(p.name for p in (self.models / "blobs").iterdir()) if (self.models / "blobs").exists() else []

    def blob(self):
        return (self.models / "blobs" / self.layer["digest"].replace(":", "-")).read_bytes()

    def pull(self, *flags):
        self.ok("pull", self.name, *flags, env=self.env)
        self.assertEqual(self.blob(), self.weights)
        self.assertEqual(self.names(), [self.name])
        self.assertEqual(len(self.files()), 3)  # the model, its system message, its config; nothing is left over

    def pull_fails(self, says, *arguments):
        said = self.fails("pull", *(arguments or [self.name]), says=says, env=self.env)
        self.assertEqual(self.names(), [])
        return said

    def test_in_parts_and_again(self):
        self.pull()
        ranges = self.registry.ranges()
        self.assertGreater(len(ranges), 4)
        before = len(ranges)
        self.pull()  # nothing is missing
        self.assertEqual(len(self.registry.ranges()), before)
        shown = self.ok_json("run", self.name, "hello", "--json", "--no-stdin", "--num-predict", "2", "--temperature", "0", env=self.env)
        self.assertEqual(shown["generated_tokens"], 2)
        self.ok("rm", self.name, env=self.env)
        self.assertEqual(self.files(), [])

    def test_broken_connections_and_busy_servers_are_tried_again(self):
        self.registry.faults = ["cut", 503, (429, {"Retry-After": "1"}), "cut", 500, "wrong begin"]
        self.pull("--connections", "2")

    def test_a_server_that_never_gets_better_is_given_up(self):
        self.registry.always = 500
        self.pull_fails("HTTP 500")

    def test_nobody_waits_for_an_hour(self):
        self.registry.always = (429, {"Retry-After": "3600"})
        self.pull_fails("HTTP 429")

    def test_a_server_without_ranges(self):
        self.registry.always = "range ignored"
        self.pull()

    def test_a_server_without_ranges_that_breaks_off(self):
        self.registry.faults = ["range ignored", "cut"]
        self.registry.always = "range ignored"
        self.pull("--connections", "1")

    def test_lengths_that_are_wrong(self):
        self.registry.always = "wrong total"
        self.pull_fails("bytes, not the")
        self.registry.always = 416
        self.pull_fails("smaller than")

    def test_wrong_bytes_are_thrown_away(self):
        self.registry.always = "wrong bytes"
        self.pull_fails("its SHA-256 is")
        self.registry.always = None
        self.pull()

    def test_is_taken_up_again_and_damage_is_seen(self):
        total = len(self.weights)
        self.registry.faults = [None] * 6
        self.registry.always = 404
        self.pull_fails("nothing at", self.name, "--connections", "1")
        partial = self.models / "blobs" / (self.layer["digest"].replace(":", "-") + "-partial")
        self.assertTrue(partial.exists())
        notes = partial.with_name(partial.name + "-parts").read_text().splitlines()
        self.assertGreaterEqual(len(notes), 2)
        first, part = map(int, notes[1].split()[:2])
        with open(partial, "r+b") as file:  # one of the parts that are there is damaged meanwhile
            file.seek(first * part)
            file.write(b"damage")
        self.registry.always = None
        self.registry.asked.clear()
        self.pull()
        asked = [r for r in self.registry.ranges() if r and r.startswith(f"bytes={first * part}-")]
        self.assertEqual(len(asked), 1)
        whole = sum(int(r.split("-")[1]) - int(r.split("=")[1].split("-")[0]) + 1 for r in self.registry.ranges())
        self.assertLess(whole, total)  # what was there isn't fetched again

    def test_ctrl_c_keeps_what_is_there(self):
        self.registry.gate = threading.Event()
        pull = subprocess.Popen([BINARY, "pull", self.name], env={**os.environ, **self.env}, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(PATIENCE * 20):
            if self.registry.ranges():
                break
            time.sleep(0.05)
        pull.send_signal(signal.SIGINT)
        _, said = pull.communicate(timeout=PATIENCE)
        self.registry.gate.set()
        self.assertEqual(pull.returncode, 130, said)
        self.assertEqual(self.names(), [])
        self.pull()

    def test_tokens_stay_with_who_asked_for_them(self):
        other = Registry(self)
        other.blobs = self.registry.blobs
        self.registry.token = "secret"
        self.registry.redirect_to = f"http://{other.host}"
        self.pull()
        self.assertTrue(any(r["secret"] == "Bearer secret" for r in self.registry.asked))
        self.assertGreater(len(other.asked), 2)
        self.assertEqual({r["secret"] for r in other.asked}, {None})

    def test_a_login_elsewhere_is_refused(self):
        other = Registry(self)
        self.registry.token = "secret"
        for realm in (f"http://{other.host}/token", f"http://{self.registry.host}@{other.host}/token", "file:///etc/passwd",
                      f"http://{self.registry.host}.evil.example/token"):
            self.registry.realm = realm
            self.pull_fails("another server|login of a kind")
        self.assertEqual(other.asked, [])

    def test_redirects_that_lead_nowhere(self):
        self.registry.redirect_to = "file://"
        self.pull_fails("can't be fetched|no address of the web")

    def test_names_and_manifests_that_make_no_sense(self):
        for name in ("..", "../x", "a/b/c/d", "http://", "x:..", "/etc/passwd", "127.0.0.1:1/a/.."):
            self.fails("pull", name, says="not a model's name", env=self.env)
        self.pull_fails("no model", f"{self.registry.host}/library/nobody")
        self.pull_fails("can't be read", "127.0.0.1:1/library/nobody")
        for text in ("", "[]", '{"layers": []}', json.dumps({"layers": [{**self.layer, "digest": "sha256:../../x"}]}),
                     json.dumps({"layers": [{**self.layer, "size": -1}]})):
            self.registry.models["library/odd:1"] = text or " "
            self.pull_fails("manifest|no model in GGUF", f"{self.registry.host}/library/odd:1")
        self.registry.models["library/large:1"] = json.dumps({"layers": [{**self.layer, "size": 1 << 49}]})
        self.pull_fails("make room", f"{self.registry.host}/library/large:1")
        self.assertEqual(self.registry.ranges(), [])  # before anything is fetched

    def test_a_list_of_manifests(self):
        r = self.registry
        child = r.models["library/tiny:1b"].encode()
        digest = "sha256:" + hashlib.sha256(child).hexdigest()
        r.blobs[digest] = child
        text = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.ollama.manifest.list.v2+json", "manifests": [
            {"mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": digest, "runner": "llamacpp",
             "format": "gguf"}]})
        r.models["library/list:1b"] = text
        self.ok("pull", f"{r.host}/library/list:1b", env=self.env)
        self.assertEqual(self.names(), [f"{r.host}/library/list:1b"])
        self.ok("rm", f"{r.host}/library/list:1b", env=self.env)
        self.assertEqual(self.files(), [])

    def test_hugging_face(self):
        self.registry.files["org/repo-GGUF"] = {
            "README.md": b"", "mmproj-tiny-F16.gguf": b"x", "tiny-Q8_0.gguf": b"y", "tiny-Q4_K_M.gguf": self.weights,
            "big-Q2_K-00001-of-00002.gguf": b"z"}
        self.env["HF_TOKEN"] = "hf_secret"
        self.ok("pull", "hf.co/org/repo-GGUF:q4_k_m", env=self.env)
        self.ok("pull", "hf.co/org/repo-GGUF", env=self.env)
        self.assertEqual(self.names(), ["hf.co/org/repo-GGUF", "hf.co/org/repo-GGUF:q4_k_m"])
        self.assertEqual(self.blob(), self.weights)
        self.assertEqual({r["secret"] for r in self.registry.asked}, {"Bearer hf_secret"})
        self.fails("pull", "hf.co/org/repo-GGUF:IQ1_S", says="no GGUF file for 'IQ1_S'", env=self.env)
        self.fails("pull", "hf.co/org/repo-GGUF:Q2_K", says="in several parts", env=self.env)
        self.fails("pull", "hf.co/org/nobody", says="no org/nobody on Hugging Face", env=self.env)
        shown = self.ok("run", "hf.co/org/repo-GGUF", "hello", "--no-stdin", "--num-predict", "1", env=self.env)
        self.assertNotEqual(shown.stdout, "")

    def test_a_proxy_of_the_environment_is_asked(self):
        proxy = f"http://{self.registry.host}"
        # As a proxy it is asked for whole addresses, which it doesn't know.
        self.fails("pull", "registry.example/library/tiny:1b", "--insecure", says="no model",
                   env={**self.env, "http_proxy": proxy, "no_proxy": "", "NO_PROXY": ""})
        self.assertIn("http://registry.example/v2/library/tiny/manifests/1b", [r["path"] for r in self.registry.asked])


class ServerPulls(SteelyardTest):
    """The same over HTTP; what pulls themselves do is tested above."""

    def setUp(self):
        self.models = self.dir / self.id().rpartition(".")[2]
        self.registry = Registry(self)
        self.layer = self.registry.blob("model", self.synth().read_bytes())
        self.name = self.registry.model("library/tiny:1b", self.layer)
        self.url = self.serve("--quiet", env={"STEELYARD_MODELS": str(self.models), "XDG_CACHE_HOME": str(self.dir / "cache")})

    def ask(self, path, body, method="POST"):
        """(status, the answer's lines)"""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE) as answer:
                return answer.status, [json.loads(line) for line in answer.read().splitlines()]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, [json.loads(error.read())]

    def test_tells_steps_and_the_end(self):
        status, lines = self.ask("/api/pull", {"model": self.name})
        self.assertEqual((status, lines[0]["status"], lines[-1]["status"]), (200, "pulling manifest", "success"))
        blob = [line for line in lines if line.get("digest") == self.layer["digest"]][-1]
        self.assertEqual((blob["total"], blob["completed"]), (self.layer["size"], self.layer["size"]))
        self.assertEqual(blob["status"], "pulling " + self.layer["digest"][7:19])
        self.assertEqual(self.ask("/api/pull", {"name": self.name, "stream": False}), (200, [{"status": "success"}]))
        status, lines = self.ask("/api/generate", {"model": self.name, "prompt": "hi", "stream": False,
                                                   "options": {"num_predict": 1}})
        self.assertEqual((status, lines[0]["eval_count"]), (200, 1))

    def test_tells_what_went_wrong(self):
        nobody = f"{self.registry.host}/library/nobody"
        status, lines = self.ask("/api/pull", {"model": nobody})
        self.assertEqual(status, 200)  # the stream had begun
        self.assertIn("no model", lines[-1]["error"])
        status, lines = self.ask("/api/pull", {"model": nobody, "stream": False})
        self.assertEqual(status, 404)
        for body in ({}, {"model": ""}, {"model": "../x"}, {"model": "a/b/c/d"}, {"model": 7}, {"model": "a", "stream": "no"}):
            self.assertEqual(self.ask("/api/pull", body)[0], 400, body)

    def test_two_pulls_of_one_model_join(self):
        self.registry.gate = threading.Event()
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(self.ask("/api/pull", {"model": name})))
                   for name in (self.name, self.name, f"http://{self.name}")]
        for thread in threads:
            thread.start()
        for _ in range(PATIENCE * 20):
            if self.registry.ranges():
                break
            time.sleep(0.05)
        self.registry.gate.set()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual([a[1][-1] for a in answers], [{"status": "success"}] * 3)
        ranges = self.registry.ranges()
        self.assertEqual(len(ranges), len(set(ranges)) + ranges.count("bytes=0-1") // 2)  # nothing came twice

    def test_stops_when_everybody_has_gone_or_the_server_ends(self):
        self.registry.gate = threading.Event()
        self.addCleanup(self.registry.gate.set)
        host, port = self.url.removeprefix("http://").split(":")
        body = json.dumps({"model": self.name}).encode()
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /api/pull HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            self.assertIn(b"pulling", client.recv(4096) + client.recv(4096))
        # It is taken up again, and ends with the server, whose end the test waits for.
        threading.Thread(target=lambda: self.ask("/api/pull", {"model": self.name}), daemon=True).start()
        for _ in range(PATIENCE * 20):
            if self.registry.ranges():
                break
            time.sleep(0.05)


if __name__ == "__main__":
    unittest.main()
