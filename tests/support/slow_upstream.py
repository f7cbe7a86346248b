"""A scripted Chat Completions host: its first answer goes on for seconds (with --forever every one, without an end), the
others come at once. Makes a file when an answer has begun.

    slow_upstream.py PORT FILE [--seconds N] [--forever] [--refuse]

--seconds: how long the first answer goes on, 6 unless given. --refuse: no answer is given, but a 401 that repeats the
key and the request, as some hosts do.
"""
import argparse
import http.server
import json
import time

PAUSE = 0.2  # the pace of a model that thinks between words

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("begun")
parser.add_argument("--seconds", type=int, default=6)
parser.add_argument("--forever", action="store_true")
parser.add_argument("--refuse", action="store_true")
options = parser.parse_args()
first = True


class Host(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def chunk(self, delta, finish=None):
        data = json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        body = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
        self.wfile.flush()

    def refuse(self, request):
        message = f"Incorrect API key provided: {self.headers['authorization']}. You sent {request}"
        body = json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()
        self.send_response(401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        global first
        request = self.rfile.read(int(self.headers["content-length"]))
        if options.refuse:
            self.refuse(request)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        slow, first = first or options.forever, False
        self.chunk({"content": "begun"})
        if slow:
            open(options.begun, "w").close()
        seconds = 20 if options.forever else options.seconds if slow else 0
        try:
            for _ in range(int(seconds / PAUSE)):
                time.sleep(PAUSE)
                self.chunk({"content": " ."})
            self.chunk({"content": " told in full"})
            self.chunk({}, "stop")
            end = b"data: [DONE]\n\n"
            self.wfile.write(f"{len(end):x}\r\n".encode() + end + b"\r\n0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Host).serve_forever()
