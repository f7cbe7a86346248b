"""A scripted Chat Completions host: its first answer goes on for seconds (with --forever every one, without an end), the
others come at once. Makes a file when an answer has begun.

    slow_upstream.py PORT FILE [--forever]
"""
import http.server
import json
import sys
import time

port, begun, forever = int(sys.argv[1]), sys.argv[2], "--forever" in sys.argv
first = True


class Host(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def chunk(self, delta, finish=None):
        data = json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        body = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
        self.wfile.flush()

    def do_POST(self):
        global first
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        slow, first = first or forever, False
        self.chunk({"content": "begun"})
        if slow:
            open(begun, "w").close()
        try:
            for _ in range(100 if forever else 30 if slow else 0):
                time.sleep(0.2)  # the pace of a model that thinks between words
                self.chunk({"content": " ."})
            self.chunk({"content": " told in full"})
            self.chunk({}, "stop")
            end = b"data: [DONE]\n\n"
            self.wfile.write(f"{len(end):x}\r\n".encode() + end + b"\r\n0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", port), Host).serve_forever()
