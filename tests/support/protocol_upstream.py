"""A scripted provider that speaks all four protocols on one port, for tests/protocols.sh.

    protocol_upstream.py PORT TRANSCRIPT

The path of a request tells the protocol, its model what is played. A model whose name ends with `-fails-CASE` (the keys of
`errors` below) gets that error in the vendor's words; with `-once` behind it only the first time. Any other model goes
through one script: two commands side by side, then a patch, then the end of the turn; a further turn gets one answer more.
Each step checks what it is sent (key, picture, results in order, thoughts as they were given) and refuses with 400 and a
word what is not so. TRANSCRIPT gets a line for each request: protocol, case or step, status, and what was wrong.
"""
import base64
import http.server
import json
import sys
import threading

PORT, TRANSCRIPT = int(sys.argv[1]), sys.argv[2]
KEY = "sk-scripted-key"
PATCH = "*** Begin Patch\n*** Add File: patched.txt\n+one \"größe\"\n*** End Patch\n"
USAGE = (100, 60, 20)  # read, of these from a cache, written
lock = threading.Lock()
seen = {}


class Wrong(Exception):
    """What is not as it should be."""


def want(truth, what):
    if not truth:
        raise Wrong(what)


def frame(event, named=True):
    head = f"event: {event['type']}\n" if named else ""
    return f"{head}data: {json.dumps(event)}\n\n"


def error(status, message, kind="invalid_request_error", code=None):
    return status, {"error": {"message": message, "type": kind, "code": code}}


class Responses:
    name, path = "responses", "/v1/responses"
    key = ("authorization", "Bearer " + KEY)
    errors = {
        "credentials": error(401, "Incorrect API key provided: SCRIPTED.", code="invalid_api_key"),
        "budget": error(429, "You exceeded your current quota, SCRIPTED.", "insufficient_quota", "insufficient_quota"),
        "rate": error(429, "Rate limit reached, SCRIPTED.", "requests", "rate_limit_exceeded"),
        "server": error(500, "The server had an error, SCRIPTED.", "server_error", "server_error"),
        "overload": error(503, "The engine is currently overloaded, SCRIPTED.", "server_error", "server_is_overloaded"),
        "context": error(400, "Your input exceeds the context window, SCRIPTED.", code="context_length_exceeded"),
        "bad": error(400, "Invalid value for 'input', SCRIPTED.", code="invalid_value"),
    }

    def read(self, body):
        items = body["input"]
        outputs = [i for i in items if i["type"].endswith("_call_output")]
        parts = [p for i in items if i["type"] == "message" for p in i["content"]]
        return {
            "results": [(i["call_id"], json.dumps(i["output"])) for i in outputs],
            "thoughts": [(i["summary"][0]["text"], i["encrypted_content"]) for i in items if i["type"] == "reasoning"],
            "pictures": sum(p["type"] == "input_image" for p in parts),
        }

    def items(self, step):
        thought, seal, text, calls = step
        n = seal[-1]
        yield {"type": "reasoning", "id": f"rs_{n}", "summary": [{"type": "summary_text", "text": thought}],
               "encrypted_content": seal}
        yield {"type": "message", "id": f"msg_{n}", "role": "assistant", "status": "completed",
               "content": [{"type": "output_text", "text": text, "annotations": []}]}
        for call_id, tool, argument in calls:
            if tool == "apply_patch":
                yield {"type": "custom_tool_call", "id": "ctc_" + call_id, "call_id": call_id, "name": tool,
                       "status": "completed", "input": argument}
            else:
                yield {"type": "function_call", "id": "fc_" + call_id, "call_id": call_id, "name": tool,
                       "status": "completed", "arguments": json.dumps({"cmd": argument})}

    def stream(self, step):
        yield frame({"type": "response.created", "response": {"id": "resp_1"}})
        for n, item in enumerate(self.items(step)):
            yield frame({"type": "response.output_item.done", "output_index": n, "item": item})
        read, cached, written = USAGE
        yield frame({"type": "response.completed", "response": {"id": "resp_1", "usage": {
            "input_tokens": read, "input_tokens_details": {"cached_tokens": cached}, "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 5}, "total_tokens": read + written}}})


class Chat:
    name, path = "chat", "/v1/chat/completions"
    key = ("authorization", "Bearer " + KEY)
    errors = {
        "credentials": error(401, "No auth credentials found, SCRIPTED.", code="invalid_api_key"),
        "budget": error(402, "Insufficient Balance, SCRIPTED."),
        "rate": error(429, "Rate limit exceeded, SCRIPTED.", "rate_limit_error"),
        "server": error(500, "Internal Server Error, SCRIPTED.", "server_error"),
        "overload": error(503, "The model is overloaded, SCRIPTED.", "server_error"),
        "context": error(400, "This model's maximum context length is 8192 tokens, SCRIPTED.",
                         code="context_length_exceeded"),
        "bad": error(400, "Invalid value for 'messages', SCRIPTED."),
    }

    def details(self, thought, seal):
        return [{"type": "reasoning.summary", "summary": thought, "format": "openai-responses-v1", "index": 0},
                {"type": "reasoning.encrypted", "data": seal, "format": "openai-responses-v1", "index": 1}]

    def read(self, body):
        messages = body["messages"]
        details = [m["reasoning_details"] for m in messages if "reasoning_details" in m]
        parts = [p for m in messages if isinstance(m.get("content"), list) for p in m["content"]]
        for m, following in zip(messages, messages[1:] + [{}]):
            want(not m.get("tool_calls") or following.get("role") == "tool", "a call without its result")
        return {
            "results": [(m["tool_call_id"], m["content"]) for m in messages if m["role"] == "tool"],
            "thoughts": [(d[0]["summary"], d[1]["data"]) for d in details if d == self.details(d[0]["summary"], d[1]["data"])],
            "pictures": sum(p["type"] == "image_url" for p in parts),
        }

    def chunk(self, delta, reason=None):
        return frame({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                      "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}, named=False)

    def stream(self, step):
        thought, seal, text, calls = step
        yield self.chunk({"role": "assistant", "content": "", "reasoning": thought,
                          "reasoning_details": self.details(thought, seal)})
        yield self.chunk({"content": text})
        for n, (call_id, tool, argument) in enumerate(calls):
            arguments = json.dumps({"input" if tool == "apply_patch" else "cmd": argument})
            yield self.chunk({"tool_calls": [{"index": n, "id": call_id, "type": "function",
                                              "function": {"name": tool, "arguments": ""}}]})
            for at in range(0, len(arguments), 9):
                yield self.chunk({"tool_calls": [{"index": n, "function": {"arguments": arguments[at:at + 9]}}]})
        yield self.chunk({}, "tool_calls" if calls else "stop")
        read, cached, written = USAGE
        yield frame({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
                     "usage": {"prompt_tokens": read, "prompt_tokens_details": {"cached_tokens": cached},
                               "completion_tokens": written, "total_tokens": read + written}}, named=False)
        yield "data: [DONE]\n\n"


def anthropic(status, kind, message):
    return status, {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


class Messages:
    name, path = "messages", "/v1/messages"
    key = ("x-api-key", KEY)
    errors = {
        "credentials": anthropic(401, "authentication_error", "invalid x-api-key, SCRIPTED"),
        "budget": anthropic(400, "invalid_request_error", "Your credit balance is too low, SCRIPTED."),
        "rate": anthropic(429, "rate_limit_error", "This request would exceed your rate limit, SCRIPTED."),
        "server": anthropic(500, "api_error", "Internal server error, SCRIPTED"),
        "overload": anthropic(529, "overloaded_error", "Overloaded, SCRIPTED"),
        "context": anthropic(400, "invalid_request_error", "prompt is too long: 214343 tokens > 200000 maximum, SCRIPTED"),
        "bad": anthropic(400, "invalid_request_error", "messages: SCRIPTED"),
    }

    def read(self, body):
        messages = body["messages"]
        roles = [m["role"] for m in messages]
        want(roles[0] == "user" and all(a != b for a, b in zip(roles, roles[1:])), "roles do not alternate")
        blocks = [b for m in messages for b in m["content"]]
        for m, following in zip(messages, messages[1:] + [{"content": []}]):
            called = [b["id"] for b in m["content"] if b["type"] == "tool_use"]
            answered = [b["tool_use_id"] for b in following["content"] if b["type"] == "tool_result"]
            want(called == answered, f"calls {called} are answered by {answered}")
        return {
            "results": [(b["tool_use_id"], json.dumps(b["content"])) for b in blocks if b["type"] == "tool_result"],
            "thoughts": [(b["thinking"], b["signature"]) for b in blocks if b["type"] == "thinking"],
            "pictures": sum(b["type"] == "image" for b in blocks),
        }

    def block(self, n, start, deltas):
        yield frame({"type": "content_block_start", "index": n, "content_block": start})
        for delta in deltas:
            yield frame({"type": "content_block_delta", "index": n, "delta": delta})
        yield frame({"type": "content_block_stop", "index": n})

    def stream(self, step):
        thought, seal, text, calls = step
        read, cached, written = USAGE
        usage = {"input_tokens": read - cached, "cache_read_input_tokens": cached, "cache_creation_input_tokens": 0,
                 "output_tokens": 1}
        yield frame({"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": usage}})
        yield from self.block(0, {"type": "thinking", "thinking": "", "signature": ""},
                              [{"type": "thinking_delta", "thinking": thought},
                               {"type": "signature_delta", "signature": seal}])
        yield from self.block(1, {"type": "text", "text": ""}, [{"type": "text_delta", "text": text}])
        for n, (call_id, tool, argument) in enumerate(calls):
            arguments = json.dumps({"input" if tool == "apply_patch" else "cmd": argument})
            pieces = [arguments[at:at + 9] for at in range(0, len(arguments), 9)]
            yield from self.block(2 + n, {"type": "tool_use", "id": call_id, "name": tool, "input": {}},
                                  [{"type": "input_json_delta", "partial_json": piece} for piece in pieces])
        yield frame({"type": "message_delta", "usage": {"output_tokens": written},
                     "delta": {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}})
        yield frame({"type": "message_stop"})


def google(code, status, message):
    return code, {"error": {"code": code, "message": message, "status": status}}


class Gemini:
    name, path = "gemini", "/v1beta/models/"
    key = ("x-goog-api-key", KEY)
    errors = {
        "credentials": google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key. SCRIPTED"),
        "budget": google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing "
                                                    "details. SCRIPTED"),
        "rate": google(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted, SCRIPTED. Please retry in 1s."),
        "server": google(500, "INTERNAL", "An internal error has occurred. SCRIPTED"),
        "overload": google(503, "UNAVAILABLE", "The model is overloaded. SCRIPTED"),
        "context": google(400, "INVALID_ARGUMENT", "The input token count (2000000) exceeds the maximum number of tokens "
                                                   "allowed (1048576). SCRIPTED"),
        "bad": google(400, "INVALID_ARGUMENT", "Invalid value at 'contents'. SCRIPTED"),
    }

    def read(self, body):
        contents = body["contents"]
        roles = [c["role"] for c in contents]
        want(roles[0] == "user" and all(a != b for a, b in zip(roles, roles[1:])), "roles do not alternate")
        parts = [p for c in contents for p in c["parts"]]
        for c, following in zip(contents, contents[1:] + [{"parts": []}]):
            called = [p["functionCall"]["id"] for p in c["parts"] if "functionCall" in p]
            answered = [p["functionResponse"]["id"] for p in following["parts"] if "functionResponse" in p]
            want(called == answered, f"calls {called} are answered by {answered}")
        answers = [p["functionResponse"] for p in parts if "functionResponse" in p]
        return {
            "results": [(a["id"], json.dumps(a["response"])) for a in answers],
            # The text of thoughts is not signed and does not come back.
            "thoughts": [(None, p["thoughtSignature"]) for p in parts if "thoughtSignature" in p],
            "pictures": sum("inlineData" in p for p in parts),
        }

    def chunk(self, parts, reason=None):
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
        if reason:
            candidate["finishReason"] = reason
        read, cached, written = USAGE
        return frame({"candidates": [candidate], "modelVersion": "m", "responseId": "r-1", "usageMetadata": {
            "promptTokenCount": read, "cachedContentTokenCount": cached, "candidatesTokenCount": written - 5,
            "thoughtsTokenCount": 5, "totalTokenCount": read + written}}, named=False)

    def stream(self, step):
        thought, seal, text, calls = step
        yield self.chunk([{"text": thought, "thought": True}])
        yield self.chunk([{"text": text} if calls else {"text": text, "thoughtSignature": seal}])
        for n, (call_id, tool, argument) in enumerate(calls):
            args = {"input" if tool == "apply_patch" else "cmd": argument}
            part = {"functionCall": {"id": call_id, "name": tool, "args": args}}
            yield self.chunk([part if n else {**part, "thoughtSignature": seal}])
        yield self.chunk([{"text": ""}], "STOP")


PROTOCOLS = [Responses(), Chat(), Messages(), Gemini()]


def step(protocol, results):
    """What the script says when it holds so many results, and in which turn."""
    turn = {0: ("Two commands.", [("call_a", "exec_command", "echo one >one.txt"),
                                  ("call_b", "exec_command", "echo two; echo two >two.txt")]),
            2: ("A patch.", [("call_c", "apply_patch", PATCH)])}
    text, calls = turn.get(results, ("", []))
    given = protocol.__dict__.setdefault("given", [])
    n = len(given)
    if not calls:
        text = f"{protocol.name}: turn {n - 1} is done"
    seal = base64.b64encode(f"{protocol.name} sealed 000{n}".encode()).decode() + f"000{n}"
    return f"{protocol.name} thinks {n}: \"größe\"\n\nAh.", seal, text, calls


def answer(protocol, body):
    """The script's next step, if what came before is as it should be."""
    told = protocol.read(body)
    given = protocol.__dict__.setdefault("given", [])
    expected = [(None if protocol.name == "gemini" else thought, seal) for thought, seal, _, _ in given]
    want(told["thoughts"] == expected, f"thoughts: {told['thoughts']}, not {expected}")
    want(told["pictures"] == 1, f"{told['pictures']} pictures")
    ids = [call_id for call_id, _ in told["results"]]
    want(ids == ["call_a", "call_b", "call_c"][:len(ids)], f"results of {ids}")
    if len(ids) >= 2:
        want("two" in told["results"][1][1], "the second command's output")
    if len(ids) >= 3:
        want("patched.txt" in told["results"][2][1], "the patch's output")
    said = step(protocol, len(ids))
    given.append(said)
    return said


class Host(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, kind, body, headers=()):
        self.send_response(status)
        for name, value in [("content-type", kind), ("content-length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def note(self, *words):
        with open(TRANSCRIPT, "a") as file:
            print(*words, file=file)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        protocol = next(p for p in PROTOCOLS if self.path.startswith(p.path))
        model = body.get("model") or self.path.removeprefix(protocol.path).split(":")[0]
        header, key = protocol.key
        _, _, case = model.partition("-fails-")
        with lock:
            seen[model] = seen.get(model, 0) + 1
            again = seen[model] > 1
            name = case or f"step {len(protocol.__dict__.get('given', []))}"
            if case and not (case.endswith("-once") and again):
                status, wrong = protocol.errors[case.removesuffix("-once")]
                self.note(protocol.name, name, status)
                wait = [("retry-after", "1")] if case.removesuffix("-once") in ("rate", "overload") else []
                self.reply(status, "application/json", json.dumps(wrong).encode(), wait)
                return
            try:
                want(self.headers[header] == key, f"the key in {header}")
                said = ("Hm.", "sealed0", f"{protocol.name}: after all", []) if case else answer(protocol, body)
            except (Wrong, KeyError, IndexError, TypeError) as wrong:
                self.note(protocol.name, name, 400, "WRONG", repr(wrong))
                self.reply(400, "application/json", json.dumps({"error": {"message": f"WRONG {wrong!r}"}}).encode())
                return
            self.note(protocol.name, name, 200)
        self.reply(200, "text/event-stream", "".join(protocol.stream(said)).encode())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Host).serve_forever()
