"""The front end on its way from the sources into the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dashboard import build, front_end
from dashboard.front_end import PLACEHOLDER, LaterPlugin, OriginPlugin
from dashboard.services import Services
from dashboard.static import FrontEnd
from edge_agent.errors import ConfigError
from edge_agent.settings import load_settings

ROOT = Path(__file__).parents[2]


def test_every_address_becomes_the_pages_own(tmp_path: Path) -> None:
    """Whatever quotes a minifier chooses; http and websocket."""
    path = tmp_path / "assets" / "env.js"
    path.parent.mkdir()
    ping, events = f'"http:{PLACEHOLDER}/ping"', f"`ws:{PLACEHOLDER}/_event`"
    path.write_text(f"var a={{P:{ping},E:{events}}},b='http:{PLACEHOLDER}'")
    (tmp_path / "other.js").write_text("1")
    OriginPlugin().post_build(static_dir=tmp_path)
    text = path.read_text()
    assert PLACEHOLDER not in text
    assert 'P:globalThis.location.origin+"/ping"' in text
    assert 'E:globalThis.location.origin.replace(/^http/,"ws")+`/_event`' in text


@pytest.mark.parametrize(
    "texts",
    [[], [f'"http:{PLACEHOLDER}"', f'"http:{PLACEHOLDER}"'], [f'"https:{PLACEHOLDER}"']],
    ids=["nowhere", "twice", "another form"],
)
def test_another_reflex_is_noticed_when_it_is_built(tmp_path: Path, texts: list[str]) -> None:
    """Not when an operator's page stays silent."""
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.js").write_text(text)
    with pytest.raises(ConfigError, match=PLACEHOLDER):
        OriginPlugin().post_build(static_dir=tmp_path)


def test_the_placeholder_is_the_one_in_reflexs_configuration() -> None:
    """The two files agree."""
    text = (ROOT / "dashboard/rxconfig.py").read_text()
    assert f'api_url="http:{front_end.PLACEHOLDER}"' in text


PAGE = """<html><link rel="modulepreload" href="/assets/m.js"/><script>1</script>
<script type="module" async="">import "/assets/m.js";
import * as route0 from "/assets/root.js";
  window.__routes = {"root":route0};
import("/assets/entry.js");</script></html>"""


def test_react_starts_after_the_first_paint(tmp_path: Path) -> None:
    """No browser compiles its modules before: nothing imports or preloads them statically."""
    path = tmp_path / "detail" / "index.html"
    path.parent.mkdir()
    path.write_text(PAGE)
    LaterPlugin().post_build(static_dir=tmp_path)
    text = path.read_text()
    assert "modulepreload" not in text
    order = [
        "<script>1</script>",
        front_end.PAINTED,
        'await import("/assets/m.js");',
        'const route0 = await import("/assets/root.js");',
        "window.__routes",
        'import("/assets/entry.js");</script>',
    ]
    places = [text.find(part) for part in order]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize(
    "page",
    ["<html></html>", PAGE + PAGE, PAGE.replace("* as route0", "route0")],
    ids=["no start", "two", "another import"],
)
def test_another_react_router_is_noticed_when_it_is_built(tmp_path: Path, page: str) -> None:
    """It would paint nothing, or everything late."""
    (tmp_path / "index.html").write_text(page)
    with pytest.raises(ConfigError, match=r"index\.html"):
        LaterPlugin().post_build(static_dir=tmp_path)


def test_a_front_end_that_was_not_built(tmp_path: Path) -> None:
    """What to do is said."""
    with pytest.raises(ConfigError) as caught:
        FrontEnd(tmp_path)
    assert "make dashboard" in caught.value.hint


def test_every_page_has_its_elements_and_its_style() -> None:
    """What `frame(script=...)` names is there."""
    for name in build.ENTRIES:
        assert (ROOT / f"dashboard/elements/{name}.js").is_file()
    for name in build.ENTRIES[1:]:
        assert (ROOT / f"dashboard/assets/{name}.css").is_file()
        assert f'script="{name}"' in (ROOT / f"dashboard/pages/{name}.py").read_text()


@pytest.mark.parametrize(
    "path",
    [
        "dashboard/reflex.lock",
        "tests/browser",
        "tests/node_modbus",
        "tests/node_opcua",
        "tests/node_red",
    ],
)
def test_npms_locks_name_no_host_and_hash_everything(path: str) -> None:
    """What is installed is what was locked, from wherever it comes.

    What a package brings along inside itself is hashed with it.
    """
    lock: dict[str, Any] = json.loads((ROOT / path / "package-lock.json").read_text())
    packages = {
        name: package
        for name, package in lock["packages"].items()
        if name and not package.get("inBundle")
    }
    assert packages
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert not [name for name, package in packages.items() if "integrity" not in package]


@pytest.mark.parametrize(
    ("overrides", "sources"),
    [
        ({}, ["store"]),
        ({"dashboard.edge_dsn": "postgresql://a@b/c"}, ["store", "edge"]),
        (
            {"dashboard.source": "remote", "dashboard.remote_dsn": "postgresql://a@b/c"},
            ["remote", "store"],
        ),
        (
            {
                "dashboard.source": "edge",
                "dashboard.edge_dsn": "postgresql://a@b/c",
                "postgres.dsn": "postgresql://a@b/c",
            },
            ["edge"],
        ),
    ],
)
def test_the_sources_that_are_set(overrides: dict[str, object], sources: list[str]) -> None:
    """The chosen one first; the store where the agent keeps one."""
    assert list(Services(load_settings(None, {}, overrides)).histories) == sources
