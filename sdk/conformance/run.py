"""Runs the conformance cases with each runner; README.md describes them."""

import argparse
import asyncio
import collections
import dataclasses
import fcntl
import fnmatch
import json
import os
import pathlib
import shutil
import socket
import sys
import tempfile
import time
import uuid

import cases as case_files
from patterns import MISSING, fill, mismatch, show
from patterns import path as part_of
from processes import Ended, Mesh, Program, clean_environment

HERE = pathlib.Path(__file__).resolve().parent
# Parts of an error that the command line and REST do not have.
ONLY_OF_SDKS = {"type", "grpc_code", "url", "client_message_id"}
# Seconds for what is around a case: meshes, runners.
MARGIN = 90
WITHOUT_PRIVILEGE = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]


class Failed(Exception):
    """A case did not go as it says."""


def commands(root):
    return {
        "python-sync": [root / "python/conformance.sh", "sync"],
        "python-async": [root / "python/conformance.sh", "async"],
        "go": [root / "go/conformance.sh"],
        "ts": [root / "ts/conformance.sh"],
        "cli": [sys.executable, HERE / "cli_runner.py"],
        "rest": [sys.executable, HERE / "rest_runner.py"],
    }


class Fakes:
    """The process that holds all fake daemons."""

    def __init__(self):
        self.program = None
        self.lock = asyncio.Lock()

    async def ask(self, **command):
        async with self.lock:
            if self.program is None:
                self.program = await Program.start("the fake daemon", [sys.executable, HERE / "fake_daemon.py"])
        answer = await self.program.ask(**command)
        if "error" in answer:
            raise Failed(f"the fake daemon: {answer['error']}")
        return answer["result"]

    async def end(self):
        if self.program:
            await self.program.end()


class Runner:
    """One runner: its programs, one for each worker, and its shared mesh."""

    def __init__(self, name, command, options, fakes):
        self.name, self.command, self.options, self.fakes = name, command, options, fakes
        self.idle = []
        self.mesh = None
        self.mesh_lock = asyncio.Lock()

    def environment(self, **variables):
        return clean_environment(CLAUDEMESH_BIN=self.options.binary, **variables)

    async def program(self, env=None, cwd=None, unprivileged=False):
        # The superuser may use every file, unless this is taken from it.
        prefix = WITHOUT_PRIVILEGE if unprivileged and os.getuid() == 0 else []
        command = [*prefix, *self.command]
        return await Program.start(f"the runner {self.name}", command, self.environment(**(env or {})), cwd, 180)

    async def take(self):
        while self.idle:
            program = self.idle.pop()
            if not program.gone:
                return program
        return await self.program()

    async def shared_mesh(self):
        async with self.mesh_lock:
            if self.mesh is None:
                self.mesh = await self.start_mesh(["alice", "bob", "carol"])
        return self.mesh

    async def start_mesh(self, members, clock=False):
        return await Mesh.start(self.options.binary, members, clock)

    async def end(self):
        await asyncio.gather(*(program.end() for program in self.idle))
        if self.mesh:
            await self.mesh.end()


class Background:
    """A step that goes on beside the others."""

    def __init__(self):
        self.sent = asyncio.get_running_loop().create_future()
        self.task = None


class CaseRun:
    """One case with one runner over one transport."""

    def __init__(self, case, runner, transport):
        self.case, self.runner, self.transport = case, runner, transport
        self.clients, self.failed, self.background, self.programs, self.open_files = {}, {}, {}, [], []
        self.mesh = self.fake = self.program = None
        self.own_mesh = False
        self.variables = {"case": "c" + uuid.uuid4().hex[:12], "transport": transport}
        self.default = "fake" if "fake" in case else "alice"
        self.at = "the start"

    async def run(self):
        self.tmp = tempfile.mkdtemp(prefix="conf-")
        self.variables["tmp"] = self.tmp
        intact = False
        try:
            await self.set_up()
            await asyncio.wait_for(self.whole(), self.case.get("timeout", 60))
            intact = True
        except TimeoutError:
            raise Failed(f"took longer than {self.case.get('timeout', 60)} s, at {self.at}") from None
        except Failed:
            # A failed call leaves the program as good as it was.
            intact = True
            raise
        except (Ended, KeyError, OSError) as error:
            raise Failed(f"{self.at}: {error}") from None
        finally:
            await self.clean_up(intact)

    async def whole(self):
        await self.steps(self.case["steps"], self.variables)
        for name, background in self.background.items():
            if not background.task.done():
                raise Failed(f"the background call {name} was not awaited")
            await background.task

    async def set_up(self):
        self.program = await self.runner.take()
        mesh = self.case.get("mesh", "none" if "fake" in self.case else "shared")
        if "fake" in self.case:
            directory = os.path.join(self.tmp, "fake")
            os.mkdir(directory)
            conf = fill(self.case["fake"], self.variables)
            made = await self.runner.fakes.ask(do="new", dir=directory, fake=conf)
            self.fake = made["fake"]
            self.variables["fake"] = made["member"]
        elif mesh == "shared":
            self.mesh = await self.runner.shared_mesh()
        elif mesh != "none":
            clock = mesh != "fresh" and mesh.get("clock", False)
            self.mesh = await self.runner.start_mesh(case_files.members(self.case), clock)
            self.own_mesh = True
        if self.mesh:
            self.variables.update(self.mesh.members)

    async def clean_up(self, intact):
        for background in self.background.values():
            background.task.cancel()
        await asyncio.gather(*(b.task for b in self.background.values()), return_exceptions=True)
        if self.program and intact and not self.program.gone:
            names = [client for program, client in self.clients.values() if program is self.program]
            closing = asyncio.gather(*(self.program.ask(op="close", client=name, args={}) for name in names))
            try:
                await asyncio.wait_for(closing, 10)
            except (TimeoutError, Ended):
                intact = False
        if self.program:
            if intact:
                self.runner.idle.append(self.program)
            else:
                await self.program.end()
        for program in self.programs:
            await program.end()
        if self.fake:
            await self.runner.fakes.ask(do="end", fake=self.fake)
        if self.own_mesh:
            await self.mesh.end()
        for file in self.open_files:
            file.close()
        shutil.rmtree(self.tmp, ignore_errors=True)

    async def steps(self, steps, variables, place=""):
        for number, step in enumerate(steps, 1):
            await self.step(step, variables, f"{place}{number}")

    async def step(self, step, variables, place):
        where = f"step {place} ({step['op']})"
        if "background" not in step:
            self.at = where
            await self.judged(step, variables, where, None)
            return
        background = self.background[step["background"]] = Background()
        background.task = asyncio.ensure_future(self.judged(step, variables, where, background))
        await asyncio.wait([background.sent, background.task], return_when=asyncio.FIRST_COMPLETED)

    async def judged(self, step, variables, where, background):
        start = time.monotonic()
        until = start + step.get("until", 0)
        while True:
            kind, value = await self.outcome(step, variables, where, background)
            problem = self.problem(step, variables, kind, value)
            if problem is None or time.monotonic() >= until:
                break
            await asyncio.sleep(0.1)
        took = time.monotonic() - start
        if problem is None and took > step.get("within", took):
            problem = f"took {took:.2f} s, more than {step['within']} s"
        if problem is None and took < step.get("at_least", 0):
            problem = f"took {took:.2f} s, less than {step['at_least']} s"
        if problem is not None:
            raise Failed(f"{where}: {problem}")
        for name, dotted in step.get("save", {}).items():
            found = part_of(value, dotted)
            if found is MISSING:
                raise Failed(f"{where}: {dotted} is missing in {show(value)}")
            if name.endswith("[]"):
                self.variables.setdefault(name[:-2], []).append(found)
            else:
                self.variables[name] = found

    def problem(self, step, variables, kind, value):
        if kind == "error" and "unexpected" in value:
            return f"an error that is not of the SDK: {value['unexpected']}"
        if kind == "error" and "error" not in step:
            return f"failed with {value.get('code')}: {value.get('message')}"
        if kind == "result" and "error" in step:
            return f"did not fail, gave {show(value)}"
        key = "error" if kind == "error" else "expect"
        if key not in step:
            return None
        pattern = fill(step[key], variables)
        if kind == "error" and self.runner.name not in case_files.SDKS:
            pattern = {name: item for name, item in pattern.items() if name not in ONLY_OF_SDKS}
        return mismatch(pattern, value, kind)

    async def outcome(self, step, variables, where, background):
        """`result` or `error`, and what it is."""
        op, args = step["op"], fill(step.get("args", {}), variables)
        if op in case_files.HARNESS_OPS:
            return "result", await getattr(self, f"do_{op}")(step, args, variables, where)
        if op == "connect":
            name = args.pop("name")
            kind, value = await self.connect(name, args)
            if kind == "result" or "error" in step:
                return kind, value
            # When an SDK looks for the daemon, now or at the first call, is its own affair.
            self.failed[name] = value
            return "result", {}
        user = fill(step.get("as", self.default), variables)
        if user in self.failed:
            return "error", self.failed[user]
        if user not in self.clients:
            kind, value = await self.connect(user, self.place(user))
            if kind == "error":
                return kind, value
        program, client = self.clients[user]
        id, future = program.send(op=op, client=client, args=args)
        if background and not background.sent.done():
            background.sent.set_result((program, id))
        # A call that hangs is the case's time-out, a runner that forgets an answer as well.
        return self.split(await future)

    def place(self, user):
        member = self.variables[user]
        if self.transport == "unix":
            return {"socket": member["socket"]}
        return {"address": member["address"], "token_file": member["token_file"]}

    async def connect(self, name, args):
        own = {key: args.pop(key) for key in ("env", "cwd", "unprivileged") if key in args}
        program = self.program
        if own:
            program = await self.runner.program(**own)
            self.programs.append(program)
        client = f"{self.variables['case']}-{name}-{len(self.clients)}"
        kind, value = self.split(await program.ask(op="connect", client=client, args=args))
        if kind == "result":
            self.clients[name] = program, client
        return kind, value

    @staticmethod
    def split(answer):
        return ("error", answer["error"]) if "error" in answer else ("result", answer.get("result"))

    async def do_await(self, step, args, variables, where):
        await self.background[args["call"]].task
        return {}

    async def do_cancel(self, step, args, variables, where):
        background = self.background[args["call"]]
        await asyncio.wait([background.sent, background.task], return_when=asyncio.FIRST_COMPLETED)
        if not background.sent.done():
            raise Failed(f"{where}: the call ended before it could be cancelled")
        program, id = background.sent.result()
        return self.split(await program.ask(op="cancel", args={"call": id}))[1]

    async def do_mesh(self, step, args, variables, where):
        answer = await self.mesh.command(**args)
        self.variables.update(self.mesh.members)
        return answer

    async def do_fake(self, step, args, variables, where):
        return await self.runner.fakes.ask(fake=self.fake, **args)

    async def do_parallel(self, step, args, variables, where):
        tasks = (
            self.judged(inner, variables, f"{where} > {number} ({inner['op']})", None)
            for number, inner in enumerate(step["steps"], 1)
        )
        await gather(tasks)
        return {}

    async def do_repeat(self, step, args, variables, where):
        items = args["over"] if "over" in args else range(1, args["times"] + 1)

        async def once(i, item):
            inner = collections.ChainMap({"i": str(i), "item": item}, variables)
            await self.steps(step["steps"], inner, f"{where.removeprefix('step ')} > {i}.")

        if args.get("parallel"):
            await gather(once(i, item) for i, item in enumerate(items, 1))
        else:
            for i, item in enumerate(items, 1):
                await once(i, item)
        return {}

    async def do_write(self, step, args, variables, where):
        # Put in place at once, as a daemon replaces its token.
        path = pathlib.Path(args["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_text(args["text"])
        new.chmod(int(args.get("mode", "600"), 8))
        new.rename(path)
        return {}

    async def do_remove(self, step, args, variables, where):
        os.remove(args["path"])
        return {}

    async def do_chmod(self, step, args, variables, where):
        os.chmod(args["path"], int(args["mode"], 8))
        return {}

    async def do_mkdir(self, step, args, variables, where):
        os.makedirs(args["path"])
        return {}

    async def do_lock(self, step, args, variables, where):
        os.makedirs(os.path.dirname(args["path"]), exist_ok=True)
        file = open(args["path"], "w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.open_files.append(file)
        return {}

    async def do_listen(self, step, args, variables, where):
        os.makedirs(os.path.dirname(args["path"]), exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(args["path"])
        listener.listen()
        self.open_files.append(listener)
        if "mode" in args:
            os.chmod(args["path"], int(args["mode"], 8))
        return {}

    async def do_check(self, step, args, variables, where):
        if "distinct" in args:
            items = [json.dumps(item, sort_keys=True) for item in args["distinct"]]
            if len(set(items)) != len(items):
                raise Failed(f"{where}: items are there twice: {show(args['distinct'])}")
            return args["distinct"]
        return args["value"]


async def gather(coroutines):
    """The results of all; when all have ended, the first failure."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@dataclasses.dataclass
class Result:
    id: str
    transport: str
    outcome: str
    # Why it failed, or why it is `n/a`.
    reason: str | None = None
    seconds: float = 0


async def run_case(case, runner, transport):
    start = time.monotonic()
    reason = None
    try:
        await asyncio.wait_for(CaseRun(case, runner, transport).run(), case.get("timeout", 60) + MARGIN)
    except (Failed, Ended) as problem:
        reason = str(problem)
    except TimeoutError:
        reason = "could not be ended"
    outcome = "pass" if reason is None else "fail"
    return Result(case["id"], transport, outcome, reason, round(time.monotonic() - start, 3))


async def run_runner(runner, cases, places):
    """The results of each case of the runner's set. `places` is shared by all runners."""
    results, todo = [], []
    for case in cases:
        for transport in case.get("transports", case_files.TRANSPORTS):
            if transport not in runner.options.transport:
                continue
            if reason := case.get("n/a", {}).get(runner.name):
                results.append(Result(case["id"], transport, "n/a", reason))
            else:
                todo.append((case, transport))

    async def one(case, transport):
        async with places:
            result = await run_case(case, runner, transport)
        results.append(result)
        if runner.options.verbose or result.outcome == "fail":
            print(f"{result.outcome}: {runner.name} {transport} {result.id} ({result.seconds} s)", flush=True)

    # One first: a runner that has to be built is built once, and one that is not there is told once.
    try:
        if todo:
            runner.idle.append(await runner.program())
    except Ended as problem:
        return results + [Result(case["id"], transport, "fail", str(problem)) for case, transport in todo]
    try:
        # The long ones first, so that none is left over at the end.
        todo.sort(key=lambda item: -item[0].get("timeout", 60))
        await gather([one(case, transport) for case, transport in todo])
    finally:
        await runner.end()
    return results


def table(report):
    """Counts by group, runner and transport: passed / all that can be run."""
    columns = [(runner, transport) for runner in report for transport in case_files.TRANSPORTS]
    counts = collections.defaultdict(lambda: [0, 0, 0])
    for runner, results in report.items():
        for result in results:
            for group in (result.id.split(".")[0], "all"):
                counts[group, runner, result.transport][("pass", "fail", "n/a").index(result.outcome)] += 1
    groups = sorted({group for group, _, _ in counts if group != "all"}) + ["all"]

    def cell(group, column):
        passed, failed, not_there = counts[group, *column]
        if not passed + failed + not_there:
            return "-"
        return f"{passed}/{passed + failed}" + (f" +{not_there} n/a" if not_there else "")

    head = ["", *(f"{runner} {transport}" for runner, transport in columns)]
    rows = [head, *([group, *(cell(group, column) for column in columns)] for group in groups)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only check the case files")
    parser.add_argument("--runner", action="append", help="only this runner; can be repeated")
    parser.add_argument("--transport", action="append", choices=case_files.TRANSPORTS, help="only this one")
    parser.add_argument("--case", action="append", help="only cases whose id matches, such as 'send.*'")
    parser.add_argument("--jobs", type=int, default=8, help="cases at once, of all runners")
    parser.add_argument("--report", type=pathlib.Path, help="where to write the results as JSON")
    parser.add_argument("--cases", type=pathlib.Path, default=HERE / "cases", help="the directory of the cases")
    parser.add_argument("--sdk-root", type=pathlib.Path, default=HERE.parent, help="where the SDKs are")
    parser.add_argument("--verbose", action="store_true", help="tell of each case")
    options = parser.parse_args()
    options.sdk_root = options.sdk_root.resolve()
    options.binary = os.environ.get("CLAUDEMESH_BIN") and os.path.abspath(os.environ["CLAUDEMESH_BIN"])
    options.transport = options.transport or list(case_files.TRANSPORTS)

    cases, problems = case_files.load(options.cases)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems or not cases:
        return 1
    print(f"{len(cases)} cases", flush=True)
    if options.check:
        return 0
    if options.case:
        cases = [case for case in cases if any(fnmatch.fnmatch(case["id"], wanted) for wanted in options.case)]
        if not cases:
            raise SystemExit("no case has such an id")

    if not options.binary and any("fake" not in case and case.get("mesh") != "none" for case in cases):
        raise SystemExit("CLAUDEMESH_BIN has to be the path of the binary; only cases without a mesh run without it")

    fakes, places = Fakes(), asyncio.Semaphore(options.jobs)
    known = commands(options.sdk_root)
    runners = [Runner(name, known[name], options, fakes) for name in options.runner or known]
    try:
        found = await gather(
            [run_runner(runner, [c for c in cases if case_files.runs(c, runner.name)], places) for runner in runners]
        )
    finally:
        await fakes.end()
    report = {runner.name: results for runner, results in zip(runners, found, strict=True)}
    if options.report:
        plain = {name: [dataclasses.asdict(result) for result in results] for name, results in report.items()}
        options.report.write_text(json.dumps(plain, indent=1) + "\n")
    table(report)
    failures = collections.defaultdict(list)
    for name, results in report.items():
        for result in results:
            if result.outcome == "fail":
                failures[name, result.reason].append(f"{result.transport} {result.id}")
    for (name, reason), which in failures.items():
        more = f" and {len(which) - 3} more" if len(which) > 3 else ""
        print(f"fail: {name} {', '.join(which[:3])}{more}: {reason}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
