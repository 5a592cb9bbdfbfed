"""The unit files, judged by systemd's own tools."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from dashboard import cli as dashboard_line
from edge_agent.settings import load_settings
from remote import cli

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = FOLDER / "edge-agent.service"
REMOTE = FOLDER / "edge-remote.service"
DASHBOARD = FOLDER / "edge-dashboard.service"
RECONCILE = FOLDER / "edge-remote-reconcile.service"
TIMER = FOLDER / "edge-remote-reconcile.timer"
SERVICES = pytest.mark.parametrize(
    "unit", [UNIT, REMOTE, RECONCILE, DASHBOARD], ids=lambda unit: str(unit.name)
)
EXPOSURE_MAX = 20
"""Tenths of systemd's exposure level; 2.0 is well inside its "OK"."""

TIMEOUT_S = 60

SERIAL = {
    "PrivateDevices=yes": "PrivateDevices=no",
    "DevicePolicy=closed": (
        "DevicePolicy=closed\nDeviceAllow=char-ttyUSB rw\nDeviceAllow=char-ttyAMA rw\n"
        "SupplementaryGroups=dialout"
    ),
}


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def verify(folder: Path, unit: Path, text: str | None = None) -> str:
    """What systemd has to say about a unit beside the others; it returns 0 whatever it says."""
    for file in (UNIT, REMOTE, RECONCILE, DASHBOARD, TIMER):
        content = text if text is not None and file == unit else file.read_text()
        # The programs aren't installed here, and systemd checks that their files are there.
        installed = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", content)
        assert (installed != content) == (file.suffix == ".service")
        (folder / file.name).write_text(installed)
    result = analyze("verify", "--man=no", str(folder / unit.name))
    return result.stdout + result.stderr


def value_of(key: str, unit: Path = UNIT) -> str:
    (value,) = re.findall(rf"(?m)^{key}=(.*)$", unit.read_text())
    return str(value)


@pytest.mark.parametrize(
    "unit", [UNIT, REMOTE, RECONCILE, DASHBOARD, TIMER], ids=lambda unit: str(unit.name)
)
def test_systemd_finds_nothing_wrong(tmp_path: Path, unit: Path) -> None:
    """No unknown key, no bad value, no warning."""
    assert verify(tmp_path, unit) == ""


@pytest.mark.parametrize(
    ("unit", "right", "wrong"),
    [
        (UNIT, "WatchdogSec", "WatchdogSecs"),
        (REMOTE, "MemoryHigh", "MemoryHeigh"),
        (DASHBOARD, "CPUWeight", "CPUWait"),
        (RECONCILE, "IOSchedulingClass", "IOSchedulingKlass"),
        (TIMER, "OnCalendar", "OnCalender"),
    ],
)
def test_systemd_would_say_what_is_wrong(
    tmp_path: Path, unit: Path, right: str, wrong: str
) -> None:
    """The silence above means something: one letter too many is reported."""
    assert wrong in verify(tmp_path, unit, unit.read_text().replace(f"{right}=", f"{wrong}="))


@pytest.mark.parametrize(
    ("unit", "credentials"), [(UNIT, 3), (REMOTE, 2), (RECONCILE, 2), (DASHBOARD, 3)]
)
def test_credentials_put_in_force_are_valid(tmp_path: Path, unit: Path, credentials: int) -> None:
    """What the comments advise for secrets."""
    text = re.sub(r"(?m)^#(?=LoadCredential=)", "", unit.read_text())
    assert text.count("\nLoadCredential=") == credentials
    assert verify(tmp_path, unit, text) == ""


def test_serial_lines_put_in_force_are_valid(tmp_path: Path) -> None:
    """What the comments advise for serial lines."""
    text = UNIT.read_text()
    for line, instead in SERIAL.items():
        assert f"\n{line}\n" in text
        text = text.replace(f"\n{line}\n", f"\n{instead}\n")
    assert verify(tmp_path, UNIT, text) == ""


def test_the_advised_drop_in_is_valid(tmp_path: Path) -> None:
    """Fewer hours for reconcile, as its file says."""
    (tmp_path / f"{RECONCILE.name}.d").mkdir()
    lines = re.findall(r"(?m)^#   (.+)$", RECONCILE.read_text())
    assert lines[0] == "[Service]"
    text = "\n".join(lines)
    text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text)
    (tmp_path / f"{RECONCILE.name}.d" / "hours.conf").write_text(text)
    assert verify(tmp_path, RECONCILE) == ""


@pytest.mark.parametrize(
    ("unit", "serial"),
    [(UNIT, False), (UNIT, True), (REMOTE, False), (RECONCILE, False), (DASHBOARD, False)],
)
def test_the_sandbox_is_tight(tmp_path: Path, unit: Path, serial: bool) -> None:
    """Exposure at most 2.0, with serial lines as well."""
    text = unit.read_text()
    for line, instead in SERIAL.items() if serial else ():
        text = text.replace(f"\n{line}\n", f"\n{instead}\n")
    path = tmp_path / unit.name
    path.write_text(text)
    result = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(path))
    assert result.returncode == 0, result.stdout
    assert "Overall exposure level" in result.stdout
    assert result.stderr == ""


@SERVICES
def test_the_network_stays_usable(unit: Path) -> None:
    """PLCs and databases over IPv4 and IPv6, local sockets."""
    families = set(value_of("RestrictAddressFamilies", unit).split())
    assert families >= {"AF_INET", "AF_INET6", "AF_UNIX"}
    assert "PrivateNetwork=yes" not in unit.read_text()


def test_the_data_has_a_folder() -> None:
    """Journal and store survive a restart."""
    assert value_of("StateDirectory") == "edge-agent"


@pytest.mark.parametrize("unit", [REMOTE, RECONCILE], ids=lambda unit: str(unit.name))
def test_edge_remote_understands_what_its_units_say(unit: Path) -> None:
    """The line that systemd runs is one that the program takes."""
    program, *words = value_of("ExecStart", unit).split()
    assert program.endswith("/edge-remote")
    options = cli.parser(words).parse_args(words)
    assert str(options.config) == "/etc/edge-agent/edge-agent.toml"


def test_edge_dashboard_understands_what_its_unit_says() -> None:
    """The line that systemd runs is one that the program takes."""
    program, *words = value_of("ExecStart", DASHBOARD).split()
    assert program.endswith("/edge-dashboard")
    options = dashboard_line.parser().parse_args(words)
    assert str(options.config) == "/etc/edge-agent/edge-agent.toml"


def test_the_dashboard_has_the_agents_folder_and_can_not_write_there() -> None:
    """The same user and folder, whichever starts first; a StateDirectory alone could be written."""
    for key in ("User", "DynamicUser", "StateDirectory", "StateDirectoryMode"):
        assert value_of(key, DASHBOARD) == value_of(key), key
    folder = value_of("StateDirectory")
    assert value_of("ReadOnlyPaths", DASHBOARD).split() == [
        f"-/var/lib/private/{folder}",
        f"-/var/lib/{folder}",
    ]
    assert "ReadWritePaths" not in DASHBOARD.read_text()


def test_the_dashboard_may_ask_the_agent_through_its_socket() -> None:
    """A Unix socket, which a read-only mount does not forbid (test_control.py)."""
    assert "AF_UNIX" in value_of("RestrictAddressFamilies", DASHBOARD).split()


@SERVICES
def test_a_wrong_setting_is_not_tried_again(unit: Path) -> None:
    """Exit code 2 ends the attempts of what would be restarted."""
    text = unit.read_text()
    assert ("Restart=always" in text) == ("RestartPreventExitStatus=2" in text)


def test_a_reconcile_ends_before_the_next_is_due() -> None:
    """A run that hangs is ended within the hour, and the timer makes up for what was missed."""
    assert value_of("OnCalendar", TIMER) == "hourly"
    assert value_of("Persistent", TIMER) == "true"
    (minutes,) = re.findall(r"^(\d+)min$", value_of("TimeoutStartSec", RECONCILE))
    assert int(minutes) < 60


def test_shutdown_may_take_as_long_as_the_settings_say() -> None:
    """systemd's patience is longer than the agent's own, so that it isn't killed while it saves."""
    shutdown_timeout_s = load_settings(None, {}).agent.shutdown_timeout_s
    assert float(value_of("TimeoutStopSec")) >= 2 * shutdown_timeout_s
