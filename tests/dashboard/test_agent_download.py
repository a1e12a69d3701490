"""The hub hands out its agent: the wheel is whole, pip installs it, and the script starts it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shlex
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from agent import VERSION
from app.core.agent_package import ROOT, agent_package, model_pin

pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture
def wheel() -> zipfile.ZipFile:
    """The agent's wheel, opened."""
    return zipfile.ZipFile(io.BytesIO(agent_package().data))


def test_holds_every_module_of_the_agent_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "agent").rglob("*.py")}
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert inside == ours
    assert all(wheel.read(name) == (ROOT / name).read_bytes() for name in ours)


def test_records_each_files_hash(wheel: zipfile.ZipFile) -> None:
    [record] = [name for name in wheel.namelist() if name.endswith("/RECORD")]
    rows = {row[0]: row[1:] for row in csv.reader(wheel.read(record).decode().splitlines())}

    assert set(rows) == set(wheel.namelist())
    for name, (digest, size) in rows.items():
        if name != record:
            found = hashlib.sha256(wheel.read(name)).digest()
            assert digest == "sha256=" + base64.urlsafe_b64encode(found).decode().rstrip("=")
            assert int(size) == len(wheel.read(name))


def test_is_handed_out_to_anybody_under_its_name_alone(client: FlaskClient) -> None:
    package = agent_package()
    answer = client.get(f"/join/{package.filename}")

    assert package.filename.startswith(f"weft_agent-{VERSION}+")
    assert answer.status_code == 200
    assert answer.data == package.data
    again = {"If-None-Match": answer.headers["ETag"]}
    assert client.get(f"/join/{package.filename}", headers=again).status_code == 304
    assert client.get("/join/weft_agent-0.0.1-py3-none-any.whl").status_code == 404


@pytest.mark.parametrize("host", ["a;id", "a$(id)", "a`id`", "a b", "'a", "[::1]:80;id"])
def test_a_host_that_is_no_host_runs_nothing_in_the_script(
    client: FlaskClient, host: str
) -> None:
    script = client.get("/join.sh", headers={"Host": host}).get_data(as_text=True)
    assigned = [line for line in script.splitlines() if line.startswith(("  hub=", "  wheel="))]

    assert len(assigned) == 2
    assert all(len(shlex.split(line)) == 1 for line in assigned)
    assert not any(letter in line for line in assigned for letter in ";`$(")


@pytest.mark.slow
class TestOnAMachine:
    """As on a provider's machine; what the agent needs from PyPI is found here already."""

    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_NO_INDEX": "1",
            "PYTHONPATH": sysconfig.get_path("purelib"),
        }  # fmt: skip

    def test_the_script_installs_and_starts_the_agent(
        self, client: FlaskClient, tmp_path: Path, environment: dict[str, str]
    ) -> None:
        package = agent_package()
        (tmp_path / package.filename).write_bytes(package.data)
        script = client.get("/join.sh").get_data(as_text=True)
        address = f"http://localhost/join/{package.filename.replace('+', '%2B')}"
        assert f"\n  wheel={address}\n" in script
        assert f"\n  model={model_pin()}\n" in script
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python3").symlink_to(sys.executable)
        environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"

        done = subprocess.run(
            ["sh", "-s", "--", "--no-engine", "--once-check"],
            input=script.replace(address, str(tmp_path / package.filename)),
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

        assert done.returncode == 0, done.stderr
        assert '"cpu_name"' in done.stdout
        assert (tmp_path / ".weft-agent" / "venv" / "bin" / "weft-agent").exists()

    def test_without_python_it_says_what_is_missing(
        self, client: FlaskClient, environment: dict[str, str]
    ) -> None:
        script = client.get("/join.sh").get_data(as_text=True)

        done = subprocess.run(
            ["/bin/sh", "-s"], input=script, env=environment | {"PATH": "/nowhere"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

        assert done.returncode == 1
        assert "needs Python 3.11" in done.stderr
