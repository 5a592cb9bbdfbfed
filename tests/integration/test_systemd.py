"""The unit file, judged by systemd's own tools."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from edge_agent.settings import load_settings

UNIT = Path(__file__).parents[2] / "systemd/edge-agent.service"
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


def verify(folder: Path, text: str) -> str:
    """What systemd has to say about a unit; it returns 0 whatever it says."""
    # The agent isn't installed here, and systemd checks that its file is there.
    installed = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text)
    assert installed != text
    path = folder / "edge-agent.service"
    path.write_text(installed)
    result = analyze("verify", "--man=no", str(path))
    return result.stdout + result.stderr


def value_of(key: str) -> str:
    (value,) = re.findall(rf"(?m)^{key}=(.*)$", UNIT.read_text())
    return str(value)


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """No unknown key, no bad value, no warning."""
    assert verify(tmp_path, UNIT.read_text()) == ""


def test_systemd_would_say_what_is_wrong(tmp_path: Path) -> None:
    """The silence above means something: one letter too many is reported."""
    assert "WatchdogSecs" in verify(
        tmp_path, UNIT.read_text().replace("WatchdogSec=", "WatchdogSecs=")
    )


def test_what_the_comments_advise_is_valid_too(tmp_path: Path) -> None:
    """Credentials and serial lines, put in force."""
    text = re.sub(r"(?m)^#(?=LoadCredential=)", "", UNIT.read_text())
    assert text.count("\nLoadCredential=") == 3
    for line, instead in SERIAL.items():
        assert f"\n{line}\n" in text
        text = text.replace(f"\n{line}\n", f"\n{instead}\n")
    assert verify(tmp_path, text) == ""


@pytest.mark.parametrize("serial", [False, True])
def test_the_sandbox_is_tight(tmp_path: Path, serial: bool) -> None:
    """Exposure at most 2.0, with serial lines as well."""
    text = UNIT.read_text()
    for line, instead in SERIAL.items() if serial else ():
        text = text.replace(f"\n{line}\n", f"\n{instead}\n")
    path = tmp_path / UNIT.name
    path.write_text(text)
    result = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(path))
    assert result.returncode == 0, result.stdout
    assert "Overall exposure level" in result.stdout
    assert result.stderr == ""


def test_the_network_and_the_data_stay_usable() -> None:
    """PLCs over IPv4 and IPv6, systemd's socket, a folder for the data."""
    assert set(value_of("RestrictAddressFamilies").split()) >= {"AF_INET", "AF_INET6", "AF_UNIX"}
    assert value_of("StateDirectory") == "edge-agent"
    assert "PrivateNetwork=yes" not in UNIT.read_text()


def test_shutdown_may_take_as_long_as_the_settings_say() -> None:
    """systemd's patience is longer than the agent's own, so that it isn't killed while it saves."""
    shutdown_timeout_s = load_settings(None, {}).agent.shutdown_timeout_s
    assert float(value_of("TimeoutStopSec")) >= 2 * shutdown_timeout_s
