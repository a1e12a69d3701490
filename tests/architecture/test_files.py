"""What holds for every file of the repository."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("app", "worker", "agent", "benchmarks", "docs", "migrations", "tests", ".ci")
LONGEST_FILE_LINES = 400
MACHINE_FOLDER = re.compile(r"(?<![\w.<>/-])/(?:home|root|work|Users|mnt)/")
TEXT = {
    ".py",
    ".html",
    ".js",
    ".css",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".txt",
    ".cfg",
    ".c",
    "",
}


def files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.name != ".env")
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def code_files() -> list[Path]:
    return [
        path
        for path in files()
        if path.suffix in {".py", ".html", ".js", ".css"}
        and "vendor" not in path.parts
        and "versions" not in path.parts
    ]


def test_files_have_at_most_400_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in code_files()
        if (lines := len(path.read_text().splitlines())) > LONGEST_FILE_LINES
    }

    assert long == {}


def test_python_modules_say_in_their_first_line_what_they_are() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in code_files()
        if path.suffix == ".py"
        and (text := path.read_text().strip())
        and not text.startswith(('"""', "#!", 'r"""'))
    ]

    assert silent == []


def test_files_name_no_folder_of_a_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in files()
        if path.suffix in TEXT and "vendor" not in path.parts
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_FOLDER.search(line)
    ]

    assert found == []


def test_import_rules_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("package", ["app", "worker", "agent"])
def test_only_the_settings_read_the_environment(package: str) -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*.py")
        if path != ROOT / package / "config.py"
        and re.search(r"os\.(environ|getenv)|from os import.*environ", path.read_text())
    ]

    assert readers == []
