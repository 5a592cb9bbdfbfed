"""What the settings make of each sink."""

from __future__ import annotations

from pathlib import Path

from edge_agent import sinks
from edge_agent.settings import load_settings

TOML = """
[mqtt]
url = "mqtt://127.0.0.1"
[postgres]
dsn = "postgresql://127.0.0.1/plc"
[influx]
url = "http://127.0.0.1:8086"
token = "t"
org = "o"
bucket = "b"
[store]
enabled = true
"""


def test_whatever_else_a_sink_can_do_it_is_asked_for(tmp_path: Path) -> None:
    """Nothing looks at a sink to find out: the agent asks whom the destination names."""
    file = tmp_path / "edge-agent.toml"
    file.write_text(TOML)
    found = {target.sink.name: target for target in sinks.configured(load_settings(file, {}))}
    assert list(found) == ["mqtt", "postgres", "influx", "store"]
    for name, target in found.items():
        for method, asked in (("settled", target.keeper), ("tell", target.teller)):
            able: object = target.sink if hasattr(target.sink, method) else None
            assert asked is able, (name, method)
