"""Record what a real vLLM sends: `record.py BASE_URL DIRECTORY SET [PID]`.

SET: `plain`, `protocols` (responses, messages), `parsers` (a reasoning parser, a queue limit), `tools` (a tool parser), `death` (PID
is the engine core, killed under a stream) or `stop` (PID is the server, SIGTERM under a stream).

One file a response body, byte for byte, and an index `exchanges-<SET>.json` with the request, the
status, the headers and the sizes of the HTTP chunks (how the engine cuts its stream). The standard
library only, and a raw socket: no client may tidy up what is to be recorded.
"""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

MODEL = "tiny-qwen2"
HELLO = [{"role": "user", "content": "Hello"}]
READ_TIMEOUT_SECONDS = 120


class Reply:
    def __init__(self, raw: bytes) -> None:
        head, _, rest = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = dict(line.split(": ", 1) for line in lines[1:])
        self.chunks: list[int] = []
        self.complete = True
        if self.headers.get("transfer-encoding") == "chunked":
            self.body = self._dechunk(rest)
        else:
            self.body = rest
            self.complete = len(rest) == int(self.headers.get("content-length", len(rest)))

    def _dechunk(self, rest: bytes) -> bytes:
        parts = []
        while True:
            size_line, separator, rest = rest.partition(b"\r\n")
            if separator == b"":
                self.complete = False
                return b"".join(parts)
            size = int(size_line, 16)
            if size == 0:
                return b"".join(parts)
            self.chunks.append(size)
            parts.append(rest[:size])
            rest = rest[size + 2 :]


class Recorder:
    def __init__(self, base: str, directory: Path, name: str) -> None:
        url = urlsplit(base)
        self.address = (url.hostname, url.port)
        self.directory = directory
        self.name = name
        self.index: list[dict[str, object]] = []

    def open(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> socket.socket:
        link = socket.create_connection(self.address, timeout=READ_TIMEOUT_SECONDS)
        fields = {"host": "engine", "connection": "close", **headers}
        if body:
            fields["content-length"] = str(len(body))
        head = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
        link.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return link

    def exchange(
        self, name: str, method: str, path: str, body: object = None, **headers: str
    ) -> Reply:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        fields = {key.replace("_", "-"): value for key, value in headers.items()}
        if data and "content-type" not in fields:
            fields["content-type"] = "application/json"
        with self.open(method, path, data, fields) as link:
            raw = b""
            try:
                while piece := link.recv(65536):
                    raw += piece
            except ConnectionResetError:
                pass
        reply = Reply(raw)
        self.keep(name, {"method": method, "path": path, "headers": fields, "body": data}, reply)
        return reply

    def keep(self, name: str, request: dict[str, object], reply: Reply) -> None:
        kind = reply.headers.get("content-type", "")
        ending = "sse" if "event-stream" in kind else "json" if "json" in kind else "txt"
        file = f"{self.name}-{name}.{ending}"
        (self.directory / file).write_bytes(reply.body)
        data = request["body"]
        request["body"] = data.decode("utf-8", "replace") if isinstance(data, bytes) else ""
        headers = {k: v for k, v in reply.headers.items() if k != "date"}
        entry = {"name": name, "request": request, "status": reply.status, "headers": headers}
        entry.update(body=file, chunks=reply.chunks, complete=reply.complete)
        self.index.append(entry)
        print(f"{name}: {reply.status}, {len(reply.body)} bytes, {len(reply.chunks)} chunks")

    def text(self, path: str) -> str:
        with self.open("GET", path, b"", {}) as link:
            raw = b"".join(iter(lambda: link.recv(65536), b""))
        return Reply(raw).body.decode()

    def save(self) -> None:
        text = json.dumps(self.index, indent=1, ensure_ascii=False)
        (self.directory / f"exchanges-{self.name}.json").write_text(text + "\n")


def chat(**more: object) -> dict[str, object]:
    return {"model": MODEL, "messages": HELLO, "max_tokens": 12, "seed": 7, **more}


def text_ask(**more: object) -> dict[str, object]:
    return {"model": MODEL, "prompt": "A penstock is", "max_tokens": 12, "seed": 7, **more}


def running(recorder: Recorder) -> float:
    found = re.search(r"^vllm:num_requests_running\{.*\} (\S+)$", recorder.text("/metrics"), re.M)
    return float(found.group(1)) if found else -1.0


def wait_for_running(recorder: Recorder, wanted: float) -> None:
    deadline = time.monotonic() + 60
    while running(recorder) != wanted:
        if time.monotonic() > deadline:
            sys.exit(f"num_requests_running never became {wanted}")
        time.sleep(0.05)


def streams(recorder: Recorder) -> None:
    usage = {"include_usage": True}
    continuous = {"include_usage": True, "continuous_usage_stats": True}
    for name, options in (("bare", None), ("usage", usage), ("continuous", continuous)):
        more = {"stream": True} if options is None else {"stream": True, "stream_options": options}
        recorder.exchange(f"chat-stream-{name}", "POST", "/v1/chat/completions", chat(**more))
        recorder.exchange(f"completions-stream-{name}", "POST", "/v1/completions", text_ask(**more))
    recorder.exchange(
        "chat-stream-n2-logprobs",
        "POST",
        "/v1/chat/completions",
        chat(stream=True, n=2, logprobs=True, top_logprobs=1, max_tokens=4, stream_options=usage),
    )
    recorder.exchange(
        "chat-stream-stop", "POST", "/v1/chat/completions",
        chat(stream=True, logit_bias={"2": 100}, stream_options=usage),
    )


def unary(recorder: Recorder) -> None:
    recorder.exchange("chat", "POST", "/v1/chat/completions", chat())
    recorder.exchange("chat-cached", "POST", "/v1/chat/completions", chat(
        messages=[{"role": "user", "content": "Hello, how many tokens? " * 40}]))
    recorder.exchange("chat-cached-again", "POST", "/v1/chat/completions", chat(
        messages=[{"role": "user", "content": "Hello, how many tokens? " * 40}]))
    recorder.exchange("completions", "POST", "/v1/completions", text_ask())
    for path in ("/v1/models", "/health", "/version", "/load", "/ping"):
        recorder.exchange("get-" + path.strip("/").replace("/", "-"), "GET", path)
    recorder.exchange("tokenize", "POST", "/tokenize", {"model": MODEL, "prompt": "Hello"})


def refusals(recorder: Recorder) -> None:
    route = "/v1/chat/completions"
    long = [{"role": "user", "content": "Hello! " * 3000}]
    recorder.exchange("unknown-model", "POST", route, chat(model="nothing"))
    recorder.exchange("unknown-model-stream", "POST", route, chat(model="nothing", stream=True))
    recorder.exchange("context-too-long", "POST", route, chat(messages=long))
    recorder.exchange("context-too-long-stream", "POST", route, chat(messages=long, stream=True))
    recorder.exchange("max-tokens-too-large", "POST", route, chat(max_tokens=5000))
    recorder.exchange("max-tokens-zero", "POST", route, chat(max_tokens=0))
    recorder.exchange("bad-json", "POST", route, b'{"model": "tiny-qwen2", "messages": [')
    recorder.exchange("not-json-type", "POST", route, b"model=x", content_type="text/plain")
    recorder.exchange("wrong-type", "POST", route, chat(temperature="hot"))
    recorder.exchange("invalid-value", "POST", route, chat(temperature=-1))
    recorder.exchange("invalid-role", "POST", route, chat(messages=[{"role": "x"}]))
    recorder.exchange("unknown-field", "POST", route, chat(no_such_field=1, max_tokens=2))
    recorder.exchange("no-messages", "POST", route, {"model": MODEL})
    recorder.exchange("empty-messages", "POST", route, chat(messages=[]))
    recorder.exchange("stream-options-alone", "POST", route, chat(stream_options={
        "include_usage": True}))
    recorder.exchange("tools-without-parser", "POST", route, chat(tools=[{
        "type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        tool_choice="auto"))
    recorder.exchange("priority-without-policy", "POST", route, chat(priority=5))
    recorder.exchange("no-such-path", "POST", "/v1/nothing", {"a": 1})
    recorder.exchange("wrong-method", "GET", route)
    recorder.exchange("embeddings-of-a-generator", "POST", "/v1/embeddings", {
        "model": MODEL, "input": "Hello"})


def protocols(recorder: Recorder) -> None:
    """OpenAI's responses and Anthropic's messages, and what they refuse."""
    ask = {"model": MODEL, "input": "Hello", "max_output_tokens": 3}
    message = {"model": MODEL, "messages": HELLO, "max_tokens": 3}
    for path, body in (("/v1/responses", ask), ("/v1/messages", message)):
        name = path.rsplit("/", 1)[1]
        recorder.exchange(name, "POST", path, body)
        recorder.exchange(f"{name}-stream", "POST", path, {**body, "stream": True})
        recorder.exchange(f"{name}-unknown-model", "POST", path, {**body, "model": "nothing"})
        recorder.exchange(f"{name}-bare", "POST", path, {"model": MODEL})
        recorder.exchange(f"{name}-bad-json", "POST", path, b'{"model": "tiny-qwen2", ')
        recorder.exchange(f"{name}-too-long", "POST", path, {
            "model": MODEL, "max_tokens": 3, "max_output_tokens": 3, "input": "Hello! " * 3000,
            "messages": [{"role": "user", "content": "Hello! " * 3000}]})
    recorder.exchange("messages-zero", "POST", "/v1/messages", {**message, "max_tokens": 0})
    recorder.exchange("count-tokens", "POST", "/v1/messages/count_tokens", {
        "model": MODEL, "messages": HELLO})
    recorder.exchange("responses-get-unknown", "GET", "/v1/responses/resp_x")
    recorder.exchange("responses-cancel-unknown", "POST", "/v1/responses/resp_x/cancel")
    recorder.exchange("detokenize", "POST", "/detokenize", {"model": MODEL, "tokens": [1, 2, 3]})
    half = [*HELLO, {"role": "assistant", "content": "A pen"}]
    route = "/v1/chat/completions"
    more = {"messages": half, "continue_final_message": True}
    recorder.exchange("continue", "POST", route, chat(**more, add_generation_prompt=False))
    recorder.exchange("continue-refused", "POST", route, chat(**more))
    recorder.exchange("logprobs", "POST", route, chat(max_tokens=2, logprobs=True, top_logprobs=2))


def long_stream(recorder: Recorder, **more: object) -> socket.socket:
    ask = chat(stream=True, max_tokens=1900, ignore_eos=True, **more)
    body = json.dumps(ask).encode()
    link = recorder.open(
        "POST", "/v1/chat/completions", body, {"content-type": "application/json"}
    )
    link.recv(10)
    return link


def plain(recorder: Recorder) -> None:
    directory = recorder.directory
    (directory / "metrics-idle.txt").write_text(recorder.text("/metrics"))
    streams(recorder)
    unary(recorder)
    refusals(recorder)
    links = [long_stream(recorder, seed=seed) for seed in range(3)]
    wait_for_running(recorder, 3.0)
    (directory / "metrics-busy.txt").write_text(recorder.text("/metrics"))
    for link in links:
        link.close()
    wait_for_running(recorder, 0.0)
    (directory / "metrics-after-abort.txt").write_text(recorder.text("/metrics"))


def parsers(recorder: Recorder) -> None:
    route, usage = "/v1/chat/completions", {"include_usage": True}
    reply = recorder.exchange("tokenize-tag", "POST", "/tokenize", {
        "model": MODEL, "prompt": "</think>", "add_special_tokens": False})
    # Random weights would almost never close their thought: one token in ten or so is told to.
    nudge = {str(json.loads(reply.body)["tokens"][0]): 2.8}
    recorder.exchange("chat-reasoning-cut", "POST", route, chat())
    seed = thoughtful_seed(recorder, nudge)
    thought = chat(logit_bias=nudge, max_tokens=60, seed=seed)
    recorder.exchange("chat-reasoning", "POST", route, thought)
    recorder.exchange("chat-stream-reasoning-cut", "POST", route, chat(
        stream=True, stream_options=usage))
    recorder.exchange("chat-stream-reasoning", "POST", route, {
        **thought, "stream": True, "stream_options": usage})
    overload(recorder)


def thoughtful_seed(recorder: Recorder, nudge: dict[str, float]) -> int:
    """A seed with which the model both thinks and answers."""
    for seed in range(1, 100):
        ask = chat(logit_bias=nudge, max_tokens=60, seed=seed)
        fields = {"content-type": "application/json"}
        with recorder.open(
            "POST", "/v1/chat/completions", json.dumps(ask).encode(), fields
        ) as link:
            raw = b"".join(iter(lambda: link.recv(65536), b""))
        message = json.loads(Reply(raw).body)["choices"][0]["message"]
        if len(message["reasoning"] or "") > 10 and message["content"]:
            return seed
    sys.exit("no seed makes it both think and answer")


def tools(recorder: Recorder) -> None:
    """A named tool: the grammar makes even random weights write valid arguments."""
    route = "/v1/chat/completions"
    weather = {"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "enum": ["Paris"]}},
        "required": ["city"], "additionalProperties": False}, "strict": True}}
    named = {"type": "function", "function": {"name": "weather"}}
    for name, choice in (("named", named), ("required", "required")):
        ask = chat(tools=[weather], tool_choice=choice, max_tokens=600, temperature=1)
        recorder.exchange(f"chat-{name}", "POST", route, ask)
        recorder.exchange(f"chat-stream-{name}", "POST", route, {
            **ask, "stream": True, "stream_options": {"include_usage": True}})


def overload(recorder: Recorder) -> None:
    """Needs --max-num-seqs 1 --max-num-queued-reqs 2: one runs, one waits, a third is refused."""
    links = [long_stream(recorder)]
    wait_for_running(recorder, 1.0)
    waiting = recorder.open("POST", "/v1/chat/completions", json.dumps(
        chat(stream=True)).encode(), {"content-type": "application/json"})
    time.sleep(1)
    (recorder.directory / "metrics-queue-full.txt").write_text(recorder.text("/metrics"))
    recorder.exchange("queue-full", "POST", "/v1/chat/completions", chat())
    recorder.exchange("queue-full-stream", "POST", "/v1/chat/completions", chat(stream=True))
    for link in [*links, waiting]:
        link.close()
    wait_for_running(recorder, 0.0)


def fell(recorder: Recorder, pid: int, number: signal.Signals) -> None:
    """A stream and a plain request are open when the signal comes; then /health until it is gone."""
    path = "/v1/chat/completions"
    ask = chat(max_tokens=1900, ignore_eos=True)
    stream_ask = json.dumps({**ask, "stream": True}).encode()
    plain_ask = json.dumps(ask).encode()
    fields = {"content-type": "application/json"}
    stream = recorder.open("POST", path, stream_ask, fields)
    waiting = recorder.open("POST", path, plain_ask, fields)
    wait_for_running(recorder, 2.0)
    os.kill(pid, number)
    for name, link, body in (("stream", stream, stream_ask), ("unary", waiting, plain_ask)):
        raw = b""
        try:
            while piece := link.recv(65536):
                raw += piece
        except ConnectionResetError:
            print(f"{name}: connection reset")
        if raw:
            request = {"method": "POST", "path": path, "headers": fields, "body": body}
            recorder.keep(name, request, Reply(raw))
        else:
            print(f"{name}: closed without a byte")
    for attempt in range(50):
        try:
            recorder.exchange(f"health-{attempt}", "GET", "/health")
        except (ConnectionError, IndexError) as error:
            print(f"health-{attempt}: {type(error).__name__}")
            return
        time.sleep(0.2)


def main() -> None:
    base, directory, name = sys.argv[1:4]
    Path(directory).mkdir(parents=True, exist_ok=True)
    recorder = Recorder(base, Path(directory), name)
    if name in ("death", "stop"):
        fell(recorder, int(sys.argv[4]), signal.SIGKILL if name == "death" else signal.SIGTERM)
    else:
        sets = {"plain": plain, "protocols": protocols, "parsers": parsers, "tools": tools}
        sets[name](recorder)
    recorder.save()


if __name__ == "__main__":
    main()
