#!/usr/bin/env python3
"""Reads the goldens of the Gemini codec with the types of Google's own client (google-genai, pinned in tests/setup.sh).

Run by $GENAI_PYTHON, without arguments. Ends with one line, `N passed, N failed`.

Requests (tests/golden/requests/*/gemini.*.json, and what tests/it/matrix.rs left in target/matrix/*.gemini.json): every part of the body is read by its pydantic type, which forbids
fields it does not know, and then put through the client's own converters for the Gemini API, which refuse what only
other services take. Streams (tests/golden/streams/gemini/*): every frame is a `GenerateContentResponse`, and what the
client reads in them (text, thoughts, calls, counts) is what events.txt says.
"""

import base64
import json
import pathlib
import re
import sys
import warnings

import google.genai
import pydantic
from google.genai import models, types

ROOT = pathlib.Path(__file__).resolve().parent / "golden"

# Frames that are meant to be no answer of the service.
ODD = {"call-args-string", "error-event", "html-in-stream", "malformed-chunk", "text-half-surrogate",
       "unknown-frames", "usage-odd", "whole-array-cut", "whole-html"}

# Fields of a part of which exactly one is set.
DATA = {"text", "inlineData", "fileData", "functionCall", "functionResponse"}


def read(kind, value):
    """The value as the client's type: from JSON, since signatures and pictures are base64 there."""
    return kind.model_validate_json(json.dumps(value))


def check_request(body):
    known = {"systemInstruction", "tools", "toolConfig", "generationConfig", "serviceTier", "contents"}
    assert not set(body) - known, f"unknown fields {set(body) - known}"
    for content in body["contents"] + [body.get("systemInstruction", {"parts": [{"text": "x"}]})]:
        models._Content_to_mldev(read(types.Content, content))
        for part in content["parts"]:
            assert len(DATA & set(part)) == 1, f"a part with {sorted(part)}"
            blobs = [part] + part.get("functionResponse", {}).get("parts", [])
            for blob in (b["inlineData"] for b in blobs if "inlineData" in b):
                base64.b64decode(blob["data"], validate=True)
    names = []
    for tool in body.get("tools", []):
        models._Tool_to_mldev(read(types.Tool, tool))
        for declaration in tool["functionDeclarations"]:
            names.append(declaration["name"])
            assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}", names[-1]), names[-1]
            check_schema(declaration.get("parametersJsonSchema", {"type": "object"}), True)
    assert len(names) == len(set(names)), "a name twice"
    if "toolConfig" in body:
        models._ToolConfig_to_mldev(read(types.ToolConfig, body["toolConfig"]))
        allowed = body["toolConfig"]["functionCallingConfig"].get("allowedFunctionNames", [])
        assert set(allowed) <= set(names), f"{allowed} not declared"
    config = body.get("generationConfig", {})
    read(types.GenerationConfig, config)
    read(types.GenerateContentConfig, config)
    thinking = config.get("thinkingConfig", {})
    assert not {"thinkingBudget", "thinkingLevel"} <= set(thinking), "budget and level"
    if "responseJsonSchema" in config:
        assert config["responseMimeType"] == "application/json"
        check_schema(config["responseJsonSchema"], False)
    assert body.get("serviceTier", "flex") in [tier.value for tier in types.ServiceTier]


def check_schema(schema, is_object):
    """Only keywords that the description of `responseJsonSchema` lists."""
    documented = types.GenerateContentConfig.model_fields["response_json_schema"].description
    if is_object:
        assert schema["type"] == "object"
    for key, value in schema.items():
        assert f"`{key}`" in documented, f"{key} is not documented"
        if key == "properties":
            for inner in value.values():
                check_schema(inner, False)
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            check_schema(value, False)
        elif key in ("anyOf", "prefixItems"):
            for inner in value:
                check_schema(inner, False)
    assert set(schema.get("required", [])) <= set(schema.get("properties", {}))


def frames(case):
    """The chunks of a case: JSON objects, arrays of them spelled out."""
    whole = case / "upstream.json"
    text = (whole if whole.exists() else case / "upstream.sse").read_text()
    if whole.exists() and not text.startswith("data:"):
        data = [text] if text.strip() else []
    else:
        data = [block.partition("data: ")[2] for block in re.split(r"\r?\n\r?\n", text) if "data: " in block]
    for one in data:
        value = json.loads(one)
        yield from value if isinstance(value, list) else [value]


def said(line):
    """A Rust string as a line of events.txt quotes it."""
    return json.loads(re.sub(r"\\u\{([0-9a-f]+)\}", lambda m: f"\\u{int(m[1], 16):04x}", line).replace("\\'", "'"))


def check_stream(case):
    texts, thoughts, calls, usage = "", "", [], None
    for frame in frames(case):
        if "error" in frame:
            error = frame["error"]
            assert isinstance(error["code"], int) and error["message"]
            continue
        response = read(types.GenerateContentResponse, frame)
        usage = response.usage_metadata or usage
        for candidate in (response.candidates or []):
            if candidate.index:
                continue
            for part in (candidate.content.parts if candidate.content else None) or []:
                if part.function_call:
                    calls.append(part.function_call)
                elif part.text and part.thought:
                    thoughts += part.text
                elif part.text:
                    texts += part.text
    lines = (case / "events.txt").read_text().splitlines()
    of = lambda word: [line.split(" ", 2)[2] for line in lines if line.startswith(word + " ")]
    if "end Complete" not in lines:
        return
    assert "".join(map(said, of("text"))) == texts, "the text"
    assert "".join(map(said, of("think"))) == thoughts, "the thoughts"
    names = [line.split(" ")[4].split("/")[-1] for line in lines if " call " in line]
    if case.name != "call-repeated":
        assert len(names) == len(calls), "the number of calls"
    for name, arguments, call in zip(names, map(said, of("args")), calls):
        assert call.name.endswith(name), f"{call.name} is not {name}"
        args = call.args or {}
        assert arguments in args.values() if name == "apply_patch" else json.loads(arguments) == args, "arguments"
    if usage and usage.candidates_token_count is not None:
        counted = (usage.prompt_token_count + (usage.tool_use_prompt_token_count or 0),
                   usage.cached_content_token_count or 0,
                   usage.candidates_token_count + (usage.thoughts_token_count or 0), usage.thoughts_token_count or 0)
        line = next(line for line in lines if line.startswith("usage "))
        assert tuple(map(int, re.findall(r"\d+", line)))[0:2] + tuple(map(int, re.findall(r"\d+", line)))[3:] == counted


def main():
    warnings.simplefilter("ignore")
    requests = sorted(ROOT.glob("requests/*/gemini.*.json"))
    requests += sorted(ROOT.parent.parent.glob("target/matrix/*.gemini.json"))
    streams = sorted(case for case in (ROOT / "streams/gemini").iterdir() if case.name not in ODD)
    checks = [(file, lambda file=file: check_request(json.loads(file.read_text()))) for file in requests]
    checks += [(case, lambda case=case: check_stream(case)) for case in streams]
    passed = failed = 0
    for name, check in checks:
        try:
            check()
            passed += 1
        except Exception as error:
            failed += 1
            print(f"FAILED {name.relative_to(ROOT.parent.parent)}: {type(error).__name__}: {error}")
    print(f"google-genai {google.genai.__version__}, pydantic {pydantic.VERSION}: {len(requests)} requests, "
          f"{len(streams)} streams")
    print(f"{passed} passed, {failed} failed")
    return failed == 0 and passed > 0


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
