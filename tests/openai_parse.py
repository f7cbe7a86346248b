"""Reads answers with the official openai package, as other clients than Codex do.

    openai_parse.py            every tests/golden/streams/*/*/responses.sse, and the keep-alive event
    openai_parse.py FILE…      these files; one that ends in `.json` holds what `POST /v1/responses/compact` answered
    openai_parse.py --keepalives   which events the package lets stand between two others, as a table

Each file is served on loopback and read thrice: event by event against the package's own types, strictly; through
`responses.create(stream=True)`; and through the accumulator of `responses.stream()`. Ends with `N passed, N failed`.
"""

import http.server
import json
import pathlib
import sys
import threading
import typing

import openai
import pydantic
from openai.types.responses import CompactedResponse, ResponseCompactionItem, ResponseStreamEvent, ResponseUsage

ROOT = pathlib.Path(__file__).resolve().parent
TERMINAL = ("response.completed", "response.failed", "response.incomplete")
TYPES = {
    name: model
    for model in typing.get_args(typing.get_args(ResponseStreamEvent)[0])
    for name in typing.get_args(model.model_fields["type"].annotation)
}
KNOWN = tuple(set(TYPES.values()))


class Replay(http.server.BaseHTTPRequestHandler):
    """Answers each POST with the class's bytes."""

    body = b""
    kind = "text/event-stream"
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", self.kind)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


def frames(body):
    """The JSON of each frame, in order."""
    for frame in body.decode().replace("\r\n", "\n").split("\n\n"):
        data = "\n".join(line[5:].strip() for line in frame.split("\n") if line.startswith("data:"))
        if data and data != "[DONE]":
            yield json.loads(data)


def joined_text(events):
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


# The API gives this code and Codex acts on it; the package's list of codes does not have it and passes it on as text.
CODE_BEYOND = (("response", "error", "code"), "context_length_exceeded")


def check_events(body):
    """Strictly: every event is of a type the package declares, complete, and numbered in order."""
    events = list(frames(body))
    for event in events:
        model = TYPES.get(event["type"])
        assert model is not None, f"the package has no event {event['type']}"
        try:
            model.model_validate(event, strict=True)
        except pydantic.ValidationError as error:
            wrong = {(".".join(map(str, e["loc"])), e["type"]) for e in error.errors()
                     if (e["loc"], e["input"]) != CODE_BEYOND}
            if not wrong:
                continue
            raise AssertionError(f"{event['type']}: {sorted(wrong)[:12]}") from None
    # A keep-alive in a relayed answer repeats the number before it, since the host's own go on.
    numbers = [
        event["sequence_number"] for at, event in enumerate(events)
        if not at or event["type"] != "response.in_progress"
        or event["sequence_number"] != events[at - 1]["sequence_number"]
    ]
    assert numbers == list(range(len(numbers))), f"sequence numbers {numbers}"
    ends = [at for at, event in enumerate(events) if event["type"] in TERMINAL]
    assert ends == [len(events) - 1], f"one terminal event, at the end: {ends} of {len(events)}"


def check_create(client, body):
    """`create(stream=True)` gives as many events, each of a declared class."""
    expected = list(frames(body))
    got = list(client.responses.create(model="m", input="i", stream=True))
    assert len(got) == len(expected), f"{len(got)} events of {len(expected)}"
    for event, raw in zip(got, expected):
        assert isinstance(event, KNOWN), f"{raw['type']} came as {type(event).__name__}"
        assert event.type == raw["type"]


def check_stream(client, body):
    """`stream()` accumulates to the same text, and its final answer says what the deltas said."""
    expected = list(frames(body))
    with client.responses.stream(model="m", input="i") as stream:
        got = list(stream)
        assert got[-1].type == expected[-1]["type"]
        if got[-1].type == "response.completed":
            final = stream.get_final_response()
        else:
            # Only a completed answer is final to the package; the others are told by their event.
            final = got[-1].response
    if got[-1].type != "response.failed":
        assert final.output_text == joined_text(expected), f"{final.output_text!r} is not the joined deltas"
    for item in final.output:
        if item.type == "function_call":
            deltas = [e["delta"] for e in expected
                      if e["type"] == "response.function_call_arguments.delta" and e["item_id"] == item.id]
            assert "".join(deltas) == item.arguments, f"arguments of {item.call_id}"


def check_compacted(client, body):
    """`compact()` gives all of it; what the package's types say of it holds strictly."""
    raw = json.loads(body)
    got = client.responses.compact(model="m", input="i")
    assert isinstance(got, CompactedResponse) and got.object == "response.compaction", got
    assert isinstance(got.id, str) and isinstance(got.created_at, int), got
    ResponseUsage.model_validate(raw["usage"], strict=True)
    *users, last = raw["output"]
    ResponseCompactionItem.model_validate(last, strict=True)
    assert isinstance(got.output[-1], ResponseCompactionItem), type(got.output[-1])
    assert users and all(item["role"] == "user" for item in users), users
    assert len(got.output) == len(raw["output"])


def sse(events):
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def response(status, output=()):
    usage = {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
             "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2}
    return {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": status, "error": None,
            "incomplete_details": None, "instructions": None, "metadata": {}, "output": list(output),
            "parallel_tool_calls": True, "temperature": None, "tool_choice": "auto", "tools": [], "top_p": None,
            "usage": usage if status == "completed" else None}


def sample(keepalive=None, before_created=False):
    """A short answer with a keep-alive in each gap."""
    part = {"type": "output_text", "text": "", "annotations": []}
    full = part | {"text": "Hello"}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    done = item | {"status": "completed", "content": [full]}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events = [
        {"type": "response.created", "response": response("in_progress")},
        {"type": "response.in_progress", "response": response("in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **at, "part": part},
        {"type": "response.output_text.delta", **at, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", **at, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", **at, "text": "Hello", "logprobs": []},
        {"type": "response.content_part.done", **at, "part": full},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": response("completed", [done])},
    ]
    if keepalive:
        spread = [keepalive] if before_created else []
        for event in events:
            spread += [event, keepalive]
        events = spread[:-1]
    return [dict(event, sequence_number=number) for number, event in enumerate(events)]


KEEPALIVES = {
    "response.in_progress, whole response": {"type": "response.in_progress", "response": response("in_progress")},
    "response.in_progress, only id and status": {
        "type": "response.in_progress", "response": {"id": "resp_1", "status": "in_progress"}},
    "response.in_progress, no response": {"type": "response.in_progress"},
    "keepalive": {"type": "keepalive"},
    "response.keepalive": {"type": "response.keepalive"},
    "ping": {"type": "ping"},
    "response.output_text.delta, empty": {
        "type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": "",
        "logprobs": []},
}


def keepalive_table(client):
    print("| event | strict types | create(stream=True) | stream() | stream(), also before created |")
    print("| --- | --- | --- | --- | --- |")
    for name, event in KEEPALIVES.items():
        cells = []
        for check, early in ((check_events, False), (check_create, False), (check_stream, False), (check_stream, True)):
            Replay.body = sse(sample(event, early))
            try:
                check(Replay.body) if check is check_events else check(client, Replay.body)
                cells.append("yes")
            except Exception as error:
                cells.append("no: " + str(error).split("\n")[0][:80].replace("|", "/"))
        print(f"| {name} | " + " | ".join(cells) + " |")


def main(arguments):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base_url = f"http://127.0.0.1:{server.server_port}/v1"
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=10)
    if arguments == ["--keepalives"]:
        keepalive_table(client)
        return True
    files = [pathlib.Path(name) for name in arguments] or sorted(ROOT.glob("golden/streams/*/*/responses.sse"))
    bodies = [(str(file), file.read_bytes()) for file in files]
    if not arguments:
        bodies.append(("built in: keep-alives in every gap", sse(sample(KEEPALIVES["response.in_progress, whole response"]))))
    passed = failed = 0
    for name, body in bodies:
        Replay.body = body
        checks = [lambda: check_events(body), lambda: check_create(client, body), lambda: check_stream(client, body)]
        Replay.kind = "text/event-stream"
        if name.endswith(".json"):
            checks = [lambda: check_compacted(client, body)]
            Replay.kind = "application/json"
        for check in checks:
            try:
                check()
                passed += 1
            except Exception as error:
                failed += 1
                print(f"FAILED {name}: {type(error).__name__}: {error}")
    print(f"openai {openai.__version__}, pydantic {pydantic.VERSION}: {len(bodies)} streams")
    print(f"{passed} passed, {failed} failed")
    return failed == 0


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
