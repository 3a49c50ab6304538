#!/usr/bin/env python3
"""Models that were pulled or made: what lies in a store of Ollama's layout, and the commands that change it."""
import hashlib
import json
import unittest
import urllib.request

from support import SteelyardTest


class Layout:
    """A folder of Ollama's layout."""

    def __init__(self, folder):
        self.folder = folder
        for kind in ("blobs", "manifests"):
            (folder / kind).mkdir(parents=True, exist_ok=True)

    def blob(self, kind, content):
        content = content if isinstance(content, bytes) else content.encode()
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / "blobs" / f"sha256-{digest}").write_bytes(content)
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    def manifest(self, path, *layers):
        """Returns its digest."""
        text = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                           "config": self.blob("config", "{}"), "layers": layers})
        place = self.folder / "manifests" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return hashlib.sha256(text.encode()).hexdigest()


class Store(SteelyardTest):
    def setUp(self):
        self.models = self.dir / self.id().rpartition(".")[2]
        self.env = {"STEELYARD_MODELS": str(self.models), "XDG_CACHE_HOME": str(self.dir / "cache")}
        self.layout = Layout(self.models)
        self.weights = self.layout.blob("model", self.synth().read_bytes())

    def names(self):
        return [m["name"] for m in self.ok_json("list", "--json", env=self.env)["models"]]

    def blobs(self):
        return sorted(p.name for p in (self.models / "blobs").iterdir())

    def test_runs_with_what_a_model_brings_along(self):
        self.layout.manifest("hf.co/org/tiny/Q8_0", self.weights, self.layout.blob("system", "be brief"),
                             self.layout.blob("params", json.dumps({"num_predict": 3, "seed": 4})),
                             self.layout.blob("messages", json.dumps([{"role": "user", "content": "a"},
                                                                      {"role": "assistant", "content": "b"}])))
        self.layout.manifest("registry.ollama.ai/library/plain/latest", self.weights)
        self.assertEqual(self.names(), ["hf.co/org/tiny:Q8_0", "plain"])
        ask = lambda *more: self.ok_json("run", *more, "hello", "--json", "--no-stdin", "--threads", "1", env=self.env)
        stored = ask("hf.co/org/tiny:Q8_0")
        plain = ask("plain", "--num-predict", "3", "--seed", "4", "--system", "be brief")
        self.assertEqual((stored["generated_tokens"], stored["seed"]), (3, 4))
        self.assertGreater(stored["prompt_tokens"], plain["prompt_tokens"])
        self.assertEqual(ask("hf.co/org/tiny:Q8_0", "--num-predict", "2")["generated_tokens"], 2)

    def test_cp_and_rm(self):
        self.layout.manifest("registry.ollama.ai/library/one/latest", self.weights, self.layout.blob("system", "s"))
        self.ok("cp", "one", "me/two:8b", env=self.env)
        self.assertEqual(self.names(), ["me/two:8b", "one"])
        self.fails("cp", "one", "../two", says="not a model's name", env=self.env)
        self.fails("cp", "nobody", "two", says="no model 'nobody'", env=self.env)
        self.fails("rm", "me/two", says="no model", env=self.env)
        before = self.blobs()
        self.ok("rm", "one", env=self.env)
        self.assertEqual(self.blobs(), before)
        self.ok("rm", "me/two:8b", env=self.env)
        self.assertEqual(self.blobs(), [])
        (self.models / "file.gguf").write_bytes(self.synth().read_bytes())
        self.fails("rm", "file", says="'file' is a plain file", env=self.env)
        self.assertTrue((self.models / "file.gguf").exists())

    def test_ps_and_stop_ask_the_server(self):
        digest = self.layout.manifest("registry.ollama.ai/library/one/1b", self.weights)
        host = self.serve("--quiet", "--context", "128", env=self.env)
        self.assertIn("no model is loaded", self.ok("ps", "--host", host).stderr)
        self.ok("stop", "one:1b", "--host", host)  # that it isn't loaded is no failure
        request = urllib.request.Request(host + "/api/generate", json.dumps({"model": "one:1b"}).encode())
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            self.assertEqual(answer.status, 200)
        shown = self.ok("ps", "--host", host).stdout.splitlines()
        self.assertEqual(shown[0].split(), ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"])
        self.assertEqual(shown[1].split()[:2], ["one:1b", digest[:12]])
        self.assertIn("100 % CPU", shown[1])
        self.ok("stop", "one:1b", env={"STEELYARD_HOST": host})
        self.assertEqual(self.ok_json("ps", "--json", "--host", host)["models"], [])
        self.fails("stop", "nobody", "--host", host, says="no model 'nobody'")
        self.fails("ps", "--host", "127.0.0.1:1", says="no server answers")

    def test_keys_open_a_server(self):
        keys = self.dir / "keys.txt"
        key = self.ok("key", keys, "me", "--role", "manage").stdout.strip()
        self.assertNotIn(key, keys.read_text())
        host = self.serve("--quiet", "--api-keys", str(keys), env=self.env)
        self.fails("ps", "--host", host, says="API key")
        self.ok("ps", "--host", host, env={"STEELYARD_API_KEY": key})


if __name__ == "__main__":
    unittest.main()
