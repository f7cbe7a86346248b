"""Holds the Messages codec against the official anthropic package: its types for requests, its reader for answers.

    anthropic_parse.py         every tests/golden/requests/*/messages.*.json and tests/golden/streams/messages/*, and what
                               tests/it/matrix.rs left in target/matrix/*.messages.json
    anthropic_parse.py FILE…   these requests, these cases' directories

A request must be of the package's type `MessageCreateParamsStreaming`, without a key that the type does not have. An
answer is served on loopback and read with `messages.stream()` (or `create()`, where it comes whole): where the package
has no complaint and `responses.sse` says `completed`, both must have read the same; where the package raises, ours must
not be complete. Ends with `N passed, N failed`.
"""

import http.server
import json
import pathlib
import sys
import threading
import typing
import warnings

import anthropic
import typing_extensions
from anthropic.types import message_create_params

ROOT = pathlib.Path(__file__).resolve().parent
REQUEST = message_create_params.MessageCreateParamsStreaming

# Answers that hosts send and the package does not read, though the codec does.
BEYOND = {
    "after-the-end": "the package reads on behind the end",
    "call-input-in-start": "the package keeps a start's input as it is",
    "call-index-reused": "the package takes the index for a place in the list",
    "call-id-twice": "the package passes ids on as they are",
    "call-invalid-json": "the package refuses the arguments",
    "unknown-events": "the package knows fewer blocks",
    "without-block-start": "the package takes the index for a place in the list",
    "without-event-lines": "the package goes by the event's name",
    "signature-in-pieces": "the package keeps the last piece",
    "usage-none": "the package wants counts",
    "whole-stream": "the package goes by the content type",
}


# The codec writes for `anthropic-version: 2023-06-01`, the package for the next one, which has dropped these.
OLDER = {"temperature": float, "top_p": float}


def check(value, kind, where=""):
    """What is wrong with a value of a request, as a list of words."""
    kind = unwrapped(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (object, typing.Any):
        return []
    if kind is None or kind is type(None):
        return [] if value is None else [f"{where}: not null"]
    if origin is typing.Literal:
        return [] if value in arguments else [f"{where}: {value!r} is none of {arguments}"]
    if is_union(origin):
        tried = [check(value, option, where) for option in arguments]
        # The option that comes nearest tells most.
        return min(tried, key=lambda wrong: (len(wrong), -max(map(len, wrong), default=0)))
    if typing_extensions.is_typeddict(kind):
        if not isinstance(value, dict):
            return [f"{where}: no object"]
        hints = typing_extensions.get_type_hints(kind, include_extras=True)
        extra = (getattr(kind, "__pydantic_config__", None) or {}).get("extra")
        wrong = [f"{where}.{key}: unknown" for key in value if key not in hints and extra != "allow"]
        wrong += [f"{where}.{key}: missing" for key in kind.__required_keys__ if key not in value]
        for key in value:
            if key in hints:
                wrong += check(value[key], hints[key], f"{where}.{key}")
        return wrong
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{where}: no object"]
        return [w for key in value for w in check(value[key], arguments[1], f"{where}.{key}")]
    if origin is not None and arguments:
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [w for n, item in enumerate(value) for w in check(item, arguments[0], f"{where}[{n}]")]
    if kind is float:
        return [] if isinstance(value, (int, float)) and not isinstance(value, bool) else [f"{where}: no number"]
    if kind in (str, int, bool):
        return [] if type(value) is kind else [f"{where}: no {kind.__name__}"]
    return [f"{where}: not of {kind}"]


def unwrapped(kind):
    """Without `Required`, `Annotated` and the names of aliases."""
    while True:
        if typing.get_origin(kind) in (typing_extensions.Required, typing_extensions.NotRequired, typing.Required,
                                       typing.NotRequired, typing_extensions.Annotated, typing.Annotated):
            kind = typing.get_args(kind)[0]
        elif isinstance(kind, typing_extensions.TypeAliasType):
            kind = kind.__value__
        else:
            return kind


def is_union(origin):
    import types
    return origin in (typing.Union, getattr(types, "UnionType", None))


def check_request(file):
    body = json.loads(file.read_text())
    older = {key: body.pop(key) for key in OLDER if key in body}
    wrong = check(body, REQUEST) + [w for key, value in older.items() for w in check(value, OLDER[key], key)]
    assert not wrong, "; ".join(wrong[:6])


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


def ours(case):
    """The terminal event of what the client was given."""
    frames = (case / "responses.sse").read_text().split("\n\n")
    return json.loads([frame for frame in frames if frame][-1].split("data: ", 1)[1])


def read(client, case):
    """The package's message."""
    ask = {"model": "claude-opus-5-5", "max_tokens": 16, "messages": [{"role": "user", "content": "hi"}]}
    whole = case / "upstream.json"
    if whole.exists():
        Replay.body, Replay.kind = whole.read_bytes(), "application/json"
        return client.messages.create(**ask)
    Replay.body, Replay.kind = (case / "upstream.sse").read_bytes(), "text/event-stream"
    with client.messages.stream(**ask) as stream:
        return stream.get_final_message()


def check_answer(client, case):
    terminal = ours(case)
    complete = terminal["type"] == "response.completed"
    try:
        message = read(client, case)
        assert message.stop_reason is not None or message.content, "nothing was read"
    except Exception as error:
        assert not complete or case.name in BEYOND, f"the package raises {type(error).__name__}: {error}"
        return
    if not complete or case.name in BEYOND:
        return
    output = terminal["response"]["output"]
    of = lambda kind: [item for item in output if item["type"] == kind]
    blocks = lambda kind: [block for block in message.content if block.type == kind]
    text = "".join(part["text"] for item in of("message") for part in item["content"])
    assert text == "".join(block.text for block in blocks("text")), "another text"
    thoughts = "".join(part["text"] for item in of("reasoning") for part in item["summary"])
    assert thoughts == "".join(block.thinking for block in blocks("thinking")), "other thoughts"
    kept = [item for item in of("reasoning") if item.get("encrypted_content")]
    sealed = [b for b in blocks("thinking") if b.signature] + blocks("redacted_thinking")
    assert len(kept) >= len(sealed), "a signature was lost"
    calls = [item for item in output if item["type"].endswith("_call")]
    assert [item["call_id"] for item in calls] == [block.id for block in blocks("tool_use")], "other calls"
    for item, block in zip(calls, blocks("tool_use")):
        given = item["input"] if "input" in item else item["arguments"]
        expected = block.input["input"] if "input" in item else block.input
        assert (json.loads(given) if isinstance(given, str) and "input" not in item else given) == expected, "other arguments"
    usage, counted = terminal["response"]["usage"], message.usage
    if "estimated" not in usage:
        read_in = counted.input_tokens + (counted.cache_read_input_tokens or 0) + (counted.cache_creation_input_tokens or 0)
        assert (usage["input_tokens"], usage["output_tokens"]) == (read_in, counted.output_tokens), "other counts"
    order = {"thinking": "reasoning", "redacted_thinking": "reasoning", "text": "message"}
    expected = [order.get(b.type, "call") for b in message.content if b.type in (*order, "tool_use") and getattr(b, "text", "x")]
    assert [("call" if item["type"].endswith("_call") else item["type"]) for item in output] == expected, "another order"


def main(arguments):
    warnings.simplefilter("ignore")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base_url = f"http://127.0.0.1:{server.server_port}"
    client = anthropic.Anthropic(base_url=base_url, api_key="none", max_retries=0, timeout=10)
    named = [pathlib.Path(name) for name in arguments]
    requests = [path for path in named if path.is_file()] or sorted(
        [*ROOT.glob("golden/requests/*/messages.*.json"), *ROOT.parent.glob("target/matrix/*.messages.json")])
    cases = [path for path in named if path.is_dir()] or sorted(ROOT.glob("golden/streams/messages/*/"))
    if named:
        requests, cases = [p for p in requests if p in named], [p for p in cases if p in named]
    passed = failed = 0
    checks = [(file, lambda file=file: check_request(file)) for file in requests]
    checks += [(case, lambda case=case: check_answer(client, case)) for case in cases]
    for name, run in checks:
        try:
            run()
            passed += 1
        except Exception as error:
            failed += 1
            print(f"FAILED {name}: {type(error).__name__}: {error}")
    print(f"anthropic {anthropic.__version__}: {len(requests)} requests, {len(cases)} answers")
    print(f"{passed} passed, {failed} failed")
    return failed == 0 and passed > 0


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
