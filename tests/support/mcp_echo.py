"""An MCP server over standard input and output with two tools: `echo_it` answers with its text, `pic` with a picture.

An argument of the first has a name that not every service takes.
"""

import json
import sys

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
TOOLS = [
    {
        "name": "echo_it",
        "description": "Answers with the text.",
        "inputSchema": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "in[voice]": {"type": "string"}},
            "required": ["text"],
        },
    },
    {"name": "pic", "description": "Answers with a picture.", "inputSchema": {"type": "object", "properties": {}}},
]


def answer(method, params):
    if method == "initialize":
        return {
            "protocolVersion": params.get("protocolVersion", "2025-06-18"),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "echo", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call" and params["name"] == "echo_it":
        voice = params["arguments"].get("in[voice]")
        said = params["arguments"]["text"] + (f" in {voice}" if voice else "")
        return {"content": [{"type": "text", "text": "echo: " + said}]}
    if method == "tools/call" and params["name"] == "pic":
        return {
            "content": [
                {"type": "text", "text": "one pixel"},
                {"type": "image", "data": PIXEL, "mimeType": "image/png"},
            ]
        }
    return {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        reply = {"jsonrpc": "2.0", "id": message["id"], "result": answer(message["method"], message.get("params") or {})}
        print(json.dumps(reply), flush=True)
