"""A broker whose access list denies one topic."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.acceptance.conftest import MakeRig, plant_tags

DENIED = plant_tags()[0].key


def write_access(path: Path, *denied: tuple[str, str, str]) -> None:
    """Everything is allowed but these tags' topics."""
    lines = ["topic readwrite #", *(f"topic deny plc/{'/'.join(key)}" for key in denied)]
    path.write_text("\n".join(lines) + "\n")


def test_one_topic_denied(make_rig: MakeRig, tmp_path: Path) -> None:
    """Exactly that tag's samples are quarantined, with the broker's reason; a replay delivers them.

    Everything else arrives meanwhile, and the other sinks get that tag too.
    """
    access = tmp_path / "access"
    write_access(access, DENIED)
    rig = make_rig(broker=f"acl_file {access}\n")
    rig.agent.start()
    rig.settle()
    rig.run_for(1)
    rig.stop_orderly()
    evidence = rig.evidence()
    evidence.check_books()
    refused = evidence.refused("mqtt")
    everything = evidence.sets["postgres"]
    assert refused.keys() == {sample for sample in everything if sample[:3] == DENIED}
    assert set(refused.values()) == {"broker: not authorized (135)"}
    assert evidence.sets["mqtt"] == everything - refused.keys()
    assert evidence.sets["influx"] == evidence.sets["store"] == everything
    assert len(everything) == evidence.taken

    write_access(access)
    os.kill(rig.broker.pid, signal.SIGHUP)
    done = rig.agent.run_command("journal", "replay", "--sink", "mqtt")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{len(refused):,} samples")
    rig.agent.start()
    rig.settle()
    rig.stop_orderly()
    rig.evidence().check_all()
