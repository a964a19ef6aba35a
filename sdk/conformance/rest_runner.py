"""The runner of REST: the cases over HTTP."""

import http.client
import json
import queue
import socket
import threading
import urllib.parse

import protos
import runner


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Rest:
    def __init__(self, args):
        self.args = args
        self.streams = {}

    def open(self, timeout):
        if "socket" in self.args:
            return UnixConnection(self.args["socket"], timeout)
        host, port = self.args["address"].rsplit(":", 1)
        return http.client.HTTPConnection(host, int(port), timeout=timeout)

    def headers(self):
        if "token_file" in self.args:
            with open(self.args["token_file"]) as file:
                return {"authorization": f"Bearer {file.read().strip()}"}
        return {"authorization": f"Bearer {self.args['token']}"} if "token" in self.args else {}

    def request(self, connection, method, path, fields, headers):
        body = None
        if method == "GET":
            query = {
                name: ("true" if value else "false") if isinstance(value, bool) else value
                for name, value in fields.items()
            }
            path += "?" + urllib.parse.urlencode(query, doseq=True) if query else ""
        else:
            body = json.dumps(fields).encode()
            headers = {**headers, "content-type": "application/json"}
        try:
            connection.request(method, path, body, {**self.headers(), **headers})
            return connection.getresponse()
        except (ConnectionError, FileNotFoundError) as error:
            raise runner.Problem({"code": "daemon_not_running", "message": str(error), "retryable": True}) from None

    def call(self, method, path, answer, fields, timeout=10):
        connection = self.open(timeout)
        try:
            response = self.request(connection, method, path, fields, {})
            text = response.read()
            if response.status >= 400:
                raise runner.Problem(as_error(response, json.loads(text)))
            return protos.long_enums(answer, json.loads(text))
        finally:
            connection.close()

    def pages(self, path, answer, part, fields, limit=None):
        found, token = [], None
        while True:
            page = {"page_token": token} if token else {}
            if limit is not None:
                page["limit"] = min(limit - len(found), 1000)
            result = self.call("GET", path, answer, {**fields, **page})
            found += result[part]
            token = result["next_page_token"]
            if not token or limit is not None and len(found) >= limit:
                return found

    def close(self):
        for name in list(self.streams):
            self.events_close(name)
        return {}

    def send(self, to, text, id=None, reply_to=None, timeout=10, **more):
        fields = {"to": to, "message": text, **more}
        fields |= {"client_message_id": id} if id is not None else {}
        fields |= {"reply_to_id": reply_to} if reply_to is not None else {}
        return self.call("POST", "/v1/send", "SendResponse", fields, timeout)

    def post(self, topic, text, id=None, reply_to=None, timeout=10, **more):
        fields = {"topic": topic, "message": text, **more}
        fields |= {"client_message_id": id} if id is not None else {}
        fields |= {"reply_to_id": reply_to} if reply_to is not None else {}
        return self.call("POST", "/v1/topic/post", "PostTopicResponse", fields, timeout)

    def get_send(self, id, timeout=10):
        return self.call("GET", "/v1/send/" + urllib.parse.quote(id, safe=""), "GetSendResponse", {}, timeout)

    def inbox(self, limit=None, newest_first=False, **fields):
        fields |= {"order": "newest_first"} if newest_first else {}
        return self.pages("/v1/inbox", "ListMessagesResponse", "messages", fields, limit)

    def peers(self, **fields):
        return self.pages("/v1/peers", "ListPeersResponse", "peers", fields)

    def profile(self, **fields):
        return self.call("POST", "/v1/profile", "SetProfileResponse", fields)

    def topics_list(self, **fields):
        return self.pages("/v1/topic/list", "ListTopicsResponse", "topics", fields)

    def topics_create(self, name, description=None):
        fields = {"topic": name} | ({"description": description} if description is not None else {})
        return self.call("POST", "/v1/topic/create", "CreateTopicResponse", fields)["topic"]

    def topics_subscribe(self, name):
        return self.call("POST", "/v1/topic/subscribe", "SubscribeTopicResponse", {"topic": name})["topic"]

    def topics_unsubscribe(self, name):
        return self.call("POST", "/v1/topic/unsubscribe", "UnsubscribeTopicResponse", {"topic": name})

    def health(self, timeout=10):
        return self.call("GET", "/v1/health", "GetHealthResponse", {}, timeout)

    def version(self, timeout=10):
        return self.call("GET", "/v1/version", "GetVersionResponse", {}, timeout)

    def events_open(self, stream, **fields):
        self.streams[stream] = Stream(self, fields)
        return {}

    def events_next(self, stream, timeout):
        try:
            found = self.streams[stream].events.get(timeout=timeout)
        except queue.Empty:
            return {"timeout": True}
        if isinstance(found, runner.Problem):
            raise found
        return found

    def events_close(self, stream):
        self.streams.pop(stream).close()
        return {}


class Stream:
    """Server-sent events, read by a thread."""

    def __init__(self, rest, fields):
        self.events = queue.Queue()
        # A comment comes every 15 s.
        self.connection = rest.open(30)
        response = rest.request(self.connection, "GET", "/v1/events", fields, {})
        if response.status >= 400:
            self.events.put(runner.Problem(as_error(response, json.loads(response.read()))))
            return
        self.socket = response.fp.raw._sock
        threading.Thread(target=self.read, args=[response], daemon=True).start()

    def read(self, response):
        kind = data = ""
        try:
            for line in response:
                line = line.decode().rstrip("\n")
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    data = value
                elif not line and data:
                    event = protos.long_enums("StreamEventsResponse", json.loads(data))
                    self.events.put({**event, "kind": kind, "value": event.get(kind)})
                    kind = data = ""
        except (OSError, ValueError):
            pass
        self.events.put({"ended": True})

    def close(self):
        if hasattr(self, "socket"):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def as_error(response, problem):
    metadata = problem["metadata"]
    return {
        "code": problem["code"],
        "message": problem["detail"],
        "retryable": response.getheader("retry-after") is not None,
        "metadata": metadata,
        "client_message_id": metadata.get("client_message_id", ""),
        "candidates": problem.get("candidates", []),
        "field_violations": problem["errors"],
        "http": response.status,
    }


if __name__ == "__main__":
    runner.serve("rest", Rest)
