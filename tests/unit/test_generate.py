"""Generated files: the same map gives the same bytes, names are quoted, edits are kept."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer

from edge_agent import address_map, cli, protocols
from edge_agent.address_map.writer import to_csv
from edge_agent.errors import ConfigError
from edge_agent.generate import quoting
from edge_agent.generate.files import LAST, Outcome, prepare, write
from edge_agent.generate.merge import Edited, merge
from edge_agent.generate.quoting import one_line
from edge_agent.generate.renderers import DASHBOARD, RENDERERS
from edge_agent.generate.subject import MARK, Subject, not_carried
from edge_agent.model import Tag, ValueType
from edge_agent.settings import load_settings
from edge_agent.status.exposition import METRICS
from edge_agent.text.yaml_text import BYTES_MAX
from tests.integration.generated import (
    NASTY_DEVICE,
    NASTY_TAG,
    make_subject,
    make_tag,
    nasty_tags,
)

ORDERED = {DASHBOARD, "init-postgres.sql", "init-timescale.sql"}
"""What follows the map's order: cards on a page, and the map's own rows."""


def generate(folder: Path, tags: list[Tag]) -> Outcome:
    """One run into ``folder``/out."""
    outcome = prepare(make_subject(folder, tags), folder / "out")
    write(outcome, folder / "out")
    return outcome


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a run by name."""
    out = folder / "out"
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def yaml_of(text: str) -> Any:
    """A YAML file as plain data."""
    return YAML(typ="safe", pure=True).load(text)


# -- the same input gives the same files -------------------------------------------------------


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    """Not even the time at which a file was written."""
    first = generate(tmp_path, nasty_tags())
    assert all(file.changed for file in first.files)
    assert {file.name for file in first.files} == {*RENDERERS, LAST}
    before = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    second = generate(tmp_path, nasty_tags())
    assert not any(file.changed for file in second.files)
    assert contents(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == times


def test_every_file_says_what_it_was_made_from(tmp_path: Path) -> None:
    """That it is generated, by which version, and from which map; no time and no folder."""
    generate(tmp_path, nasty_tags())
    sha256 = make_subject(tmp_path, nasty_tags()).found.sha256
    for name, data in contents(tmp_path).items():
        text = data.decode()
        assert f"{MARK}: generator 1, columns 1." in text[:4096], name
        assert f"Map sha256 {sha256}" in text, name
        assert str(tmp_path) not in text


def test_the_order_of_rows_matters_only_where_it_is_meant(tmp_path: Path) -> None:
    """Beside the hash, only cards and the map's own rows follow it."""
    texts = []
    for number, tags in enumerate((nasty_tags(), nasty_tags()[::-1])):
        subject = make_subject(tmp_path / str(number), tags)
        hidden = subject.found.sha256
        texts.append({n: r(subject).text.replace(hidden, "") for n, r in RENDERERS.items()})
    assert {name for name in RENDERERS if texts[0][name] != texts[1][name]} == ORDERED


def test_a_map_without_rows_gives_files_too(tmp_path: Path) -> None:
    """Valid ones, and a second run agrees."""
    path = tmp_path / "address_map.csv"
    header, row = to_csv([make_tag()]).decode().splitlines()
    path.write_text(f"{header},enabled\n{row},false\n")
    subject = Subject(address_map.load(path, protocols.load), load_settings(None, {}))
    write(prepare(subject, tmp_path / "out"), tmp_path / "out")
    assert not any(file.changed for file in prepare(subject, tmp_path / "out").files)
    assert yaml_of((tmp_path / "out" / DASHBOARD).read_text())["cards"] == {}
    tomllib.loads((tmp_path / "out" / "telegraf-modbus.toml").read_text())


def test_somebody_elses_file_is_left_alone(tmp_path: Path) -> None:
    """`--out` may name a folder with other things in it; then nothing is written at all."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "mosquitto.conf").write_text("listener 1883\n")
    with pytest.raises(ConfigError, match=r"mosquitto\.conf was not written by"):
        generate(tmp_path, nasty_tags())
    assert contents(tmp_path) == {"mosquitto.conf": b"listener 1883\n"}


# -- what each file says -----------------------------------------------------------------------


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """Few rows with bad names."""
    return make_subject(tmp_path, nasty_tags())


def test_the_flows_ids_are_unique_and_its_wires_lead_somewhere(subject: Subject) -> None:
    """And every read is one of the planner's blocks."""
    rendered = RENDERERS["nodered.flow.json"](subject)
    nodes = {node["id"]: node for node in json.loads(rendered.text)}
    assert len(nodes) == len(json.loads(rendered.text))
    for node in nodes.values():
        targets = [target for wire in node.get("wires", ()) for target in wire]
        targets += [node[key] for key in ("server", "broker", "z") if node.get(key) in nodes]
        assert all(target in nodes for target in targets)
        if node["type"] == "modbus-read":
            assert nodes[node["server"]]["type"] == "modbus-client"
    reads = sorted(
        (nodes[node["server"]]["name"], node["rate"], node["adr"], node["quantity"])
        for node in nodes.values()
        if node["type"] == "modbus-read"
    )
    blocks = sorted(
        (connection.conn, str(one.period_ms), str(block.start), str(block.count))
        for connection in subject.connections
        if connection.conn.startswith(("tcp://", "rtu"))
        for one in connection.scan_classes
        for block in one.blocks
    )
    assert reads == blocks


def test_the_flow_names_what_it_does_not_carry(subject: Subject) -> None:
    """In a comment node, with the reason."""
    rendered = RENDERERS["nodered.flow.json"](subject)
    reasons = {"/".join(one.tag.key): one.reason for one in rendered.left_out}
    assert set(reasons) == {"A1/SAFE/A", "B2/OPC/A"}
    comments = [node for node in json.loads(rendered.text) if node["type"] == "comment"]
    named = next(node for node in comments if node["name"] == "2 tags are not carried")
    assert all(f"{name}: {reason}" in named["info"] for name, reason in reasons.items())


def test_the_rules_use_metrics_that_exist(subject: Subject) -> None:
    """Every name in an expression is one of the agent's."""
    rules = yaml_of(RENDERERS["prometheus-rules.yml"](subject).text)
    known = set(METRICS) | {f"{name}_total" for name in METRICS}
    known |= {f"{name}_bucket" for name in METRICS}
    used = {
        name
        for group in rules["groups"]
        for rule in group["rules"]
        for name in re.findall(r"edge_agent_\w+", rule["expr"])
    }
    assert len(used) > 15
    assert used <= known
    groups = {group["name"] for group in rules["groups"]}
    assert groups == {"edge-agent"} | {f"edge-agent {one.conn}" for one in subject.connections}


def test_the_grafana_dashboard_has_a_panel_per_device(subject: Subject) -> None:
    """Unique ids, no panel over another, and the limits of each tag."""
    dashboard = json.loads(RENDERERS["grafana-dashboard.json"](subject).text)
    assert dashboard["schemaVersion"] >= 36
    rows = dashboard["panels"]
    panels = [panel for row in rows for panel in (row, *row.get("panels", ()))]
    assert len({panel["id"] for panel in panels}) == len(panels)
    graphs = [panel for panel in panels if panel["type"] == "timeseries"]
    assert sorted(panel["title"] for panel in graphs) == sorted(d for _, d in subject.devices)
    for group in (rows, *(row.get("panels", ()) for row in rows)):
        places = [
            {(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
            for p in (panel["gridPos"] for panel in group)
        ]
        assert len(set().union(*places)) == sum(map(len, places))
    pump = next(panel for panel in graphs if panel["title"] == "PUMP01")
    limits = {
        override["matcher"]["options"]: [step["value"] for step in one["value"]["steps"]]
        for override in pump["fieldConfig"]["overrides"]
        for one in override["properties"]
        if one["id"] == "thresholds"
    }
    assert limits == {"PRESS": [None, 0.5, 4.0]}


def test_the_card_shows_the_first_tag_with_limits(tmp_path: Path) -> None:
    """Else the first number, else the first tag; a BOOL has no gauge."""
    tags = [
        make_tag("RUN", address="co:0", type=nasty_tags()[2].type),
        make_tag("FLOW", address="hr:2"),
        make_tag("PRESS", lo=1.0, hi=2.0),
        make_tag("FLOW", device="FAN", address="hr:4"),
        make_tag("RUN", device="LAMP", address="co:1", type=nasty_tags()[2].type),
    ]
    cards = yaml_of(RENDERERS[DASHBOARD](make_subject(tmp_path, tags)).text)["cards"]
    assert {key: card["main"] for key, card in cards.items()} == {
        "A1/PUMP01": "PRESS",
        "A1/FAN": "FLOW",
        "A1/LAMP": "RUN",
    }
    assert cards["A1/PUMP01"]["gauge"] == {"lo": 1.0, "hi": 2.0}
    assert cards["A1/LAMP"]["gauge"] == {"lo": None, "hi": None}


def test_the_acl_takes_no_line_break(tmp_path: Path) -> None:
    """A user name with one would be a rule of its own."""
    subject = make_subject(tmp_path, nasty_tags(), {"mqtt.username": "a\ntopic readwrite #"})
    with pytest.raises(ConfigError, match=r"U\+000A"):
        RENDERERS["acl"](subject)


# -- quoting -----------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back_from_toml_and_yaml(text: str) -> None:
    """Whatever is in it; and Telegraf finds no variable in it before that."""
    quoted = f"a = {quoting.toml_string(text)}"
    assert tomllib.loads(quoted)["a"] == text
    assert "$" not in quoted
    assert yaml_of(f"a: {quoting.yaml_string(text)}")["a"] == text


@pytest.mark.parametrize("text", [NASTY_DEVICE, NASTY_TAG, "", "'", "\\", "{{ }}", "{% x %}"])
def test_names_come_back_from_every_format(text: str) -> None:
    """The ones that are known to break things."""
    lines = f'load("{text}\n$X\n"""'
    assert tomllib.loads(f"a = {quoting.toml_lines(lines)}")["a"] == lines + "\n"
    assert "$" not in quoting.toml_lines(lines) + quoting.toml_string(text)
    assert json.loads(quoting.json_value(text)) == text
    assert quoting.sql_literal(text)[1:-1].replace("''", "'") == text
    assert one_line(text) == text
    assert not re.search(r"\$|\[\[", quoting.grafana_literal(text))


# -- the edited file ---------------------------------------------------------------------------


def edit(folder: Path, change: Callable[[str], str]) -> str:
    """Edit dashboard.yaml as a person would; the new text."""
    path = folder / "out" / DASHBOARD
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)
    return after


def dashboard(folder: Path) -> Any:
    """dashboard.yaml as data."""
    return yaml_of((folder / "out" / DASHBOARD).read_text())


def two_devices(**fields: Any) -> list[Tag]:
    """Two devices; the fields are the first one's."""
    return [make_tag(**{"lo": 1.0, "hi": 4.0} | fields), make_tag(device="FAN02", address="hr:2")]


def test_an_edit_stays_and_what_the_map_changes_follows(tmp_path: Path) -> None:
    """Title by hand, limit by the map, both in one card; comments and quotes stay as they are."""
    generate(tmp_path, two_devices())
    text = edit(
        tmp_path,
        lambda text: text.replace('title: "PUMP01"', "title: Main pump  # as on its plate"),
    )
    unchanged = generate(tmp_path, two_devices())
    assert not any(file.changed for file in unchanged.files)
    outcome = generate(tmp_path, two_devices(hi=5.0))
    assert outcome.conflicts == ()
    card = dashboard(tmp_path)["cards"]["A1/PUMP01"]
    assert (card["title"], card["gauge"]) == ("Main pump", {"lo": 1.0, "hi": 5.0})
    after = (tmp_path / "out" / DASHBOARD).read_text()
    pairs = zip(text.splitlines(), after.splitlines(), strict=True)
    changed = [new for old, new in pairs if old != new]
    assert [line.strip() for line in changed if "sha256" not in line] == ["hi: 5.0"]
    assert not any(file.changed for file in generate(tmp_path, two_devices(hi=5.0)).files)


def test_where_both_changed_the_edit_stays_and_is_told(tmp_path: Path) -> None:
    """Once: the next run knows it."""
    generate(tmp_path, two_devices())
    edit(tmp_path, lambda text: text.replace("hi: 4.0", "hi: 3.5"))
    outcome = generate(tmp_path, two_devices(hi=5.0))
    assert outcome.conflicts == (
        "cards.A1/PUMP01.gauge.hi: yours, 3.5, stays; the map says 5.0 (it said 4.0)",
    )
    assert dashboard(tmp_path)["cards"]["A1/PUMP01"]["gauge"]["hi"] == 3.5
    assert generate(tmp_path, two_devices(hi=5.0)).conflicts == ()


def test_the_gauge_follows_the_main_tag_that_somebody_chose(tmp_path: Path) -> None:
    """Its limits are the map's, unless they were edited too."""
    tags = [*two_devices(), make_tag("FLOW", address="hr:4", lo=10.0, hi=80.0)]
    generate(tmp_path, tags)
    edit(tmp_path, lambda text: text.replace('main: "PRESS"', "main: FLOW", 1))
    assert generate(tmp_path, tags).conflicts == ()
    card = dashboard(tmp_path)["cards"]["A1/PUMP01"]
    assert (card["main"], card["gauge"]) == ("FLOW", {"lo": 10.0, "hi": 80.0})


def test_cards_that_were_moved_or_deleted_stay_so(tmp_path: Path) -> None:
    """A new device comes behind the one that it follows in the map."""
    names = ["D1", "D2", "D3", "D4"]
    tags = [make_tag(device=name, address=f"hr:{2 * i}") for i, name in enumerate(names)]
    generate(tmp_path, tags)

    def change(text: str) -> str:
        parts = re.split(r'(?m)^(?=  "A1/D)', text)
        head, d1, _, d3, d4 = parts
        return "".join([head, d4, d1, d3])

    edit(tmp_path, change)
    new = make_tag(device="NEW", address="hr:20")
    generate(tmp_path, [tags[0], new, *tags[1:]])
    assert list(dashboard(tmp_path)["cards"]) == ["A1/D4", "A1/D1", "A1/NEW", "A1/D3"]


def test_a_file_that_nobody_edited_follows_the_map_whole(tmp_path: Path) -> None:
    """Its order too; and so does the order of an edited one in which nothing was moved."""
    tags = two_devices()
    generate(tmp_path, tags)
    generate(tmp_path, tags[::-1])
    assert list(dashboard(tmp_path)["cards"]) == ["A1/FAN02", "A1/PUMP01"]
    edit(tmp_path, lambda text: text.replace('title: "PUMP01"', "title: Main pump"))
    generate(tmp_path, tags)
    assert list(dashboard(tmp_path)["cards"]) == ["A1/PUMP01", "A1/FAN02"]
    assert dashboard(tmp_path)["cards"]["A1/PUMP01"]["title"] == "Main pump"


def test_a_device_that_leaves_the_map_takes_its_card_along_unless_it_was_edited(
    tmp_path: Path,
) -> None:
    """An edited one stays, and that is told."""
    tags = [make_tag(device=name, address=f"hr:{2 * i}") for i, name in enumerate(["A", "B", "C"])]
    generate(tmp_path, tags)
    edit(tmp_path, lambda text: text.replace('title: "B"', "title: mine"))
    outcome = generate(tmp_path, tags[:1])
    assert list(dashboard(tmp_path)["cards"]) == ["A1/A", "A1/B"]
    assert outcome.conflicts == ("cards.A1/B is no longer in the map; yours was edited, and stays",)


def test_without_a_record_of_the_last_run_the_file_counts_as_edited(tmp_path: Path) -> None:
    """Nothing of it is lost; what it lacks is added."""
    generate(tmp_path, two_devices())
    edit(tmp_path, lambda text: text.replace("hi: 4.0", "hi: 3.5"))
    (tmp_path / "out" / LAST).unlink()
    outcome = generate(tmp_path, [*two_devices(), make_tag(device="NEW", address="hr:8")])
    assert dashboard(tmp_path)["cards"]["A1/PUMP01"]["gauge"]["hi"] == 3.5
    assert list(dashboard(tmp_path)["cards"])[-1] == "A1/NEW"
    assert outcome.conflicts == ("cards.A1/PUMP01.gauge.hi: yours, 3.5, stays; the map says 4.0",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("version: 1\ncards: {a: [1, 2}\n", r"dashboard\.yaml, line 2, column 17"),
        ("version: 2\ncards: {}\n", "line 1, version: found 2; allowed: 1"),
        ("- 1\n", "must be a mapping with version: 1"),
        ("", "must be a mapping with version: 1"),
        ("version: 1\ncards: [1]\n", "line 2, cards: found a list; allowed: a mapping"),
        ("version: 1\na: &x [1]\nb: *x\n", "line 2: anchors and aliases"),
        ("version: 1\na: " + "[" * 5000, "nested deeper than 16"),
        ("version: 1\ncards: {}\na: !!python/object:os.system x\n", "line 3, a: unknown"),
        ("version: 1\nversion: 1\n", "line 2"),
        ("version: 1\na: \x00\n", "is not YAML|line"),
        ("version: 1\n#" + "x" * BYTES_MAX, "is larger than"),
    ],
    ids=range(11),
)
def test_a_file_that_cannot_be_read_is_told_with_its_place(
    tmp_path: Path, text: str, problem: str
) -> None:
    """Nothing is written then."""
    generate(tmp_path, two_devices())
    edit(tmp_path, lambda _: text)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=problem):
        generate(tmp_path, two_devices(hi=9.0))
    assert contents(tmp_path) == before


WRONG_CARDS = """\
version: 1
group: {}
cards:
  A1/PUMP01:
    title: 3.5
    main: [PRESS]
    gauge: {lo: 9, hi: 1}
    colour: red
  A1/FAN02:
    gauge: {lo: .inf, high: 4}
    titel: x
  A1/XX: 5
  7.5: {}
"""


def test_every_problem_of_an_edited_file_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its line, its key and what is allowed; exit code 2, and nothing is written."""
    generate(tmp_path, two_devices())
    edit(tmp_path, lambda _: WRONG_CARDS)
    before = contents(tmp_path)
    assert run(tmp_path) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"edge-agent: {tmp_path / 'out' / DASHBOARD}: 10 problems",
        "  line 2, group: unknown; did you mean groups?",
        "  line 5, cards.A1/PUMP01.title: found 3.5; allowed: a text; put it in quotes",
        "  line 6, cards.A1/PUMP01.main: found a list; allowed: a text",
        "  line 7, cards.A1/PUMP01.gauge.hi: 1 is not above lo, 9; exchange them",
        "  line 8, cards.A1/PUMP01.colour: unknown; allowed: title, group, main, gauge",
        "  line 10, cards.A1/FAN02.gauge.high: unknown; did you mean hi?",
        "  line 10, cards.A1/FAN02.gauge.lo: found inf; allowed: a number, or null for none",
        "  line 11, cards.A1/FAN02.titel: unknown; did you mean title?",
        "  line 12, cards.A1/XX: found 5; allowed: a mapping with title, group, main, gauge",
        "  line 13, cards.7.5: allowed: SITE/DEVICE as a text",
        "  hint: correct it, or delete the file to begin anew; docs/generate.md has its form",
    ]
    assert run(tmp_path, "--check", "--json") == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert len(problems) == 10
    assert {problem["file"] for problem in problems} == {DASHBOARD}
    assert problems[1]["line"] == 5
    assert contents(tmp_path) == before


def test_names_that_the_map_has_not_got_are_told_and_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tag may have left the map after it was chosen, so it is no error: each run tells it."""
    flow = make_tag("FLOW", address="hr:4")
    make_subject(tmp_path, [*two_devices(), flow])
    assert run(tmp_path) == 0
    edit(tmp_path, lambda text: text.replace('main: "PRESS"', "main: FLOW", 1))
    assert run(tmp_path) == 0
    assert capsys.readouterr().err == ""
    make_subject(tmp_path, two_devices())
    for _ in range(2):
        assert run(tmp_path) == 0
        told = capsys.readouterr().err
        assert "dashboard.yaml: cards.A1/PUMP01.main: the device has no tag 'FLOW'" in told
    edit(tmp_path, lambda text: text.replace("A1/FAN02", "A1/FAN2"))
    assert run(tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["unknown"] == [
        "cards.A1/PUMP01.main: the device has no tag 'FLOW'",
        "cards.A1/FAN2: there is no such device; did you mean A1/FAN02?",
    ]


def test_whole_numbers_are_texts_and_titles_may_be_long(tmp_path: Path) -> None:
    """A tag may be called 101; a number that is written in another way is no text."""
    tags = [make_tag("101"), make_tag("102", address="hr:4")]
    generate(tmp_path, tags)
    edit(tmp_path, lambda text: text.replace('main: "101"', "main: 102"))
    edit(tmp_path, lambda text: text.replace('title: "PUMP01"', f"title: {'x' * 300}"))
    edit(tmp_path, lambda text: text + "  7: {title: 8}\n")
    outcome = generate(tmp_path, tags)
    assert outcome.unknown == ("cards.7: there is no such device",)
    assert dashboard(tmp_path)["cards"]["A1/PUMP01"]["main"] == 102
    edit(tmp_path, lambda text: text.replace("main: 102", "main: 0102"))
    with pytest.raises(ConfigError, match=r"main: found 102; allowed: a text; put it in quotes"):
        generate(tmp_path, tags)
    edit(tmp_path, lambda text: text.replace("main: 0102", f"main: 0x{'f' * 9000}"))
    with pytest.raises(ConfigError, match="main: found a number"):
        generate(tmp_path, tags)


def test_a_file_that_nobody_edited_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of thousands of cards that takes seconds; an edited one is parsed once, beside its record."""
    parsed: list[str] = []
    composed = Composer.get_single_node

    def get_single_node(composer: Composer) -> Any:
        parsed.append("one")
        return composed(composer)

    monkeypatch.setattr(Composer, "get_single_node", get_single_node)
    for hi in (4.0, 4.0, 5.0):
        generate(tmp_path, two_devices(hi=hi))
    assert not parsed
    edit(tmp_path, lambda text: text.replace("hi: 5.0", "hi: 3.5"))
    generate(tmp_path, two_devices())
    assert len(parsed) == 3


def test_many_unknown_names_are_told_in_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty of them, with a name that is like each; --json has all."""
    make_subject(tmp_path, two_devices())
    assert run(tmp_path) == 0
    more = "".join(f"  A1/FAN02{number}: {{}}\n" for number in range(25))
    edit(tmp_path, lambda text: text + more)
    assert run(tmp_path) == 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 21
    assert told[19].endswith("there is no such device; did you mean A1/FAN02?")
    assert told[20] == "  and 5 more (--json has all)"
    assert run(tmp_path, "--json") == 0
    unknown = json.loads(capsys.readouterr().out)["unknown"]
    assert len(unknown) == 25
    assert unknown[20].endswith("there is no such device")


def test_one_tag_that_is_not_carried_is_one(tmp_path: Path) -> None:
    """In the flow and in Telegraf's file."""
    subject = make_subject(
        tmp_path, [make_tag(), make_tag("B", address="hr:8", type=ValueType.BCD16)]
    )
    assert "# 1 tag is not carried:" in RENDERERS["telegraf-modbus.toml"](subject).text
    assert not_carried(1) == "1 tag is not carried"
    assert not_carried(2) == "2 tags are not carried"


def test_ends_of_a_gauge_are_never_crossed_by_a_merge(tmp_path: Path) -> None:
    """One end by hand, and the map's new other end below it: the gauge stays as it was."""
    generate(tmp_path, two_devices())
    edit(tmp_path, lambda text: text.replace("lo: 1.0", "lo: 3.0"))
    outcome = generate(tmp_path, two_devices(hi=2.0))
    assert outcome.conflicts == (
        "cards.A1/PUMP01.gauge: yours, 3.0 to 4.0, stays; the map says 1.0 to 2.0",
    )
    assert dashboard(tmp_path)["cards"]["A1/PUMP01"]["gauge"] == {"lo": 3.0, "hi": 4.0}
    assert generate(tmp_path, two_devices(hi=2.0)).conflicts == ()


def test_a_file_in_another_encoding_is_told(tmp_path: Path) -> None:
    """With the byte."""
    generate(tmp_path, two_devices())
    (tmp_path / "out" / DASHBOARD).write_bytes("version: 1 # 펌프".encode("cp949"))
    with pytest.raises(ConfigError, match="byte 13 is not UTF-8"):
        generate(tmp_path, two_devices())


NAMES = st.lists(st.sampled_from("ABCDE"), unique=True, min_size=1)


@given(NAMES, NAMES, st.dictionaries(st.sampled_from("ABCDE"), st.sampled_from(["x", "y"])))
def test_every_edit_survives_every_change_of_the_map(
    old: list[str], new: list[str], edits: dict[str, str]
) -> None:
    """Titles that were edited are there afterwards, new devices are, and merging again is quiet."""

    def text(names: list[str], titles: dict[str, str]) -> str:
        cards = "".join(f"  {n}:\n    title: {titles.get(n, n)}\n" for n in names)
        return f"version: 1\ncards:\n{cards}"

    base, mine, fresh = text(old, {}), text(old, edits), text(new, {})
    merged = merge(base, Edited(mine, "x"), fresh, "base")
    cards = yaml_of(merged.text)["cards"]
    edited = {name: title for name, title in edits.items() if name in old}
    assert {name: cards[name]["title"] for name in edited} == edited
    assert set(cards) == set(new) | set(edited)
    assert merged.cards == Edited(merged.text, "x").cards
    again = merge(fresh, Edited(merged.text, "x"), fresh, "base")
    assert (again.text, again.conflicts) == (merged.text, [])


# -- the command -------------------------------------------------------------------------------


def run(folder: Path, *words: str) -> int:
    """`edge-agent generate` on the map in the folder."""
    where = ["--map", str(folder / "address_map.csv"), "--out", str(folder / "out")]
    return cli.main(["generate", *where, *words])


def test_check_writes_nothing_and_says_what_would_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 if anything would, 0 if nothing."""
    make_subject(tmp_path, nasty_tags())
    assert run(tmp_path, "--check", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert {file["state"] for file in told["files"]} == {"differs"}
    assert not (tmp_path / "out").exists()
    assert run(tmp_path) == 0
    assert "written    nodered.flow.json" in capsys.readouterr().out
    assert run(tmp_path, "--check", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert {file["state"] for file in told["files"]} == {"unchanged"}
    assert {one["device"] for one in told["left_out"]["nodered.flow.json"]} == {"SAFE", "OPC"}


def test_a_wrong_map_or_folder_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the problems as `check` has them."""
    (tmp_path / "address_map.csv").write_text("site,line\nA1,L1\n")
    assert run(tmp_path, "--json") == 2
    assert json.loads(capsys.readouterr().out)["problems"]
    make_subject(tmp_path, nasty_tags())
    (tmp_path / "out").write_text("a file")
    assert run(tmp_path) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_folder_that_cannot_be_had_is_told_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for every command that writes: exit code 2."""
    make_subject(tmp_path, nasty_tags())
    words = ["generate", "--map", str(tmp_path / "address_map.csv"), "--out", "/proc/edge/agent"]
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert "/proc/edge/agent" in told
    assert "hint: name a folder" in told
