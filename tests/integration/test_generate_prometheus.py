"""The generated rules in Prometheus' own tool."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_agent.generate.prometheus_rules import render_rules
from tests.integration.generated import NASTY_DEVICE, make_subject, make_tag, nasty_tags

PROMTOOL = shutil.which("promtool")
TIMEOUT_S = 60

pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="there is no promtool on PATH: Debian's package prometheus has it"
)


def promtool(*words: str) -> str:
    """Run it; what it said. Fails where it finds something."""
    done = subprocess.run(
        [str(PROMTOOL), *words], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_nothing_wrong(tmp_path: Path) -> None:
    """Every expression and template is valid, and no two rules are the same."""
    path = tmp_path / "rules.yml"
    path.write_text(render_rules(make_subject(tmp_path, nasty_tags())).text)
    assert "SUCCESS" in promtool("check", "rules", str(path))


CONN = "tcp://10.0.0.5:502"
OTHER = "tcp://10.0.0.6:502"


def series(metric: str, values: str, **labels: str) -> dict[str, str]:
    """One series, of a value a minute."""
    inside = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    return {"series": f"{metric}{{{inside}}}", "values": values}


def up(conn: str, values: str = "1x20") -> dict[str, str]:
    """A connection's state."""
    return series("edge_agent_connection_up", values, conn=conn)


def scans(conn: str, values: str) -> dict[str, str]:
    """A connection's counter; the map asks for 60 a minute."""
    return series("edge_agent_scans_total", values, conn=conn)


@pytest.mark.parametrize(
    ("name", "severity", "given", "conn", "summary"),
    [
        (
            "EdgeAgentConnectionDown",
            "critical",
            [up(CONN, "0x20"), up(OTHER)],
            CONN,
            f"{CONN} (A1/{NASTY_DEVICE}) does not answer",
        ),
        (
            "EdgeAgentConnectionDown",
            "critical",
            [up(CONN)],
            OTHER,
            f"{OTHER} (A1/FAN02) does not answer",
        ),
        (
            "EdgeAgentScansMissing",
            "warning",
            [scans(CONN, "0+50x20"), scans(OTHER, "0+60x20")],
            CONN,
            f"{CONN} (A1/{NASTY_DEVICE}): fewer than 90% of 1 scans a second",
        ),
    ],
    ids=["down", "absent", "scans missing"],
)
def test_a_connection_of_the_map_raises_its_alert(
    tmp_path: Path,
    name: str,
    severity: str,
    given: list[dict[str, str]],
    conn: str,
    summary: str,
) -> None:
    """The one that is down, absent or late, with its devices, and no other one."""
    tags = [make_tag(device=NASTY_DEVICE, conn=CONN), make_tag(device="FAN02", conn=OTHER)]
    path = tmp_path / "rules.yml"
    path.write_text(render_rules(make_subject(tmp_path, tags)).text)
    alert = {
        "exp_labels": {"severity": severity, "conn": conn},
        "exp_annotations": {"summary": summary},
    }
    document = {
        "rule_files": [path.name],
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "alert_rule_test": [{"eval_time": "12m", "alertname": name, "exp_alerts": [alert]}],
            }
        ],
    }
    test = tmp_path / "test.yml"
    test.write_text(json.dumps(document))
    assert "SUCCESS" in promtool("test", "rules", str(test))
