"""The package `anthropic`, unchanged, against a Steelyard server: python anthropic_calls.py URL MODEL"""
import asyncio
import sys

import anthropic

URL, MODEL = sys.argv[1:]
HELLO = [{"role": "user", "content": "hello"}]
SHORT = {"model": MODEL, "max_tokens": 6, "extra_body": {"temperature": 0}}


def check(condition, what):
    if not condition:
        sys.exit(f"{what!r} isn't as expected")


def sync():
    client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
    whole = client.messages.create(messages=HELLO, **SHORT)
    check(whole.stop_reason in ("end_turn", "max_tokens") and whole.usage.output_tokens > 0, whole)
    with client.messages.stream(messages=HELLO, **SHORT) as stream:
        text = "".join(stream.text_stream)
        check(stream.get_final_message().content[0].text == text, text)
    check(text == whole.content[0].text, text)
    names = [e.type for e in client.messages.create(messages=HELLO, stream=True, **SHORT)]
    check(names[0] == "message_start" and names[-1] == "message_stop", names)
    blocks = [{"role": "user", "content": [{"type": "text", "text": "hello"}]},
              {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}, *HELLO]
    count = client.messages.count_tokens(model=MODEL, messages=blocks, system="be short").input_tokens
    used = client.messages.create(messages=blocks, system="be short", **SHORT).usage
    check(used.input_tokens + used.cache_read_input_tokens == count, used)
    try:
        client.messages.create(model="nobody", max_tokens=1, messages=HELLO)
        sys.exit("an error was expected")
    except anthropic.NotFoundError as e:
        check(e.body["error"]["type"] == "not_found_error", e)
    try:
        client.messages.create(messages=[{"role": "user", "content": "x" * 9000}], **SHORT)
        sys.exit("an error was expected")
    except anthropic.BadRequestError as e:
        check("context" in str(e), e)


async def asynchronous():
    client = anthropic.AsyncAnthropic(base_url=URL, api_key="none", max_retries=0)
    whole = await client.messages.create(messages=HELLO, **SHORT)
    async with client.messages.stream(messages=HELLO, **SHORT) as stream:
        text = "".join([piece async for piece in stream.text_stream])
    check(text == whole.content[0].text, text)
    many = await asyncio.gather(*(client.messages.create(messages=HELLO, **SHORT) for _ in range(8)))
    check(all(m.content for m in many), many)


sync()
asyncio.run(asynchronous())
print("ok")
