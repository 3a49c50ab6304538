"""The package `ollama`, unchanged, against a Steelyard server: python ollama_calls.py URL MODEL"""
import asyncio
import sys

import ollama

URL, MODEL = sys.argv[1:]
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


sync()
asyncio.run(asynchronous())
print("ok")
