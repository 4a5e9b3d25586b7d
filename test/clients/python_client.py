"""The official Python client against a Penstock gateway, as a user would write it.

`python_client.py BASE_URL KEY MODEL`: prints one line a check and `N passed, N failed`; exits 1 when
one failed. Needs PyPI's `openai`. Says nothing about what the model answers, only how it arrives.
"""

import asyncio
import sys
from collections.abc import Callable

import openai
from openai import AsyncOpenAI, OpenAI

HELLO = [{"role": "user", "content": "Hello, how many tokens are there?"}]
TIMEOUT_SECONDS = 120
PARALLEL_STREAMS = 8

Check = Callable[["Subject"], None]
CHECKS: list[tuple[str, Check]] = []


class Subject:
    def __init__(self, base: str, key: str, model: str) -> None:
        self.base, self.key, self.model = base, key, model
        self.client = OpenAI(
            base_url=base, api_key=key, timeout=TIMEOUT_SECONDS, max_retries=0
        )

    def other(self, key: str) -> OpenAI:
        return OpenAI(base_url=self.base, api_key=key, timeout=TIMEOUT_SECONDS, max_retries=0)


def check(name: str) -> Callable[[Check], Check]:
    def keep(function: Check) -> Check:
        CHECKS.append((name, function))
        return function

    return keep


def expect(fact: bool, saying: str) -> None:
    if not fact:
        raise AssertionError(saying)


def text_of(delta: object) -> str:
    """Content, or the reasoning field of either engine: what a user sees arrive."""
    fields = (getattr(delta, name, None) for name in ("content", "reasoning", "reasoning_content"))
    return "".join(field for field in fields if field)


@check("models: lists the model, under its own name")
def models(subject: Subject) -> None:
    names = [model.id for model in subject.client.models.list()]
    expect(subject.model in names, f"{subject.model} is not among {names}")


@check("chat: text, usage that adds up, a finish reason")
def chat(subject: Subject) -> None:
    answer = subject.client.chat.completions.create(
        model=subject.model, messages=HELLO, max_tokens=24, temperature=0.7
    )
    message = answer.choices[0].message
    expect(text_of(message) != "", "an empty answer")
    expect(answer.choices[0].finish_reason in ("stop", "length"), "no finish reason")
    usage = answer.usage
    expect(usage is not None and usage.prompt_tokens > 0, "no prompt tokens")
    expect(0 < usage.completion_tokens <= 24, f"{usage.completion_tokens} completion tokens")
    expect(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, "a wrong total")


@check("chat stream: role first, text in pieces, finish reason, usage last")
def chat_stream(subject: Subject) -> None:
    chunks = list(
        subject.client.chat.completions.create(
            model=subject.model,
            messages=HELLO,
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    expect(len(chunks) > 3, f"only {len(chunks)} chunks: the stream was gathered up")
    expect(chunks[0].choices[0].delta.role == "assistant", "the first chunk has no role")
    expect(len({chunk.id for chunk in chunks}) == 1, "the answer changed its id")
    with_choices = [chunk for chunk in chunks if chunk.choices]
    expect("".join(text_of(chunk.choices[0].delta) for chunk in with_choices) != "", "no text")
    expect(with_choices[-1].choices[0].finish_reason in ("stop", "length"), "no finish reason")
    expect(chunks[-1].choices == [] and chunks[-1].usage is not None, "no usage chunk at the end")
    expect(chunks[-1].usage.completion_tokens > 0, "usage counts no completion token")


@check("chat stream without include_usage: no usage is slipped in")
def chat_stream_bare(subject: Subject) -> None:
    chunks = list(
        subject.client.chat.completions.create(
            model=subject.model, messages=HELLO, max_tokens=8, stream=True
        )
    )
    expect(all(chunk.usage is None for chunk in chunks), "usage nobody asked for")
    expect(all(chunk.choices for chunk in chunks), "a chunk without choices nobody asked for")


@check("legacy completions, streamed and not")
def completions(subject: Subject) -> None:
    ask = {"model": subject.model, "prompt": "A penstock is", "max_tokens": 12}
    answer = subject.client.completions.create(**ask)
    expect(answer.usage is not None and answer.usage.completion_tokens > 0, "no usage")
    pieces = list(subject.client.completions.create(**ask, stream=True))
    expect(pieces[-1].choices[0].finish_reason in ("stop", "length"), "no finish reason")


@check("answering headers: request id, who answered")
def headers(subject: Subject) -> None:
    raw = subject.client.chat.completions.with_raw_response.create(
        model=subject.model, messages=HELLO, max_tokens=2
    )
    for name in ("x-request-id", "x-penstock-model", "x-penstock-replica"):
        expect(bool(raw.headers.get(name)), f"no {name}")


@check(f"{PARALLEL_STREAMS} streams at once, each whole")
def parallel(subject: Subject) -> None:
    async def one(client: AsyncOpenAI) -> None:
        finish = None
        stream = await client.chat.completions.create(
            model=subject.model, messages=HELLO, max_tokens=32, stream=True
        )
        async for chunk in stream:
            finish = chunk.choices[0].finish_reason or finish
        expect(finish in ("stop", "length"), "a stream without an end")

    async def everyone() -> None:
        async with AsyncOpenAI(
            base_url=subject.base, api_key=subject.key, timeout=TIMEOUT_SECONDS, max_retries=0
        ) as client:
            await asyncio.gather(*(one(client) for _ in range(PARALLEL_STREAMS)))

    asyncio.run(everyone())


def refused(error: type[openai.APIStatusError], code: str | None, call: Callable[[], object]) -> None:
    try:
        call()
    except error as refusal:
        expect(bool(refusal.message), "no message")
        expect(code is None or refusal.code == code, f"code {refusal.code}, not {code}")
        return
    raise AssertionError(f"not refused with {error.__name__}")


@check("a wrong key: AuthenticationError")
def wrong_key(subject: Subject) -> None:
    client = subject.other("sk-ps-wrong")
    refused(openai.AuthenticationError, "invalid_api_key", lambda: client.models.list())
    refused(
        openai.AuthenticationError,
        "invalid_api_key",
        lambda: client.chat.completions.create(model=subject.model, messages=HELLO, stream=True),
    )


@check("an unknown model: NotFoundError, streamed or not")
def unknown_model(subject: Subject) -> None:
    for stream in (False, True):
        refused(
            openai.NotFoundError,
            "model_not_found",
            lambda: subject.client.chat.completions.create(
                model="no-such-model", messages=HELLO, stream=stream
            ),
        )


@check("an invalid value: the engine's refusal as BadRequestError")
def invalid_value(subject: Subject) -> None:
    refused(
        openai.BadRequestError,
        None,
        lambda: subject.client.chat.completions.create(
            model=subject.model, messages=HELLO, temperature=-1
        ),
    )


@check("a prompt beyond the context: BadRequestError")
def too_long(subject: Subject) -> None:
    long = [{"role": "user", "content": "Hello! " * 200_000}]
    refused(
        openai.BadRequestError,
        None,
        lambda: subject.client.chat.completions.create(
            model=subject.model, messages=long, max_tokens=4, stream=True
        ),
    )


@check("an oversized body: 413, said in JSON")
def oversized(subject: Subject) -> None:
    huge = [{"role": "user", "content": "x" * (40 * 1024 * 1024)}]
    try:
        subject.client.chat.completions.create(model=subject.model, messages=huge)
    except openai.APIStatusError as refusal:
        expect(refusal.status_code == 413, f"status {refusal.status_code}")
        expect(refusal.code == "body_too_large", f"code {refusal.code}")
        return
    raise AssertionError("40 MiB were accepted")


def run(subject: Subject) -> tuple[int, int]:
    failed = 0
    for name, function in CHECKS:
        try:
            function(subject)
            print(f"ok   {name}", flush=True)
        except Exception as error:  # one broken check must not hide the others
            failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {str(error)[:500]}", flush=True)
    return len(CHECKS) - failed, failed


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit("usage: python_client.py BASE_URL KEY MODEL")
    passed, failed = run(Subject(*sys.argv[1:4]))
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
