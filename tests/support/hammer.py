"""Asks the model `demo` again and again from four threads until FILE exists, and says what came of it.

    TOKEN=… hammer.py PORT FILE
"""
import collections
import http.client
import json
import os
import sys
import threading

port, stop = int(sys.argv[1]), sys.argv[2]
headers = {"authorization": "Bearer " + os.environ["TOKEN"]}
counts = collections.Counter()


def ask(thread):
    n = 0
    while not os.path.exists(stop):
        n += 1
        body = json.dumps({"model": "demo", "input": f"{thread} {n}", "store": False})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", "/v1/responses", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            counts["quarantined" if b"request_quarantined" in text else str(answer.status)] += 1
        except ConnectionRefusedError:
            counts["refused"] += 1
        except (OSError, http.client.HTTPException):
            counts["broken"] += 1
        finally:
            connection.close()


threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"answered {counts['200']} broken {counts['broken']} refused {counts['refused']} quarantined {counts['quarantined']}")
sys.exit(0 if counts["200"] else 1)
