"""The control interface and its commands, on a whole agent as a user starts it."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import json
import os
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import address_map
from edge_agent.control_client import ControlClient, RefusedMapError
from edge_agent.errors import ConfigError, TransientError
from edge_agent.model import Tag
from edge_agent.simulator import rebind
from tests.integration.test_agent import make_tag
from tests.plant import Agent, Simulator, make_tags
from tests.servers import wait_until

TAGS = [make_tag("PRESS", 1), make_tag("FLOW", 2), make_tag("TEMP", 3, "sim://b", device="OVEN")]
SOON_S = 5.0


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    path = tmp_path / "address_map.csv"
    address_map.write(path, TAGS)
    made = Agent(tmp_path / "agent", path)
    made.configure(["[store]\nenabled = true"])
    with made:
        yield made
    assert "Traceback" not in made.log()


def client_of(agent: Agent, author: str = "") -> ControlClient:
    return ControlClient(agent.data_dir, author=author)


def version_of(agent: Agent) -> int | None:
    status = agent.status()
    return None if status is None else status["map"]["version"]


def other_map(agent: Agent, tags: list[Tag]) -> Path:
    path = agent.folder / "other.csv"
    address_map.write(path, tags)
    return path


def test_it_is_for_the_agents_user_and_group_only(agent: Agent) -> None:
    """A socket in the data folder; no port is opened for it, and it is gone with the agent."""
    path = agent.data_dir / "control.sock"
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    agent.stop()
    assert not path.exists()
    with pytest.raises(TransientError, match="no agent runs on") as caught:
        client_of(agent).get("/map")
    assert "--data-dir" in caught.value.hint


def test_a_map_is_planned_and_then_applied(agent: Agent) -> None:
    """What the plan says is what is done, and the file is the map that was sent."""
    client = client_of(agent, "김 기사")
    new = [TAGS[0], replace(TAGS[1], hi=9.5), make_tag("LEVEL", 4, "sim://c")]
    data = other_map(agent, new).read_bytes()
    before = agent.map_path.read_bytes()
    planned = client.post("/map/plan", data)
    assert planned["rows"] == {
        "added": ["A1/PUMP01/LEVEL"],
        "changed": [{"key": "A1/PUMP01/FLOW", "columns": {"hi": ["", "9.5"]}}],
        "removed": ["A1/OVEN/TEMP"],
    }
    assert planned["connections"] == {
        "kept": [], "changed": ["sim://a"], "begun": ["sim://c"], "ended": ["sim://b"],
    }  # fmt: skip
    assert (planned["before"]["tags"], planned["after"]["tags"]) == (3, 3)
    assert planned["series_ended"] == ["A1/OVEN/TEMP [bar]"]
    assert agent.map_path.read_bytes() == before, "planning changes nothing"
    done = client.post("/map", data, headers={"If-Match": f'"{planned["over"]}"'})
    assert done == {
        "changed": True,
        "written": True,
        "summary": "1 added, 1 changed, 1 removed",
        "version": 2,
    }
    assert agent.map_path.read_bytes() == data
    status = agent.status()
    assert status is not None
    assert status["map"]["sha256"] == hashlib.sha256(data).hexdigest()
    newest = client.get("/map")["versions"][-1]
    assert (newest["author"], newest["how"]) == ("김 기사", "upload")
    with pytest.raises(RefusedMapError, match="another map has been applied"):
        client.post("/map", before, headers={"If-Match": planned["over"]})
    assert client.get_bytes("/map/file") == data
    assert client.get_bytes("/map/versions/1") == before


def test_a_wrong_map_is_refused_with_all_its_problems(agent: Agent) -> None:
    """With line and column; the file is not touched, not even for a moment."""
    before = agent.map_path.stat()
    data = agent.map_path.read_bytes().replace(b"FLOAT32", b"REAL99").replace(b",200,", b",7,")
    for route in ("/map/plan", "/map"):
        with pytest.raises(RefusedMapError) as caught:
            client_of(agent).post(route, data)
        places = [(row["line"], row["column"]) for row in caught.value.problems]
        assert places == [(line, name) for line in (2, 3, 4) for name in ("type", "period_ms")]
    for garbage in (b"", b"PK\x03\x04 no zip", bytes(range(256)) * 9, b'"', b"\xff\xfe\x00"):
        with pytest.raises(RefusedMapError):
            client_of(agent).post("/map", garbage)
    assert agent.map_path.stat() == before
    assert version_of(agent) == 1


THROUGH_A_READ_ONLY_MOUNT = """
import sys
from pathlib import Path
from edge_agent.control_client import ControlClient

folder = Path(sys.argv[1])
try:
    (folder / "mine").write_text("")
except OSError as error:
    print(error.strerror)
print(ControlClient(folder).post("/map/reload")["changed"])
"""


def test_who_sees_the_folder_read_only_may_still_ask(agent: Agent) -> None:
    """As the dashboard's unit has it: a read-only mount forbids files, and not the socket."""
    folder = shlex.quote(str(agent.data_dir))
    mount = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    done = subprocess.run(
        [
            *("unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"),
            *(sys.executable, "-c", THROUGH_A_READ_ONLY_MOUNT, str(agent.data_dir)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "not permitted" in done.stderr or "denied" in done.stderr:
        pytest.skip(f"a mount namespace is not permitted here: {done.stderr.strip()}")
    assert done.stdout.splitlines() == ["Read-only file system", "False"], done.stderr


def test_going_back_over_another_map_is_refused(agent: Agent) -> None:
    """Where the hash of the map is given that its author has seen running, as with an upload."""
    client = client_of(agent)
    seen = client.get("/map")["sha256"]
    data = other_map(agent, TAGS[:2]).read_bytes()
    client.post("/map", data)
    with pytest.raises(RefusedMapError, match="another map has been applied"):
        client.post("/map/rollback/1", headers={"If-Match": seen})
    assert agent.map_path.read_bytes() == data
    seen = client.get("/map")["sha256"]
    assert client.post("/map/rollback/1", headers={"If-Match": seen})["version"] == 3


def test_what_is_asked_for_and_is_not_there(agent: Agent) -> None:
    """An error in words, with what to do."""
    with pytest.raises(ConfigError, match="no version 7 of the map; there is only version 1"):
        client_of(agent).get_bytes("/map/versions/7")
    with pytest.raises(ConfigError, match="no version 7"):
        client_of(agent).post("/map/rollback/7")
    with pytest.raises(ConfigError, match="code 404"):
        client_of(agent).get("/map/versions/x")


def test_the_commands(agent: Agent) -> None:
    """plan --against running, reload, map history, diff, show and rollback."""
    first = agent.map_path.read_bytes()
    other = other_map(agent, [*TAGS, make_tag("LEVEL", 4)])
    planned = agent.run_command("plan", "--map", str(other), "--against", "running")
    assert planned.returncode == 0, planned.stderr
    assert "+ A1/PUMP01/LEVEL" in planned.stdout
    assert "1 connection read by another plan, not closed: sim://a" in planned.stdout
    assert "3 > 4 tags" in planned.stdout
    agent.map_path.write_bytes(other.read_bytes())
    done = agent.run_command("reload")
    assert (done.returncode, done.stdout) == (
        0, "applied: 1 added, 0 changed, 0 removed; version 2\n",
    )  # fmt: skip
    again = agent.run_command("reload")
    assert again.stdout.startswith("nothing has changed")
    assert json.loads(agent.run_command("reload", "--json").stdout) == {
        "ok": True, "changed": False, "written": False, "problems": [], "version": 2,
        "summary": "0 added, 0 changed, 0 removed",
    }  # fmt: skip
    listed = agent.run_command("map", "history").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["version", "1", "2"]
    assert getpass.getuser() in listed[2]
    found = json.loads(agent.run_command("map", "diff", "1", "--json").stdout)
    assert found["rows"] == {"added": ["A1/PUMP01/LEVEL"], "changed": [], "removed": []}
    back = agent.run_command("map", "rollback", "1")
    assert back.stdout == "applied: 0 added, 0 changed, 1 removed; version 3\n", back.stderr
    assert agent.map_path.read_bytes() == first
    history = json.loads(agent.run_command("map", "history", "--json").stdout)["versions"]
    assert [one["how"] for one in history] == ["start", "file", "rollback to 1"]
    agent.map_path.unlink()
    wait_until(lambda: "no such file" in str(agent.status()), "the missing file told", SOON_S)
    assert agent.run_command("map", "rollback", "3").stdout == (
        "the file is written; no row differs from the running map\n"
    )
    written = json.loads(agent.run_command("map", "rollback", "3", "--json").stdout)
    assert (written["ok"], written["changed"], written["written"]) == (True, False, False)
    agent.stop()
    assert agent.run_command("map", "show", "2").stdout.encode() == other.read_bytes()
    late = agent.run_command("map", "rollback", "2")
    assert (late.returncode, late.stdout) == (1, "")
    assert "no agent runs on" in late.stderr


def test_the_commands_and_a_wrong_map(agent: Agent) -> None:
    """Exit code 2, every problem, and what runs stays."""
    good = agent.map_path.read_bytes()
    agent.map_path.write_bytes(good.replace(b"FLOAT32", b"REAL99"))
    done = agent.run_command("reload")
    assert (done.returncode, done.stdout) == (2, "")
    assert "3 problems" in done.stderr
    assert "line 2, column type, 'REAL99'" in done.stderr
    assert "Traceback" not in done.stderr
    for_programs = agent.run_command("reload", "--json")
    assert (for_programs.returncode, for_programs.stderr) == (2, "")
    told = json.loads(for_programs.stdout)
    assert (told["ok"], told["count"], len(told["problems"])) == (False, 3, 3)
    assert told["problems"][0]["line"] == 2
    status = agent.status()
    assert status is not None
    assert status["agent"]["tags"] == 3
    planned = agent.run_command("plan", "--map", str(agent.map_path), "--against", "running")
    assert planned.returncode == 2
    nowhere = agent.run_command("plan", "--map", str(agent.map_path), "--against", "no.csv")
    assert nowhere.returncode == 2


def test_a_hangup_signal_is_a_reload(agent: Agent) -> None:
    """As `systemctl reload` sends it; also for a file with fewer rows."""
    address_map.write(agent.map_path, TAGS[:1])
    os.kill(agent.pid, 1)
    started = time.monotonic()
    wait_until(lambda: version_of(agent) == 2, "version 2", SOON_S)
    assert time.monotonic() - started < 2.0


def test_ten_thousand_rows(tmp_path: Path) -> None:
    """Checked and planned against the running ones in under 3 s, and applied within 5.

    Some ten times what it takes on an idle machine.
    """
    tags = rebind(make_tags(10_000, 1000, per_connection=1000))
    path = tmp_path / "address_map.csv"
    address_map.write(path, tags)
    agent = Agent(tmp_path / "agent", path)
    agent.configure(["[store]\nenabled = true"])
    with Simulator(tmp_path / "plc", tags), agent:
        new = [*tags[:-1], replace(tags[-1], tag="LAST")]
        data = other_map(agent, new).read_bytes()
        started = time.monotonic()
        planned = client_of(agent).post("/map/plan", data)
        planned_s = time.monotonic() - started
        assert len(planned["connections"]["kept"]) == 9
        started = time.monotonic()
        assert client_of(agent).post("/map", data)["version"] == 2
        applied_s = time.monotonic() - started
    print(f"planned in {planned_s:.2f} s, applied in {applied_s:.2f} s")
    assert planned_s < 3
    assert applied_s < SOON_S


@pytest.mark.parametrize("depth", [1, 12])
def test_a_data_folder_with_a_long_path(tmp_path: Path, depth: int) -> None:
    """A socket's address has 108 bytes; the folder may be anywhere."""
    folder = tmp_path.joinpath(*["a-long-folder-name"] * depth)
    folder.mkdir(parents=True)
    address_map.write(folder / "map.csv", TAGS)
    agent = Agent(tmp_path / "agent", folder / "map.csv", data_dir=folder / "data")
    agent.configure(["[store]\nenabled = true"])
    with agent:
        assert client_of(agent).get("/map")["version"] == 1


async def test_requests_of_two_at_once(agent: Agent) -> None:
    """One after the other; the second is told that the first was quicker."""
    over = client_of(agent).get("/map")["sha256"]
    maps = [other_map(agent, [*TAGS, make_tag(name, 4)]).read_bytes() for name in ("X", "Y")]

    def put(data: bytes) -> object:
        return client_of(agent).post("/map", data, headers={"If-Match": over})

    found = await asyncio.gather(
        *(asyncio.to_thread(put, data) for data in maps), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in found) == ["RefusedMapError", "dict"]
    assert version_of(agent) == 2
