"""Programs that take and give JSON lines: runners, `claudemesh dev`, the fake daemon."""

import asyncio
import itertools
import json
import os
import signal
import tempfile


class Ended(Exception):
    """The program is gone, or never came up."""


class Program:
    """One that answers by `id`, in any order."""

    def __init__(self, process, errors, name):
        self.process, self.errors, self.name = process, errors, name
        self.ids = itertools.count(1)
        self.waiting = {}
        self.ready = asyncio.get_running_loop().create_future()
        # Nobody may have asked for it when it fails.
        self.ready.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.reader = asyncio.ensure_future(self.read())

    @classmethod
    async def start(cls, name, command, env=None, cwd=None, ready_within=60):
        errors = tempfile.TemporaryFile()
        try:
            process = await asyncio.create_subprocess_exec(
                *map(str, command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=env,
                cwd=cwd,
                limit=256 << 20,
                start_new_session=True,
            )
        except OSError as error:
            raise Ended(f"{name} cannot be started: {error}") from None
        program = cls(process, errors, name)
        try:
            program.hello = await asyncio.wait_for(asyncio.shield(program.ready), ready_within)
        except TimeoutError:
            await program.end()
            raise Ended(f"{name} was not ready within {ready_within} s{program.last_words()}") from None
        return program

    async def read(self):
        problem = None
        while line := await self.process.stdout.readline():
            try:
                message = json.loads(line)
                id = message.get("id")
            except (ValueError, AttributeError):
                problem = f"{self.name} wrote what is no JSON object: {line[:200]!r}"
                break
            if id is None and not self.ready.done():
                self.ready.set_result(message)
            elif (future := self.waiting.pop(id, None)) and not future.done():
                future.set_result(message)
        self.process.stdin.close()
        ended = Ended(problem or f"{self.name} ended{self.last_words()}")
        for future in [self.ready, *self.waiting.values()]:
            if not future.done():
                future.set_exception(ended)
        self.gone = ended

    gone = None

    def last_words(self):
        self.errors.seek(0)
        text = self.errors.read()[-2000:].decode(errors="replace").strip()
        return f"; it said: {text}" if text else ""

    def send(self, **message):
        """The id under which the answer comes, and the answer to wait for."""
        if self.gone or self.process.stdin.is_closing():
            raise self.gone or Ended(f"{self.name} is ending")
        id = next(self.ids)
        future = self.waiting[id] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps({"id": id, **message}).encode() + b"\n")
        return id, future

    async def ask(self, **message):
        return await self.send(**message)[1]

    async def end(self):
        """Lets it end by the end of its input, then by force, with all that it started."""
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 5)
        except TimeoutError:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await self.process.wait()
        await self.reader


class Mesh:
    """A broker and daemons by `claudemesh dev`."""

    def __init__(self, program):
        self.program = program
        self.members = {member["name"]: as_member(member) for member in program.hello["members"]}

    @classmethod
    async def start(cls, binary, members, clock=False):
        command = [binary, "dev", "--json", "--members", ",".join(members), *(["--clock"] if clock else [])]
        program = await Program.start("claudemesh dev", command, env=clean_environment())
        if program.hello.get("event") != "ready":
            await program.end()
            raise Ended(f"claudemesh dev: {program.hello.get('error')}")
        return cls(program)

    async def command(self, **command):
        answer = await self.program.ask(**command)
        if not answer.get("ok"):
            raise Ended(f"claudemesh dev refused {command}: {answer.get('error')}")
        if member := answer.get("member"):
            self.members[member["name"]] = as_member(member)
        return answer

    async def end(self):
        await self.program.end()


def as_member(member):
    return {**member, "socket": member["sock"]}


def clean_environment(**variables):
    """This environment without what points at a daemon."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")}
    env.update(variables)
    return {key: value for key, value in env.items() if value is not None}
