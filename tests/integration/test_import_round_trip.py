"""What was imported is checked, planned and turned into every generated file."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

CASES = sorted((Path(__file__).parents[1] / "testcases").glob("import_*"))
PROGRAM = str(Path(sys.executable).with_name("edge-agent"))


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_there_are_two_of_each_kind() -> None:
    """Of all five systems."""
    kinds = [case.name.split("_")[1] for case in CASES]
    assert sorted(kinds) == sorted(["ignition", "kepware", "neuron", "nodered", "telegraf"] * 2)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_import_check_plan_generate(case: Path, tmp_path: Path) -> None:
    """As a user types it; generating once more changes nothing."""
    [source] = case.glob("source.*")
    options = case / "options.txt"
    given = shlex.split(options.read_text()) if options.exists() else []
    out, folder = str(tmp_path / "address_map.csv"), str(tmp_path / "generated")
    imported = run("import", str(source), "--out", out, *given)
    assert imported.returncode == 0, imported.stderr
    checked = run("check", "--map", out)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    planned = run("plan", "--map", out, "--json")
    assert planned.returncode in {0, 1}, planned.stderr
    generated = run("generate", "--map", out, "--out", folder)
    assert generated.returncode == 0, generated.stderr
    assert (tmp_path / "generated" / "nodered.flow.json").stat().st_size > 100
    again = run("generate", "--map", out, "--out", folder, "--check")
    assert again.returncode == 0, again.stdout + again.stderr
