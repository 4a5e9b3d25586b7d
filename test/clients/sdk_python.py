"""The official Python SDK, watched from outside: its HTTP client and its sleep.

Reads one JSON object `{"base": ..., "call": ...}` a line and answers with one line: what the call's
caller got to see. The fields are those of test/clients/sdk.ts. Needs PyPI's `openai`.
"""

import json
import sys
import time

import openai
from openai import OpenAI

MESSAGES = [{"role": "user", "content": "hello"}]

really_sleep = time.sleep


class Notes:
    def __init__(self) -> None:
        self.attempts = 0
        self.answers: list[dict[str, object]] = []
        self.waits_ms: list[float] = []
        self.text = ""

    def sent(self, _request: object) -> None:
        self.attempts += 1

    def answered(self, response: object) -> None:
        headers = response.headers
        self.answers.append(
            {
                "status": response.status_code,
                "retryAfter": headers.get("retry-after"),
                "retryAfterMs": headers.get("retry-after-ms"),
                "shouldRetry": headers.get("x-should-retry"),
            }
        )


class Clients:
    """One client for as long as the calls go to the same place: its connections are kept."""

    def __init__(self) -> None:
        self.notes = Notes()
        self.place: object = None
        self.client: OpenAI | None = None

    def of(self, base: str, call: dict) -> OpenAI:
        place = (base, call["key"], call.get("timeoutMs"), call.get("headers"))
        if self.client is not None and self.place == place:
            return self.client
        if self.client is not None:
            self.client.close()
        timeout_ms = call.get("timeoutMs")
        options = {} if timeout_ms is None else {"timeout": timeout_ms / 1000}
        hooks = {
            "request": [lambda request: self.notes.sent(request)],
            "response": [lambda response: self.notes.answered(response)],
        }
        self.place = place
        self.client = OpenAI(
            base_url=base,
            api_key=call["key"] or "none",
            default_headers=call.get("headers"),
            http_client=openai.DefaultHttpxClient(event_hooks=hooks),
            **options,
        )
        return self.client


def run(client: OpenAI, call: dict, notes: Notes) -> str:
    kind, model = call["do"], call["model"]
    if kind == "chat":
        # The only way to send none: the client itself does not start without a key.
        extra = {"Authorization": openai.Omit()} if call["key"] is None else None
        answer = client.chat.completions.create(
            model=model, messages=MESSAGES, extra_headers=extra
        )
        return answer.choices[0].message.content or ""
    if kind == "stream":
        return streamed(client, call, notes)
    if kind == "respond":
        return client.responses.create(model=model, input="hello").output_text
    if kind == "response stream":
        for event in client.responses.create(model=model, input="hello", stream=True):
            if event.type == "response.output_text.delta":
                notes.text += event.delta
        return notes.text
    if kind == "model":
        return client.models.retrieve(model).id
    if kind == "models":
        return " ".join(model.id for model in client.models.list())
    if kind == "get":
        client.get(call["path"], cast_to=object)
        return ""
    options = {"headers": {"content-type": "application/json"}}
    client.post(call["path"], cast_to=object, content=call["raw"].encode(), options=options)
    return ""


def streamed(client: OpenAI, call: dict, notes: Notes) -> str:
    stream = client.chat.completions.create(model=call["model"], messages=MESSAGES, stream=True)
    for pieces, piece in enumerate(stream, 1):
        if piece.choices:
            notes.text += piece.choices[0].delta.content or ""
        if pieces == call.get("stopAfter"):
            stream.close()
            break
    return notes.text


def raised(error: Exception) -> dict[str, object]:
    def text(name: str) -> object:
        return getattr(error, name, None)

    body = text("body")
    told = body.get("message") if isinstance(body, dict) else None

    return {
        "raised": type(error).__name__,
        "status": text("status_code"),
        "type": text("type"),
        "code": text("code"),
        "param": text("param"),
        "requestId": text("request_id"),
        "message": told if isinstance(told, str) else str(error),
    }


NOTHING = dict.fromkeys(("raised", "status", "type", "code", "param", "requestId")) | {"message": ""}


def outcome(clients: Clients, base: str, call: dict) -> dict[str, object]:
    notes = clients.notes = Notes()

    def sleep(seconds: float) -> None:
        notes.waits_ms.append(seconds * 1000)
        really_sleep(seconds if call.get("sleeps") else 0.001)

    time.sleep = sleep
    try:
        notes.text = run(clients.of(base, call), call, notes)
        end = NOTHING
    except Exception as error:  # whatever a caller would have to catch
        end = raised(error)
    finally:
        time.sleep = really_sleep
    return {
        **end,
        "text": notes.text,
        "attempts": notes.attempts,
        "answers": notes.answers,
        "waitsMs": notes.waits_ms,
    }


def main() -> None:
    clients = Clients()
    for line in sys.stdin:
        ask = json.loads(line)
        print(json.dumps(outcome(clients, ask["base"], ask["call"])), flush=True)


if __name__ == "__main__":
    main()
