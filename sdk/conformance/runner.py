"""What the runners that are written in Python here share: requests in, answers out."""

import json
import sys
import threading
import traceback


class Problem(Exception):
    """An error as a runner reports it."""

    def __init__(self, error):
        super().__init__(error.get("code"))
        self.error = error


def serve(name, connect):
    """`connect(args)` gives a client: an object with a method for each op, dots as `_`."""
    clients, lock = {}, threading.Lock()

    def answer(message):
        with lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    def handle(id, client, op, args):
        try:
            if op == "connect":
                clients[client] = connect(args)
                answer({"id": id, "result": {}})
            else:
                answer({"id": id, "result": getattr(clients[client], op.replace(".", "_"))(**args)})
        except Problem as problem:
            answer({"id": id, "error": problem.error})
        except Exception:
            answer({"id": id, "error": {"unexpected": traceback.format_exc(limit=-3)}})

    answer({"ready": True, "runner": name})
    for line in sys.stdin:
        request = json.loads(line)
        parts = request["id"], request.get("client"), request["op"], request.get("args", {})
        if request["op"] == "connect":
            handle(*parts)
        else:
            threading.Thread(target=handle, args=parts, daemon=True).start()
