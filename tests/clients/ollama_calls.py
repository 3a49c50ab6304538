"""The package `ollama`, unchanged, against a Steelyard server: python ollama_calls.py URL MODEL REMOTE FILE, with the name of a
model in a registry and a GGUF file"""
import asyncio
import sys

import ollama

URL, MODEL, REMOTE, FILE = sys.argv[1:]
HELLO = [{"role": "user", "content": "hello"}]
SHORT = {"num_predict": 6, "seed": 3, "temperature": 1}
TOOL = {"type": "function", "function": {"name": "weather", "description": "tells it", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


def check(condition, what):
    if not condition:
        sys.exit(f"{what!r} isn't as expected")


def sync():
    client = ollama.Client(host=URL)
    check(MODEL in [m.model for m in client.list().models], client.list())
    shown = client.show(MODEL)
    check("completion" in shown.capabilities and shown.modelinfo["general.architecture"] == "llama", shown)
    check(client.ps().models == [], client.ps())

    whole = client.generate(MODEL, "hello", options=SHORT)
    pieces = list(client.generate(MODEL, "hello", options=SHORT, stream=True))
    check("".join(p.response for p in pieces) == whole.response, pieces)
    check(pieces[-1].done and pieces[-1].done_reason in ("stop", "length"), pieces[-1])
    check(whole.eval_count > 0 and whole.total_duration > 0, whole)
    again = client.generate(MODEL, "and?", context=whole.context, options=SHORT)
    check(again.prompt_eval_count > whole.prompt_eval_count, again)
    check(client.generate(MODEL, "hello", raw=True, system="no", options=SHORT).done, "raw")

    chat = client.chat(MODEL, HELLO, options=SHORT)
    pieces = list(client.chat(MODEL, HELLO, options=SHORT, stream=True))
    check("".join(p.message.content for p in pieces) == chat.message.content, pieces)
    likely = client.chat(MODEL, HELLO, options=SHORT, logprobs=True, top_logprobs=2)
    check(len(likely.logprobs[0].top_logprobs) == 2, likely)
    check(likely.message.content == chat.message.content, likely)

    loaded = client.ps().models
    check([m.model for m in loaded] == [MODEL] and loaded[0].context_length > 0 and loaded[0].size > 0, loaded)

    vectors = client.embed(MODEL, ["one", "two", "one"]).embeddings
    check(len(vectors) == 3 and max(abs(a - b) for a, b in zip(vectors[0], vectors[2])) < 1e-3, "embed")
    check(abs(sum(x * x for x in vectors[1]) - 1) < 1e-4, "a vector's length")
    check(len(client.embed(MODEL, "one", dimensions=8).embeddings[0]) == 8, "dimensions")
    check(len(client.embeddings(MODEL, "one").embedding) == len(vectors[0]), "embeddings")

    for call, status in ((lambda: client.generate("nobody", "x"), 404), (lambda: client.show("nobody"), 404),
                         (lambda: client.chat(MODEL, [{"role": "user", "content": "x" * 9000}]), 400)):
        try:
            call()
            sys.exit("an error was expected")
        except ollama.ResponseError as e:
            check(e.status_code == status, e)
    check(client.generate(MODEL, keep_alive=0).done_reason == "unload", "unload")
    check(client.ps().models == [], "ps after unloading")


def changes():
    client = ollama.Client(host=URL)
    steps = list(client.pull(REMOTE, stream=True))
    check(steps[-1].status == "success" and any(s.total and s.completed == s.total for s in steps), steps)
    check(client.pull(REMOTE).status == "success", "pull")
    check(REMOTE in [m.model for m in client.list().models], client.list())
    digest = client.create_blob(FILE)
    made = client.create("made", files={"tiny.gguf": digest}, system="be brief", parameters={"num_predict": 2, "stop": ["END"]},
                         license="MIT", messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    check(made.status == "success", made)
    steps = list(client.create("again", from_="made", stream=True))
    check(steps[-1].status == "success", steps)
    check(client.chat("again", HELLO).eval_count <= 2, "parameters")
    shown = client.show("again")
    check("num_predict 2" in shown.parameters and shown.license == "MIT", shown)
    check(client.copy("made", "me/copied:2").status == "success", "copy")
    check({"made", "again", "me/copied:2"} <= {m.model for m in client.list().models}, client.list())
    for name in ("made", "again", "me/copied:2", REMOTE):
        check(client.delete(name).status == "success", name)
    for call in (lambda: client.delete("made"), lambda: client.copy("made", "x"), lambda: client.create("x", from_="made"),
                 lambda: client.pull(REMOTE + "x"), lambda: client.push(MODEL), lambda: client.delete(MODEL)):
        try:
            call()
            sys.exit("an error was expected")
        except ollama.ResponseError as e:
            check(e.status_code in (400, 404), e)
    check([m.model for m in client.list().models] == [MODEL], client.list())
    client.generate(MODEL, keep_alive=0)


async def asynchronous():
    client = ollama.AsyncClient(host=URL)
    check(MODEL in [m.model for m in (await client.list()).models], "list")
    texts = [await client.generate(MODEL, "hello", options=SHORT) for _ in range(2)]
    check(texts[0].response == texts[1].response, texts)
    streamed = ""
    async for piece in await client.chat(MODEL, HELLO, options=SHORT, stream=True):
        streamed += piece.message.content
    check(streamed == (await client.chat(MODEL, HELLO, options=SHORT)).message.content, streamed)
    many = await asyncio.gather(*(client.generate(MODEL, f"number {i}", options=SHORT) for i in range(8)))
    check(all(m.done for m in many), many)
    check(len((await client.embed(MODEL, ["a", "b"])).embeddings) == 2, "embed")
    check(len((await client.ps()).models) == 1, "ps")
    async for step in await client.pull(REMOTE, stream=True):
        last = step
    check(last.status == "success", last)
    check((await client.create("made", from_=REMOTE, system="s")).status == "success", "create")
    check((await client.copy("made", "copied")).status == "success", "copy")
    for name in ("made", "copied", REMOTE):
        check((await client.delete(name)).status == "success", name)


sync()
changes()
asyncio.run(asynchronous())
print("ok")
