"""What Penstock does around a real engine: `check.py GATEWAY CONSOLE ENGINE KEY ADMIN_KEY MODEL`.

The official client streams through the gateway; the console and the engine's own /metrics are asked
what they saw. Runs test/clients/python_client.py first, then its own checks.
"""

import json
import re
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test" / "clients"))
import python_client  # noqa: E402
from python_client import HELLO, Subject, check, expect  # noqa: E402

PATIENCE_SECONDS = 60
LONG = {"messages": HELLO, "max_tokens": 1900, "stream": True, "extra_body": {"ignore_eos": True}}


class Rig:
    """The three addresses, filled from the command line before the checks run."""

    gateway = console = engine = admin_key = model = ""


def get(url: str, key: str = "") -> str:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as reply:
        return reply.read().decode()


def admin(path: str) -> dict[str, object]:
    return json.loads(get(f"{Rig.console}/admin/v1/{path}", Rig.admin_key))


def engine_metric(name: str, label: str = "") -> float:
    """Sum over the series of one name whose labels contain `label`, at the engine itself."""
    pattern = rf"^vllm:{name}\{{[^}}]*{re.escape(label)}[^}}]*\}} (\S+)$"
    return sum(float(value) for value in re.findall(pattern, get(f"{Rig.engine}/metrics"), re.M))


def wait_until(saying: str, fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not fact():
        expect(time.monotonic() < deadline, f"after {PATIENCE_SECONDS} s still not: {saying}")
        time.sleep(0.05)


def replica() -> dict[str, object]:
    deployments = [each for each in admin("fleet")["deployments"] if each["name"] == Rig.model]
    expect(len(deployments) == 1, f"the fleet shows {len(deployments)} deployments of the name")
    return deployments[0]["replicas"][0]


def signal(name: str) -> float | None:
    reading = replica()["signals"].get(name)
    return None if reading is None else reading["value"]


def stream_that_runs(subject: Subject) -> "tuple[python_client.openai.Stream, float]":
    """A stream that the engine is still at, and the tokens it had made before. On a busy machine a
    tiny model's answer may come in one burst, over before anybody could leave: then the next one."""
    for _ in range(20):
        before = engine_metric("generation_tokens_total")
        stream = subject.client.chat.completions.create(model=subject.model, **LONG)
        for _, _ in zip(range(3), stream):
            pass
        if engine_metric("num_requests_running") == 1:
            return stream, before
        stream.close()
        wait_until("the engine runs nothing", lambda: engine_metric("num_requests_running") == 0)
    raise AssertionError("none of 20 streams was seen running at the engine")


@check("abort: a client that leaves in mid-stream frees the engine, and no token is made for it")
def abort_stream(subject: Subject) -> None:
    stream, before = stream_that_runs(subject)
    stream.close()
    wait_until("the engine runs nothing", lambda: engine_metric("num_requests_running") == 0)
    # Not request_success_total{finished_reason="abort"}: vLLM does not count a client's leaving.
    made = engine_metric("generation_tokens_total")
    expect(made - before < LONG["max_tokens"] - 100, f"{made - before} tokens were made")
    time.sleep(1)
    expect(engine_metric("generation_tokens_total") == made, "it went on making tokens")


@check("abort: a client that leaves before the answer to a plain request frees the engine")
def abort_unary(subject: Subject) -> None:
    client = subject.client.with_options(timeout=1.0)
    try:
        client.chat.completions.create(model=subject.model, **{**LONG, "stream": False})
    except python_client.openai.APITimeoutError:
        pass
    wait_until("the engine runs nothing", lambda: engine_metric("num_requests_running") == 0)


@check("console: the replica is ready, on a node that is not rehearsed")
def fleet_ready(_: Subject) -> None:
    fleet = admin("fleet")
    expect(fleet["rehearsal"] is False, "the fleet says rehearsal")
    expect(replica()["state"] == "ready", f"state {replica()['state']}")


@check("console: the engine's signals, with the engine's own figures")
def fleet_signals(_: Subject) -> None:
    expect(signal("kvCapacityTokens") == engine_metric_label(), "another KV capacity")
    for name, metric in (
        ("generationTokensTotal", "generation_tokens_total"),
        ("promptTokensTotal", "prompt_tokens_total"),
        ("stepsTotal", "iteration_tokens_total_count"),
    ):
        expect(engine_metric(metric) > 0, f"the engine counts no {metric}")
        wait_until(f"{name} as the engine", lambda: signal(name) == engine_metric(metric))
    expect(signal("requestsWaiting") == 0, f"{signal('requestsWaiting')} waiting")


def engine_metric_label() -> float:
    found = re.search(r'kv_cache_size_tokens="(\d+)"', get(f"{Rig.engine}/metrics"))
    return float(found.group(1)) if found else -1.0


@check("console: a running stream shows as running, and goes")
def fleet_running(subject: Subject) -> None:
    seen = threading.Event()

    # One answer is over in seconds and the console reads every few: one follows the other.
    def keep_busy() -> None:
        while not seen.is_set():
            with subject.client.chat.completions.create(model=subject.model, **LONG) as stream:
                for _ in stream:
                    if seen.is_set():
                        return

    readers = [threading.Thread(target=keep_busy, daemon=True) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        wait_until("requestsRunning above 0", lambda: (signal("requestsRunning") or 0) > 0)
    finally:
        seen.set()
        for reader in readers:
            reader.join(PATIENCE_SECONDS)
    wait_until("requestsRunning 0", lambda: signal("requestsRunning") == 0)


@check("console: the last requests, with tokens and who answered")
def requests_seen(subject: Subject) -> None:
    answer = subject.client.chat.completions.create(
        model=subject.model, messages=HELLO, max_tokens=7, extra_body={"ignore_eos": True}
    )
    expect(answer.usage.completion_tokens == 7, "not seven tokens")

    def reported() -> bool:
        newest = [
            each for each in admin("requests")["requests"] if each["completionTokens"] == 7
        ]
        return bool(newest) and newest[0]["modelServed"] == subject.model

    wait_until("the request is reported", reported)


@check("console: the page, and /metrics with penstock_ families and no engine's own names")
def exported(_: Subject) -> None:
    expect("<html" in get(f"{Rig.console}/").lower(), "no page at /")
    text = get(f"{Rig.console}/metrics")
    expect("\npenstock_" in text or text.startswith("penstock_"), "no penstock_ family")
    expect("vllm:" not in text, "an engine's own name is exported")


def main() -> None:
    if len(sys.argv) != 7:
        sys.exit("usage: check.py GATEWAY CONSOLE ENGINE KEY ADMIN_KEY MODEL")
    Rig.gateway, Rig.console, Rig.engine, key, Rig.admin_key, Rig.model = sys.argv[1:7]
    _, failed = python_client.run(Subject(f"{Rig.gateway}/v1", key, Rig.model))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
