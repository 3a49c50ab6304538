"""The package `openai`, unchanged, against a Steelyard server: python openai_calls.py URL MODEL"""
import asyncio
import sys

import openai

URL, MODEL = sys.argv[1:]
HELLO = [{"role": "user", "content": "hello"}]
SHORT = {"max_tokens": 6, "seed": 3, "temperature": 1}


def check(condition, what):
    if not condition:
        sys.exit(f"{what!r} isn't as expected")


def chats(client):
    whole = client.chat.completions.create(model=MODEL, messages=HELLO, **SHORT)
    text = whole.choices[0].message.content
    check(whole.usage.completion_tokens > 0 and whole.choices[0].finish_reason in ("stop", "length"), whole)
    chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True,
                                                 stream_options={"include_usage": True}, **SHORT))
    check("".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text, chunks)
    check(chunks[-1].usage.total_tokens == whole.usage.total_tokens, chunks[-1])
    several = client.chat.completions.create(model=MODEL, messages=HELLO, n=3, logprobs=True, top_logprobs=2, **SHORT)
    check(len(several.choices) == 3 and several.choices[0].message.content == text, several)
    check(len(several.choices[1].logprobs.content[0].top_logprobs) == 2, several)
    with client.chat.completions.stream(model=MODEL, messages=HELLO, **SHORT) as stream:
        check("".join(e.delta for e in stream if e.type == "content.delta") == text, "the stream helper")
    developer = [{"role": "developer", "content": "be short"}] + HELLO
    check(client.chat.completions.create(model=MODEL, messages=developer, **SHORT).choices, "developer")


def others(client):
    check(MODEL in [m.id for m in client.models.list()], "models")
    check(client.models.retrieve(MODEL).id == MODEL, "a model")
    done = client.completions.create(model=MODEL, prompt=["one", "two"], echo=True, **SHORT)
    check([c.text[:3] for c in done.choices] == ["one", "two"], done)
    text = "".join(c.choices[0].text for c in client.completions.create(model=MODEL, prompt="one", stream=True, **SHORT))
    check("one" + text == done.choices[0].text, text)
    vectors = client.embeddings.create(model=MODEL, input=["a", "b"])  # in base64, unless told otherwise
    plain = client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format="float")
    check(max(abs(x - y) for x, y in zip(vectors.data[1].embedding, plain.data[1].embedding)) < 1e-3, "base64")
    check(len(client.embeddings.create(model=MODEL, input="a", dimensions=4).data[0].embedding) == 4, "dimensions")

    answer = client.responses.create(model=MODEL, input="hello", instructions="be short", max_output_tokens=16, temperature=0)
    check(answer.status in ("completed", "incomplete"), answer)
    events = list(client.responses.create(model=MODEL, input="hello", instructions="be short", max_output_tokens=16,
                                          temperature=0, stream=True))
    check("".join(e.delta for e in events if e.type == "response.output_text.delta") == answer.output_text, events)
    check(events[-1].type == f"response.{answer.status}", events[-1])


def errors(client):
    try:
        client.chat.completions.create(model="nobody", messages=HELLO)
        sys.exit("an error was expected")
    except openai.NotFoundError as e:
        check(e.code == "model_not_found", e)
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x" * 9000}])
        sys.exit("an error was expected")
    except openai.BadRequestError as e:
        check(e.code == "context_length_exceeded", e)


async def asynchronous():
    client = openai.AsyncOpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
    whole = await client.chat.completions.create(model=MODEL, messages=HELLO, **SHORT)
    text = ""
    async for chunk in await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, **SHORT):
        text += chunk.choices[0].delta.content or ""
    check(text == whole.choices[0].message.content, text)
    many = await asyncio.gather(*(client.completions.create(model=MODEL, prompt=str(i), **SHORT) for i in range(8)))
    check(all(m.choices for m in many), many)
    check([m.id async for m in client.models.list()], "models")
    check(len((await client.embeddings.create(model=MODEL, input=["a", "b"])).data) == 2, "embeddings")
    async for event in await client.responses.create(model=MODEL, input="hello", max_output_tokens=16, stream=True):
        last = event.type
    check(last in ("response.completed", "response.incomplete"), last)


CLIENT = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
chats(CLIENT)
others(CLIENT)
errors(CLIENT)
asyncio.run(asynchronous())
print("ok")
