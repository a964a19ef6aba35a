"""The built package, installed where nothing else is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from claudemesh.testing import DevMesh

HERE = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    # Nothing of this checkout may be found by the way.
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**variables, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as an installer would."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, HERE, cwd=out)
    assert list(out.glob("claudemesh-*.tar.gz"))
    (found,) = out.glob("claudemesh-*.whl")
    return found


def test_the_wheel_holds_what_is_needed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    for source in (HERE / "src").rglob("*"):
        if source.suffix in (".py", ".pyi", ".typed"):
            assert source.relative_to(HERE / "src").as_posix() in names
    assert not [name for name in names if not name.startswith(("claudemesh/", "claudemesh-"))]
    assert {name.rpartition("/")[2] for name in names} >= {"LICENSE-MIT", "LICENSE-APACHE", "entry_points.txt"}
    requires = sorted(re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE))
    assert requires == ["grpcio<2,>=1.76", "protobuf<8,>=6.31.1"]


def test_the_installed_package_works(wheel: Path, shared: DevMesh, tmp_path: Path) -> None:
    """Covers: R327. The first program of the README, with the package alone."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (HERE / "README.md").read_text("utf-8"), re.DOTALL)
    first = tmp_path / "first.py"
    first.write_text(blocks[0] + "    print(mesh.health().mesh, claudemesh.__file__)\n")
    out = run(python, first, cwd=tmp_path, CLAUDEMESH_DAEMON_SOCK=shared["alice"].sock)
    assert out.startswith(f"dev {tmp_path}")
    # The types of the package come with it.
    typed = tmp_path / "typed.py"
    typed.write_text(
        "import claudemesh\n"
        "with claudemesh.connect() as mesh:\n"
        '    reveal_type(mesh.send("bob", "hi").client_message_id)\n'
        "    reveal_type([message.body for message in mesh.inbox()])\n"
    )
    shown = run(sys.executable, "-m", "mypy", "--strict", "--python-executable", python, typed, cwd=tmp_path)
    assert re.search(r'Revealed type is "(builtins\.)?str"', shown)
    assert re.search(r'Revealed type is "(builtins\.)?list\[(builtins\.)?str\]"', shown)


def test_the_plugin_gives_a_mesh(wheel: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (HERE / "README.md").read_text("utf-8"), re.DOTALL)
    (example,) = (block for block in blocks if "def test_delivery(mesh)" in block)
    (tmp_path / "test_readme.py").write_text(example)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, "pytest==9.2.0", cwd=tmp_path)
    assert "1 passed" in run(python, "-m", "pytest", "-q", "test_readme.py", cwd=tmp_path)
