"""The harness can fail: patterns tell apart what differs, and mistakes in case files are found."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import cases
from patterns import ERRORS, MISSING, fill, mismatch, ulid

HERE = pathlib.Path(__file__).resolve().parent


class Patterns(unittest.TestCase):
    MATCH = [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": False, "b": "", "c": 0, "d": [], "e": {}}, {}),
        ([1, {"a": 2}], [1, {"a": 2, "b": 3}]),
        ({"$any": True}, "x"),
        ({"a": {"$absent": True}}, {"a": None}),
        ({"a": {"$absent": True}}, {}),
        ({"$match": "b+"}, "abbc"),
        ({"$len": 2}, [1, 2]),
        ({"$has": {"a": 1}}, [{"a": 2}, {"a": 1}]),
        ({"$has": [1, 2]}, [2, 3, 1]),
        ({"$each": {"a": 1}}, [{"a": 1}, {"a": 1, "b": 2}]),
        ({"$not": 1}, 2),
        ({"$eq": {"a": 1}}, {"a": 1}),
        ({"$in": [1, {"$match": "x"}]}, "xy"),
        ({"$ge": 1, "$le": 2}, 1.5),
    ]
    DIFFER = [
        ({"a": 1}, {}),
        ({"a": 1}, {"a": True}),
        ({"a": True}, {"a": 1}),
        ({"a": "x"}, None),
        ([1], [1, 2]),
        ({"$any": True}, ""),
        ({"$any": True}, 0),
        ({"$any": True}, MISSING),
        ({"a": {"$absent": True}}, {"a": 0}),
        ({"$match": "^b"}, "abbc"),
        ({"$match": "b"}, 5),
        ({"$len": 2}, [1]),
        ({"$has": {"a": 1}}, [{"a": 2}]),
        ({"$has": [1, 4]}, [2, 3, 1]),
        ({"$has": 1}, "1"),
        ({"$each": {"a": 1}}, [{"a": 1}, {"a": 2}]),
        ({"$not": {"a": 1}}, {"a": 1, "b": 2}),
        ({"$eq": {"a": 1}}, {"a": 1, "b": 2}),
        ({"$eq": False}, MISSING),
        ({"$in": [1, 2]}, 3),
        ({"$ge": 1}, 0),
        ({"$le": 1}, True),
    ]

    def test_patterns(self):
        for pattern, value in self.MATCH:
            self.assertIsNone(mismatch(pattern, value), (pattern, value))
        for pattern, value in self.DIFFER:
            self.assertIsNotNone(mismatch(pattern, value), (pattern, value))

    def test_values(self):
        variables = {"list": [1, {"a": "x"}], "name": "n"}
        self.assertEqual(
            fill({"${name}": ["${list}", "<${list.1.a}>", "${list.0}"]}, variables), {"n": [[1, {"a": "x"}], "<x>", 1]}
        )
        self.assertEqual(fill({"$times": 2, "of": "${i}-${name}"}, variables), ["1-n", "2-n"])
        self.assertEqual(fill("${repeat:ab:3}", {}), "ababab")
        self.assertRegex(ulid(), "^[0-7][0-9A-HJKMNP-TV-Z]{25}$")
        with self.assertRaises(KeyError):
            fill("${nobody}", variables)


class Files(unittest.TestCase):
    def problems(self, **changes):
        case = {"id": "x.a", "title": "t", "steps": [{"op": "health"}], **changes}
        with tempfile.TemporaryDirectory() as directory:
            (pathlib.Path(directory) / "x.json").write_text(json.dumps([case]))
            return cases.load(directory)[1]

    def test_the_cases_are_in_form(self):
        found, problems = cases.load(HERE / "cases")
        self.assertEqual(problems, [])
        self.assertGreaterEqual(len(found), 150)

    def test_each_code_is_in_a_case(self):
        text = (HERE / "cases/error.json").read_text()
        statuses = {code["grpc_status"] for code in json.loads(ERRORS.read_text())["codes"]}
        self.assertEqual([status for status in statuses if f"${{codes:{status}}}" not in text], [])

    def test_mistakes_are_found(self):
        self.assertEqual(self.problems(), [])
        for changes in (
            {"id": "y.a"},
            {"title": ""},
            {"steps": []},
            {"colour": "red"},
            {"also": ["go"]},
            {"n/a": {"go": ""}},
            {"transports": ["pigeon"]},
            {"mesh": "torn"},
            {"fake": {"rules": [{"on": "Send", "then": {}}]}},
            {"steps": [{"op": "dance"}]},
            {"steps": [{"op": "health", "args": {"speed": 1}}]},
            {"steps": [{"op": "health", "as": "zoe"}]},
            {"steps": [{"op": "health", "expect": {"$like": 1}}]},
            {"steps": [{"op": "health", "expect": {}, "error": {}}]},
            {"steps": [{"op": "health", "expect": {"mesh": "${mesh}"}}]},
            {"steps": [{"op": "await", "args": {"call": "x"}}]},
            {"steps": [{"op": "mesh", "args": {"do": "kill", "member": "bob"}}]},
            {"steps": [{"op": "fake", "args": {"do": "seen"}}]},
            {"steps": [{"op": "repeat", "args": {"times": 2}, "steps": [{"op": "dance"}]}]},
        ):
            with self.subTest(**changes):
                self.assertNotEqual(self.problems(**changes), [])


class Run(unittest.TestCase):
    """The harness with runners that do not do what they should."""

    def run_with(self, script):
        with tempfile.TemporaryDirectory() as root:
            runner = pathlib.Path(root) / "go/conformance.sh"
            runner.parent.mkdir()
            if script is not None:
                runner.write_text(f"#!{sys.executable}\n{script}\n")
                runner.chmod(0o755)
            directory = pathlib.Path(root) / "cases"
            directory.mkdir()
            case = {
                "id": "x.a",
                "title": "t",
                "fake": {},
                "timeout": 3,
                "transports": ["unix"],
                "steps": [{"op": "health"}],
            }
            (directory / "x.json").write_text(json.dumps([case]))
            command = [sys.executable, HERE / "run.py", "--sdk-root", root, "--cases", directory, "--runner", "go"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            return done.returncode, done.stdout + done.stderr

    # The place for what a runner does before it answers.
    ANSWERS = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    BEFORE
    print(json.dumps({"id": request["id"], **ANSWER}), flush=True)
"""

    def answering(self, answer, before="pass"):
        return self.ANSWERS.replace("ANSWER", answer).replace("BEFORE", before)

    def test_outcomes(self):
        good = '{"result": {}}'
        code, text = self.run_with(self.answering(good))
        self.assertEqual(code, 0, text)
        self.assertRegex(text, r"all +1/1")
        for script, reason in (
            (None, "cannot be started"),
            ("raise SystemExit('no such library')", "no such library"),
            ("print('hello')", "no JSON object"),
            (self.answering('{"error": {"code": "unknown_peer"}}'), "failed with unknown_peer"),
            (self.answering('{"error": {"unexpected": "TypeError"}}'), "not of the SDK: TypeError"),
            (self.answering(good, "if request['op'] == 'health': continue"), "took longer than 3 s"),
            (self.answering(good, "if request['op'] == 'health': sys.exit('dead')"), "dead"),
        ):
            with self.subTest(reason):
                code, text = self.run_with(script)
                self.assertEqual(code, 1, text)
                self.assertIn(reason, text)


if __name__ == "__main__":
    unittest.main()
