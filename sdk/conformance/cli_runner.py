"""The runner of the command line: the cases with the binary in CLAUDEMESH_BIN."""

import json
import os
import queue
import subprocess
import threading

import protos
import runner

BINARY = os.environ.get("CLAUDEMESH_BIN", "claudemesh")


class Cli:
    def __init__(self, args):
        self.flags, self.env = [], dict(os.environ)
        for name in ("socket", "mesh"):
            if name in args:
                self.flags += [f"--{name}", args[name]]
        if "address" in args:
            self.env |= {"CLAUDEMESH_ADDR": args["address"], "CLAUDEMESH_TOKEN_FILE": args["token_file"]}
        self.streams = {}

    def command(self, *words):
        # Options stand before `--`, behind which nothing is one.
        at = words.index("--") if "--" in words else len(words)
        return [BINARY, *words[:at], "--json", *self.flags, *words[at:]]

    def run(self, answer, *words, input=None):
        done = subprocess.run(self.command(*words), env=self.env, input=input, capture_output=True, text=True)
        if done.returncode:
            raise runner.Problem(as_error(done.stderr))
        return protos.long_enums(answer, json.loads(done.stdout))

    def close(self):
        for name in list(self.streams):
            self.events_close(name)
        return {}

    def message(self, priority=None, id=None, reply_to=None, meta=None, wait=None, timeout=None, **more):
        words = ["--allow-unencrypted"] if more.get("allow_unencrypted") else []
        values = {"priority": priority, "id": id, "reply-to": reply_to, "wait": wait}
        if meta is not None:
            values["meta"] = json.dumps(meta)
        if timeout is not None and wait is not None:
            values["timeout"] = f"{timeout}s"
        words += [f"--{name}={value}" for name, value in values.items() if value is not None]
        return words + [f"--mention={member}" for member in more.get("mentions", [])]

    def send(self, to, text, **more):
        # By standard input: an argument has a limit of the system's own.
        return self.run("SendResponse", "send", *self.message(**more), "--", to, "-", input=text)

    def post(self, topic, text, **more):
        return self.run("PostTopicResponse", "topic", "post", *self.message(**more), "--", topic, "-", input=text)

    def inbox(self, limit=None, newest_first=False, since=None, sender=None, topic=None):
        values = {"limit": limit, "since": since, "from": sender, "topic": topic}
        words = [f"--{name}={value}" for name, value in values.items() if value is not None]
        messages = self.run("ListMessagesResponse", "inbox", *words)["messages"]
        return messages[::-1] if newest_first else messages

    def peers(self, include_offline=False):
        return self.run("ListPeersResponse", "peer", "list", *([] if include_offline else ["--online"]))["peers"]

    def topics_list(self, subscribed_only=False):
        words = ["--subscribed"] if subscribed_only else []
        return self.run("ListTopicsResponse", "topic", "list", *words)["topics"]

    def topics_create(self, name, description=""):
        words = ["topic", "create", f"--description={description}", "--", name]
        return self.run("CreateTopicResponse", *words)["topic"]

    def topics_subscribe(self, name):
        return self.run("SubscribeTopicResponse", "topic", "subscribe", name)["topic"]

    def topics_unsubscribe(self, name):
        return self.run("UnsubscribeTopicResponse", "topic", "unsubscribe", name)

    def events_open(self, stream, after=None, types=()):
        words = ["events", "-f", *(f"--type={type}" for type in types)]
        words += [f"--after={after}"] if after else []
        self.streams[stream] = Stream(self.command(*words), self.env)
        return {}

    def events_next(self, stream, timeout):
        try:
            return self.streams[stream].events.get(timeout=timeout)
        except queue.Empty:
            return {"timeout": True}

    def events_close(self, stream):
        self.streams.pop(stream).close()
        return {}


class Stream:
    """`claudemesh events -f --json`, read by a thread."""

    def __init__(self, command, env):
        self.events = queue.Queue()
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            event = protos.long_enums("StreamEventsResponse", json.loads(line))
            kind = next((name for name in event if name not in ("event_id", "time")), "unknown")
            self.events.put({**event, "kind": kind, "value": event.get(kind)})
        self.events.put({"ended": True})

    def close(self):
        self.process.terminate()
        self.process.wait()


def as_error(text):
    try:
        failure = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {"unexpected": f"the command said: {text[-500:]}"}
    return {**failure, "client_message_id": failure["metadata"].get("client_message_id", "")}


if __name__ == "__main__":
    runner.serve("cli", Cli)
