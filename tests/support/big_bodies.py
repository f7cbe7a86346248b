"""Sends the model `demo` one body of exactly 64 MiB, two of them at once, 64 of a megabyte at once, and two of 64 MiB made
of the shortest items, which are too many; says how they were answered. Needs no more of Python than Debian's python3-minimal has.

    TOKEN=… big_bodies.py PORT
"""
import collections
import os
import socket
import sys
import threading
import time

port, token = int(sys.argv[1]), os.environ["TOKEN"]


def body(size, name, stream):
    """A request of `size` bytes whose text has line ends, as prompts do: decoding it makes a copy."""
    head = b'{"model":"demo","stream":%s,"input":"%s ' % (b"true" if stream else b"false", name.encode())
    line, tail = b"The quick brown fox jumps over the lazy dog.\\n", b'"}'
    room = size - len(head) - len(tail)
    return head + line * (room // len(line)) + b"." * (room % len(line)) + tail


def crumbs(size):
    """A request of nearly `size` bytes in the shortest items."""
    item = b',{"role":"user","content":""}'
    return b'{"model":"demo","input":[' + (item * (size // len(item) - 2))[1:] + b"]}"


def ask(body):
    head = (
        f"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            connection.sendall(head.encode())
            connection.sendall(body)
            text = b""
            while data := connection.recv(65536):
                text += data
    except OSError as error:
        return repr(error)
    whole = b'"status":"completed"' in text or b"event: response.completed" in text
    if text.startswith(b"HTTP/1.1 200 ") and whole:
        return "200 and whole"
    return "400, too many" if text.startswith(b"HTTP/1.1 400 ") and b"holds more than" in text else text[:500].decode()


def all_answered(what, bodies, right="200 and whole"):
    answers = []
    together = threading.Barrier(len(bodies))

    def in_step(body):
        together.wait()
        answers.append(ask(body))

    threads = [threading.Thread(target=in_step, args=(body,)) for body in bodies]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = dict(collections.Counter(answers))
    print(f"{what}: {counts} in {time.monotonic() - begun:.1f} s", flush=True)
    return counts == {right: len(bodies)}


large = body(64 * 1024 * 1024, "large", False)
results = [
    all_answered("one of 64 MiB", [large]),
    all_answered("two of 64 MiB at once", [large, large]),
    all_answered("64 of a megabyte at once", [body(1_000_000, f"number {n}", n % 2 == 0) for n in range(64)]),
    all_answered("two of 64 MiB in the shortest items", [crumbs(64 * 1024 * 1024)] * 2, "400, too many"),
]
sys.exit(0 if all(results) else 1)
