#!/usr/bin/env python3
"""`steelyard create`, /api/create and /api/blobs."""
import hashlib
import http.client
import json
import time
import unittest
import urllib.parse

from support import PATIENCE, SteelyardTest


class Create(SteelyardTest):
    def setUp(self):
        self.models = self.dir / self.id().rpartition(".")[2]
        self.models.mkdir()
        self.env = {"STEELYARD_MODELS": str(self.models), "XDG_CACHE_HOME": str(self.dir / "cache")}

    def list(self):
        return {m["name"]: m for m in self.ok_json("list", "--json", env=self.env)["models"]}

    def left_over(self):
        return [p.name for p in (self.models / "blobs").iterdir() if not p.name.startswith("sha256-")]

    def test_of_a_file_and_of_a_model(self):
        (self.dir / "base.gguf").write_bytes(self.synth().read_bytes())
        modelfile = self.dir / "Modelfile"
        modelfile.write_text('FROM ./base.gguf\nPARAMETER num_predict 3\nPARAMETER temperature 0\nPARAMETER stop "END"\nSYSTEM be brief\n')
        self.ok("create", "one", "-f", modelfile, env=self.env)
        self.ok("create", "me/two:1", "-f", "-", env=self.env,
                input='FROM one\nPARAMETER seed 5\nSYSTEM """be\nlong"""\nMESSAGE user a\nMESSAGE assistant b\n')
        self.assertEqual(sorted(self.list()), ["me/two:1", "one"])
        ask = lambda model: self.ok_json("run", model, "hi", "--json", "--no-stdin", env=self.env)
        one, two = ask("one"), ask("me/two:1")
        self.assertEqual((one["generated_tokens"], two["generated_tokens"], two["seed"]), (3, 3, 5))
        self.assertGreater(two["prompt_tokens"], one["prompt_tokens"])
        self.assertEqual(self.left_over(), [])
        self.ok("rm", "one", env=self.env)
        self.assertEqual(ask("me/two:1")["generated_tokens"], 3)

    def test_with_smaller_weights(self):
        big = self.synth("tiny-llama", "--type", "f16")
        self.ok("create", "small", "-f", "-", "--quantize", "q8_0", input=f"FROM {big}\n", env=self.env)
        self.assertEqual(self.list()["small"]["quantization"], "Q8_0")
        self.assertLess(self.list()["small"]["bytes"], big.stat().st_size)
        self.assertEqual(self.left_over(), [])
        self.fails("create", "odd", "-f", "-", "--quantize", "q9", input=f"FROM {big}\n", code=2, env=self.env)

    def test_what_can_not_be_made(self):
        for text, says in (("FROM nobody", "no model 'nobody'"), ("FROM ./nobody.gguf", "nobody.gguf"),
                           ("FROM one\nADAPTER x", "line 2 of the Modelfile: adapter isn't supported"),
                           ("FROM one\nPARAMETER top_k much", "top_k"), ("SYSTEM x", "no FROM")):
            self.fails("create", "new", "-f", "-", input=text, says=says, env=self.env)
        self.fails("create", "../new", "-f", "-", input=f"FROM {self.synth()}", says="not a model's name", env=self.env)
        (self.dir / "broken.gguf").write_bytes(b"GGUF broken")
        self.fails("create", "new", "-f", self.dir / "nowhere", says="no file", env=self.env)
        self.fails("create", "new", "-f", "-", input=f"FROM {self.dir / 'broken.gguf'}", env=self.env)
        self.assertEqual(self.list(), {})


class CreateOverHttp(SteelyardTest):
    def setUp(self):
        self.models = self.dir / self.id().rpartition(".")[2]
        self.url = self.serve("--quiet", env={"STEELYARD_MODELS": str(self.models), "XDG_CACHE_HOME": str(self.dir / "cache")})
        self.weights = self.synth().read_bytes()
        self.digest = "sha256:" + hashlib.sha256(self.weights).hexdigest()

    def ask(self, method, path, body=b"", headers=None, **options):
        """(status, body)"""
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc, timeout=PATIENCE)
        try:
            connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, headers or {}, **options)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def blobs(self):
        return sorted(p.name for p in (self.models / "blobs").iterdir()) if (self.models / "blobs").exists() else []

    def test_of_a_blob_that_was_sent(self):
        path = f"/api/blobs/{self.digest}"
        self.assertEqual(self.ask("HEAD", path)[0], 404)
        self.assertEqual(self.ask("POST", path, self.weights)[0], 201)
        self.assertEqual(self.ask("HEAD", path)[0], 200)
        self.assertEqual(self.ask("POST", path, self.weights)[0], 200)  # it is there
        status, body = self.ask("POST", "/api/create", {"model": "new", "files": {"x.gguf": self.digest}, "system": "s",
                                                        "parameters": {"num_predict": 2}, "messages": [{"role": "user", "content": "a"}]})
        lines = [json.loads(line) for line in body.splitlines()]
        self.assertEqual((status, lines[-1]), (200, {"status": "success"}), lines)
        status, body = self.ask("POST", "/api/generate", {"model": "new", "prompt": "hi", "stream": False, "options": {"temperature": 0}})
        self.assertEqual((status, json.loads(body)["eval_count"]), (200, 2))
        self.assertEqual(json.loads(self.ask("POST", "/api/show", {"model": "new"})[1])["system"], "s")
        status, body = self.ask("POST", "/api/create", {"model": "newer", "from": "new", "stream": False})
        self.assertEqual((status, json.loads(body)), (200, {"status": "success"}))

    def test_blobs_in_chunks_and_what_they_must_be(self):
        pieces = [self.weights[i:i + 100000] for i in range(0, len(self.weights), 100000)]
        other = "sha256:" + "a" * 64
        self.assertEqual(self.ask("POST", f"/api/blobs/{other}", iter(pieces), encode_chunked=True,
                                  headers={"Transfer-Encoding": "chunked"})[0], 400)
        self.assertEqual(self.blobs(), [])
        self.assertEqual(self.ask("POST", f"/api/blobs/{self.digest}", iter(pieces), encode_chunked=True,
                                  headers={"Transfer-Encoding": "chunked"})[0], 201)
        self.assertEqual(self.blobs(), [self.digest.replace(":", "-")])
        for odd in ("..", "../../x", "sha256:", "sha256:" + "a" * 63, "sha256:../" + "a" * 61, "md5:" + "a" * 64, "%2e%2e",
                    "sha256:" + "g" * 64):
            self.assertEqual(self.ask("POST", f"/api/blobs/{odd}", b"x")[0], 400, odd)
            self.assertIn(self.ask("HEAD", f"/api/blobs/{odd}")[0], (400, 404), odd)
        self.assertEqual(len(self.blobs()), 1)

    def test_more_than_the_disk_holds_is_refused_at_once(self):
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc, timeout=PATIENCE)
        connection.putrequest("POST", "/api/blobs/sha256:" + "a" * 64)
        connection.putheader("Content-Length", str(1 << 60))
        connection.endheaders()
        answer = connection.getresponse()
        self.assertEqual(answer.status, 500)
        self.assertIn(b"make room", answer.read())
        connection.close()

    def test_a_client_that_goes_leaves_nothing(self):
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc, timeout=PATIENCE)
        connection.putrequest("POST", f"/api/blobs/{self.digest}")
        connection.putheader("Content-Length", str(len(self.weights)))
        connection.endheaders()
        connection.send(self.weights[:1000])
        connection.close()
        self.assertEqual(self.ask("GET", "/api/version")[0], 200)
        for _ in range(PATIENCE * 10):  # it takes a moment where files can't be without a name
            if not self.blobs():
                break
            time.sleep(0.1)
        self.assertEqual(self.blobs(), [])

    def test_requests_that_make_no_sense(self):
        for body in ({}, {"model": "x"}, {"model": "../x", "from": "y"}, {"model": "x", "from": "y", "files": {"a.gguf": self.digest}},
                     {"model": "x", "files": {"a.safetensors": self.digest}}, {"model": "x", "files": {"a.gguf": "../../etc/passwd"}},
                     {"model": "x", "from": "y", "adapters": {"a": "b"}}, {"model": "x", "from": "y", "parameters": {"top_k": "much"}},
                     {"model": "x", "from": "y", "quantize": "q9"}, {"model": "x", "modelfile": "FROM y"}):
            self.assertEqual(self.ask("POST", "/api/create", body)[0], 400, body)
        status, body = self.ask("POST", "/api/create", {"model": "x", "from": "nobody", "stream": False})
        self.assertEqual(status, 404, body)
        status, body = self.ask("POST", "/api/create", {"model": "x", "files": {"a.gguf": self.digest}, "stream": False})
        self.assertEqual(status, 404, body)  # it was never sent


if __name__ == "__main__":
    unittest.main()
