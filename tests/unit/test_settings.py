"""Settings: precedence, secrets, messages, and that the documents tell the truth."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from edge_agent.errors import ConfigError
from edge_agent.settings import SECTIONS, Broker, MqttSettings, Settings, load_settings
from edge_agent.settings_sources import (
    LOCATED_LINES_MAX,
    SECRET_BYTES_MAX,
    UNKNOWN_SECRET,
    is_secret,
)

ROOT = Path(__file__).parents[2]
DSN = "postgresql://ingest:s3cret@db/plant"
UNFIXED = {("agent", "id"), ("agent", "data_dir")}  # defaults that depend on the machine


def load(
    folder: Path,
    toml: str = "",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    path = folder / "edge-agent.toml"
    path.write_text(toml, encoding="utf-8")
    return load_settings(path, environ or {}, overrides)


def problems_of(
    folder: Path,
    toml: str = "",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> list[str]:
    """The lines of the error, without the one that counts them."""
    with pytest.raises(ConfigError) as caught:
        load(folder, toml, environ, overrides)
    lines = str(caught.value).splitlines()
    if len(lines) > 1:
        assert lines[0] == f"{len(lines) - 1} problems in the settings:"
        return [line.strip() for line in lines[1:]]
    return lines


def test_no_settings_at_all_mean_the_embedded_store() -> None:
    """Without a file or variables every key has a usable default and only the store is on."""
    settings = load_settings(None, {})
    assert settings.mqtt.url is None
    assert settings.postgres.dsn is None
    assert settings.influx.url is None
    assert settings.store_enabled
    assert settings.agent.http_address == ("127.0.0.1", 9108)
    assert settings.journal.bytes_max == 2_000_000_000


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path: Path) -> None:
    """Each source overrides the one before it key by key, not section by section."""
    settings = load(
        tmp_path,
        '[agent]\nhttp = "127.0.0.1:1"\nlog_level = "debug"\ncommit_interval_ms = 100\n',
        {"EDGE_AGENT__AGENT__HTTP": "127.0.0.1:2", "EDGE_AGENT__AGENT__LOG_LEVEL": "error"},
        {"agent.http": "127.0.0.1:3", "agent.data_dir": tmp_path},
    )
    assert settings.agent.http_address == ("127.0.0.1", 3)
    assert settings.agent.log_level == "error"
    assert settings.agent.commit_interval_ms == 100
    assert settings.agent.data_dir == tmp_path


def test_every_key_can_come_from_the_environment() -> None:
    """Text becomes what the key asks for: numbers, truth, lists, secrets, paths."""
    settings = load_settings(
        None,
        {
            "EDGE_AGENT__JOURNAL__BYTES_MAX": "3_000_000",
            "EDGE_AGENT__AGENT__SHUTDOWN_TIMEOUT_S": "2.5",
            "EDGE_AGENT__STORE__ENABLED": "False",
            "EDGE_AGENT__MQTT__INGEST_TOPICS": "a/+/b, c/#",
            "EDGE_AGENT__MQTT__PASSWORD": "12345",
            "EDGE_AGENT__MQTT__USERNAME": "true",
            "EDGE_AGENT__POSTGRES__DSN": DSN,
            "EDGE_AGENT__AGENT__DATA_DIR": "/data",
            "EDGE_AGENT_SERVICE_HOST": "10.0.0.1",  # Kubernetes sets such; it is not ours
        },
    )
    assert settings.journal.bytes_max == 3_000_000
    assert settings.agent.shutdown_timeout_s == 2.5
    assert settings.store.enabled is False
    assert settings.mqtt.ingest_topics == ("a/+/b", "c/#")
    assert settings.mqtt.password == SecretStr("12345")
    assert settings.mqtt.username == "true"
    assert settings.postgres.dsn == SecretStr(DSN)
    assert settings.agent.data_dir == Path("/data")
    topics = {"EDGE_AGENT__MQTT__INGEST_TOPICS": '["a,b", "c"]'}
    assert load_settings(None, topics).mqtt.ingest_topics == ("a,b", "c")


def test_an_empty_variable_takes_back_what_the_file_says(tmp_path: Path) -> None:
    """A sink is switched off, and HTTP, without touching the file."""
    settings = load(
        tmp_path,
        '[mqtt]\nurl = "mqtt://broker"\n',
        {"EDGE_AGENT__MQTT__URL": "", "EDGE_AGENT__AGENT__HTTP": ""},
    )
    assert settings.mqtt.url is None
    assert settings.agent.http_address is None


@pytest.mark.parametrize(
    ("environ", "enabled"),
    [
        ({}, True),
        ({"EDGE_AGENT__MQTT__URL": "mqtt://broker"}, True),
        ({"EDGE_AGENT__POSTGRES__DSN": DSN}, False),
        ({"EDGE_AGENT__POSTGRES__DSN": DSN, "EDGE_AGENT__STORE__ENABLED": "true"}, True),
        ({"EDGE_AGENT__STORE__ENABLED": "false"}, False),
        (
            {
                "EDGE_AGENT__INFLUX__URL": "http://h",
                "EDGE_AGENT__INFLUX__TOKEN": "t",
                "EDGE_AGENT__INFLUX__ORG": "o",
                "EDGE_AGENT__INFLUX__BUCKET": "b",
            },
            False,
        ),
    ],
)
def test_the_store_is_on_when_no_database_is(environ: dict[str, str], enabled: bool) -> None:
    """ "auto" looks at postgres and influx, not at mqtt; true and false are obeyed."""
    assert load_settings(None, environ).store_enabled is enabled


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"STATE_DIRECTORY": "/state/a:/state/b"}, Path("/state/a")),
        ({"STATE_DIRECTORY": "/state/a", "EDGE_AGENT__AGENT__DATA_DIR": "/b"}, Path("/b")),
    ],
)
def test_systemd_says_where_the_data_goes(environ: dict[str, str], folder: Path) -> None:
    """The first state directory is the default; a setting wins over it."""
    assert load_settings(None, environ).agent.data_dir == folder


def test_commands_find_the_data_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is the default where it exists and can be written, else one right here."""
    monkeypatch.setattr("edge_agent.settings.STATE_FOLDER", tmp_path)
    assert load_settings(None, {}).agent.data_dir == tmp_path
    monkeypatch.setattr("edge_agent.settings.STATE_FOLDER", tmp_path / "none")
    assert load_settings(None, {}).agent.data_dir == Path.cwd() / "edge-agent-data"


def test_secrets_come_from_files(tmp_path: Path) -> None:
    """By absolute name, beside the settings file, or from systemd's credentials, which win."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "token").write_text("from-credentials\n")
    (tmp_path / "token").write_text("from-folder\n")
    (tmp_path / "password").write_text(" pass word \r\n")
    (tmp_path / "dsn").write_text(DSN)
    toml = (
        '[mqtt]\npassword_file = "password"\n'
        '[influx]\ntoken_file = "token"\n'
        '[postgres]\ndsn = "postgresql://other"\n'
    )
    dsn = {"EDGE_AGENT__POSTGRES__DSN_FILE": str(tmp_path / "dsn")}
    settings = load(tmp_path, toml, dsn)
    assert settings.mqtt.password == SecretStr(" pass word ")
    assert settings.influx.token == SecretStr("from-folder")
    assert settings.postgres.dsn == SecretStr(DSN)
    settings = load(tmp_path, toml, {"CREDENTIALS_DIRECTORY": str(credentials)})
    assert settings.influx.token == SecretStr("from-credentials")
    assert settings.mqtt.password == SecretStr(" pass word ")


def test_certificates_count_from_the_settings_file(tmp_path: Path) -> None:
    """So that a folder with all of it can be moved as one."""
    for name in ("ca.crt", "client.crt", "client.key"):
        (tmp_path / name).touch()
    toml = (
        '[mqtt]\nurl = "mqtts://broker"\nca_file = "ca.crt"\n'
        'cert_file = "client.crt"\nkey_file = "client.key"\n'
    )
    settings = load(tmp_path, toml)
    assert settings.mqtt.ca_file == tmp_path / "ca.crt"
    assert settings.mqtt.key_file == tmp_path / "client.key"


def test_paths_stay_what_they_are_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever they come from: the dashboard's server changes it after the settings are read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edge_agent.settings.STATE_FOLDER", tmp_path / "none")
    (tmp_path / "conf").mkdir()
    file_keys = ("users_file", "cards_file", "cert_file", "key_file")
    toml = "".join(f'{key} = "{key}"\n' for key in file_keys)
    (tmp_path / "conf/a.toml").write_text(f"[dashboard]\n{toml}")
    settings = load_settings(Path("conf/a.toml"), {})
    assert settings.agent.data_dir == tmp_path / "edge-agent-data"
    for key in file_keys:
        assert getattr(settings.dashboard, key) == tmp_path / "conf" / key
    assert load_settings(None, {"STATE_DIRECTORY": "state"}).agent.data_dir == tmp_path / "state"
    given = load_settings(None, {"EDGE_AGENT__DASHBOARD__CARDS_FILE": "cards.yaml"})
    assert given.dashboard.cards_file == tmp_path / "cards.yaml"
    given = load_settings(None, {}, {"agent.data_dir": "here"})
    assert given.agent.data_dir == tmp_path / "here"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * (SECRET_BYTES_MAX + 1), "larger than 65536 bytes"),
    ],
)
def test_a_secrets_file_that_is_no_good_is_named(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    """The problem says which key and why, and no second one follows from it."""
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    toml = '[influx]\nurl = "http://h"\norg = "o"\nbucket = "b"\ntoken_file = "secret"\n'
    (problem,) = problems_of(tmp_path, toml)
    assert problem.startswith("edge-agent.toml, line 5, [influx] token_file: ")
    assert words in problem


def test_a_device_is_not_read_as_a_secret(tmp_path: Path) -> None:
    """What never ends, or makes us wait, is refused."""
    (problem,) = problems_of(tmp_path, environ={"EDGE_AGENT__MQTT__PASSWORD_FILE": "/dev/zero"})
    assert problem == "EDGE_AGENT__MQTT__PASSWORD_FILE: /dev/zero: not a regular file"


def test_all_problems_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    """File, line, section and key, or the variable; what was found, is allowed, is near."""
    toml = """\
# a comment
[mqtt]
url = "mqtt://user:s3cret@broker"
passwrd = "s3cret"
ingest_topics = [
  "a/#/b",
]
[mqqt]
[journal]
policy = "oldest"
bytes_max = 3
bucket = "x"
[store]
enabled = "yes"
raw_hours = true
"""
    environ = {
        "EDGE_AGENT__STORE__MINUTE_DAYS": "9O",
        "EDGE_AGENT__MQTT__URLL": "x",
        "EDGE_AGENT__mqtt__username": "x",
        "EDGE_AGENT__POSTGRES__DSN": "s3cret",
        "EDGE_AGENT__NOTHING": "x",
    }
    problems = problems_of(tmp_path, toml, environ, {"agent.htp": "x"})
    expected = """\
edge-agent.toml, line 4, [mqtt] passwrd: unknown key; did you mean password?
edge-agent.toml, line 8, [mqqt]: unknown section; did you mean mqtt?
edge-agent.toml, line 12, [journal] bucket: unknown key; known: bytes_max, policy (it belongs to [influx])
EDGE_AGENT__MQTT__URLL: unknown variable; did you mean EDGE_AGENT__MQTT__URL?
EDGE_AGENT__mqtt__username: unknown variable; did you mean EDGE_AGENT__MQTT__USERNAME?
EDGE_AGENT__NOTHING: unknown variable; the form is EDGE_AGENT__SECTION__KEY, like EDGE_AGENT__MQTT__URL
command line, agent.htp: unknown setting; did you mean agent.http?
edge-agent.toml, line 11, [journal] bytes_max: found 3; allowed: a whole number from 1000000 to 10000000000000
edge-agent.toml, line 10, [journal] policy: found "oldest"; allowed: "drop_oldest", "thin", "stop"
edge-agent.toml, line 3, [mqtt] url: found "mqtt://***@broker"; allowed: mqtt://host:port or mqtts://host:port; user and password have keys of their own
edge-agent.toml, line 7, [mqtt] ingest_topics: found ["a/#/b"]; allowed: MQTT topic filters, '+' for one level, '#' for all at the end
EDGE_AGENT__POSTGRES__DSN: found a secret (not shown); allowed: postgresql://user:password@host:port/database
edge-agent.toml, line 14, [store] enabled: found "yes"; allowed: "auto", true, false
edge-agent.toml, line 15, [store] raw_hours: found true; allowed: a whole number from 1 to 8760
EDGE_AGENT__STORE__MINUTE_DAYS: found "9O"; allowed: a whole number from 1 to 3660
"""  # noqa: E501
    assert sorted(problems) == sorted(expected.splitlines())


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("[agent]\nhttp = x", "edge-agent.toml, line 2, column 8: Invalid value"),
        ("[agent\n", "line 1, column 7: "),
        ("a = 1\na = 2", ", at its end: "),
        ("a = " + "[" * 5_000, "nested too deeply"),
        ("a = " + "9" * 5_000, "digits"),
        ("agent = 3", "line 1, [agent]: must be a section"),
        ("x.y.z = 3", "[x]: unknown section"),
        ("mqtt.url = 3", "line 1, [mqtt] url: found 3; allowed: text"),
        ('mqtt = { url = "x" }', "line 1, [mqtt] url: found"),
        ('[mqtt]\n"a\\nb" = 1', "[mqtt] 'a\\nb': unknown key"),
        ('[mqtt]\npassword = "a"\npassword_file = "b"', "[mqtt] password says the same"),
        ("[mqtt]\npassword = 3", "found a secret (not shown); allowed: text"),
        ("[mqtt]\npassword_file = 3", "must be the name of a file"),
        ("[mqtt]\ncert_file = 'c'", "[mqtt] cert_file: found"),
        (
            "[influx]\nurl = 'http://h'\norg = ''",
            "[influx]: url is set, so token, org, bucket must",
        ),
        (
            "[influx]\nurl = 'http://h'\ntoken = ''\norg = 'o'\nbucket = 'b'",
            "[influx]: url is set, so token must",
        ),
        ("[influx]\nurl = 'h:8086'", "allowed: http://host:port or https://host:port"),
        ("[influx]\nmeasurement = '#x'", "does not start with '#'"),
        ("[influx]\ntoken = 'a\\nb'\n[mqtt]\nurl='http://x'", "mqtt://host:port"),
        ('[influx]\ntoken = "a\\nb"', "one line of printable characters"),
        ("[agent]\nid = 'a b'", "1 to 64 letters"),
        ("[agent]\nhttp = '9108'", 'or "" for off'),
        ("[agent]\nhttp = 'h:99999'", 'or "" for off'),
        ("[agent]\nshutdown_timeout_s = nan", "found NaN; allowed: a number from 1 to 600"),
        ("[agent]\ndata_dir = ''", 'found ""; allowed: a path'),
        ("[postgres]\ndsn = 'host=db'", "allowed: postgresql://"),
        ("[remote]\nremote_dsn = 'postgresql://a:5432,b:99999/plc'", "allowed: postgresql://"),
        (
            "[postgres]\nraw_days = 3",
            "[postgres]: refresh_minute_days (7) must not be more than raw_days (3)",
        ),
        ("[dashboard]\nsource = 1979-05-27", 'found "1979-05-27"; allowed: "store", "edge"'),
    ],
)
def test_a_problem_is_told_where_it_is(tmp_path: Path, toml: str, problem: str) -> None:
    """Syntax errors with line and column, odd spellings of a section, each kind of wrong value."""
    assert any(problem in line for line in problems_of(tmp_path, toml))


def test_a_dsn_may_name_several_hosts(tmp_path: Path) -> None:
    """A cluster's nodes, each with its own port; one of them is the primary."""
    dsn = "postgresql://u:p@[::1]:5432,b:5433,c/plc?target_session_attrs=primary"
    settings = load(tmp_path, f'[remote]\nremote_dsn = "{dsn}"')
    assert settings.remote.remote_dsn == SecretStr(dsn)


def test_tls_files_need_a_tls_address(tmp_path: Path) -> None:
    """Whoever names certificates means TLS; a plain connection must not pass for one."""
    (tmp_path / "ca.crt").touch()
    (problem,) = problems_of(tmp_path, '[mqtt]\nurl = "mqtt://h"\nca_file = "ca.crt"\n')
    assert "write mqtts://" in problem
    for key in ("cert_file", "key_file"):
        (problem,) = problems_of(tmp_path, f'[mqtt]\nurl = "mqtts://h"\n{key} = "ca.crt"\n')
        assert problem == "[mqtt]: cert_file and key_file go together: give both or neither"
    assert load(tmp_path, '[mqtt]\nurl = "MQTTS://h"\nca_file = "ca.crt"\n').mqtt.ca_file


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://broker.local", Broker("broker.local", 1883, tls=False)),
        ("mqtts://10.0.0.5/", Broker("10.0.0.5", 8883, tls=True)),
        ("MQTT://[::1]:1884", Broker("::1", 1884, tls=False)),
        ("", None),
    ],
)
def test_where_the_broker_is(tmp_path: Path, url: str, broker: Broker | None) -> None:
    """Host, the scheme's own port unless another is given, and whether with TLS."""
    assert load(tmp_path, f'[mqtt]\nurl = "{url}"\n').mqtt.broker == broker
    assert MqttSettings(url=url).broker == broker


@pytest.mark.parametrize(
    "url",
    [
        *("localhost", "localhost:1883", "http://h", "mqtt://", "mqtt://:1883", "mqtt://h:x"),
        *("mqtt://h:70000", "mqtt://h:0", "mqtt://h/topic", "mqtt://h?x=1", "mqtt://[::1"),
        *("mqtt://h#x", "mqtt://h h", "mqtt://a..b", f"mqtt://{'a' * 70}.de"),
        *("mqtt://user:s3cret@h", "mqtt://us:s3cret@[h", "mqtt://:s3cret@h"),
    ],
)
def test_what_is_no_brokers_address_is_refused(tmp_path: Path, url: str) -> None:
    """What is allowed is said; a password in the address is not repeated."""
    (problem,) = problems_of(tmp_path, f'[mqtt]\nurl = "{url}"\n')
    assert "[mqtt] url: found" in problem
    assert "allowed: mqtt://host:port or mqtts://host:port" in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize("name", ["absent.toml", "folder", "latin1.toml", "large.toml"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """Absent, no file at all, not UTF-8, far too large: its path and why."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin1.toml").write_bytes(b"[mqtt]\nusername = '\xe9'")
    (tmp_path / "large.toml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / name, {})
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_files_from_windows_load(tmp_path: Path) -> None:
    """A byte order mark and CRLF line ends don't matter."""
    path = tmp_path / "edge-agent.toml"
    path.write_bytes('\ufeff[mqtt]\r\nusername = "김"\r\n'.encode())
    assert load_settings(path, {}).mqtt.username == "김"


def test_a_problem_far_down_a_long_file_is_told_without_its_line(tmp_path: Path) -> None:
    """Finding lines has a bound."""
    (problem,) = problems_of(tmp_path, "\n" * LOCATED_LINES_MAX + "[store]\nraw_hours = 0\n")
    assert problem.startswith("edge-agent.toml, [store] raw_hours: ")


def test_secrets_are_not_in_the_repr() -> None:
    """Settings may be logged."""
    environ = {"EDGE_AGENT__POSTGRES__DSN": DSN, "EDGE_AGENT__MQTT__PASSWORD": "s3cret"}
    settings = load_settings(None, environ)
    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump_json()}"


# --- anything at all: it loads, or it says why ---------------------------------------------------

texts = st.text(max_size=12) | st.sampled_from(
    ["", "auto", "mqtt://h", "http://[", "[", "/dev/zero", "\0", "x" * 5_000, "::", "a:1", "//@"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.datetimes()
toml_keys = st.sampled_from(
    [
        *(name for model in SECTIONS.values() for name in model.model_fields),
        *("password_file", "token_file", "dsn_file", "x", ""),
    ]
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
documents = st.dictionaries(
    st.sampled_from([*SECTIONS, "x"]), values | st.dictionaries(toml_keys, values, max_size=6)
)


def toml_of(value: Any) -> str:
    """A value in TOML, as far as TOML has it."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(name)} = {toml_of(item)}" for name, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    if value is None or isinstance(value, bool | str):
        return json.dumps("" if value is None else value)
    return str(value).replace("+", "")


def load_or_explain(path: Path | None, environ: Mapping[str, str]) -> None:
    try:
        settings = load_settings(path, environ)
    except ConfigError:
        return
    assert isinstance(settings.store_enabled, bool)


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60) | documents)
def test_any_file_loads_or_is_explained(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    """Any bytes, any text, any values under our own names: settings or a ConfigError."""
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    if isinstance(content, dict):
        content = "\n".join(f"{name} = {toml_of(value)}" for name, value in content.items())
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    load_or_explain(path, {})


variables = st.sampled_from(
    [
        f"EDGE_AGENT__{section}__{name}{tail}".upper()
        for section, model in SECTIONS.items()
        for name in model.model_fields
        for tail in ("", "_file")
    ]
) | st.text(max_size=8).map("EDGE_AGENT__{}".format)


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.dictionaries(variables, texts | scalars.map(str), max_size=12))
def test_any_environment_loads_or_is_explained(environ: dict[str, str]) -> None:
    """Any text in any of our variables, and in some that aren't: settings or a ConfigError."""
    load_or_explain(None, environ)


# --- the documents -------------------------------------------------------------------------------


def default_of(section: str, name: str) -> object:
    value = SECTIONS[section].model_fields[name].default
    return list(value) if isinstance(value, tuple) else value


def example() -> str:
    return (ROOT / "examples/edge-agent.toml").read_text(encoding="utf-8")


def uncommented() -> str:
    """The example with every setting in force; prose has a space behind its '#'."""
    return re.sub(r"(?m)^#(?=\w)", "", example())


def test_the_example_has_every_key_and_no_other() -> None:
    """What is commented out is the default, or an example where there is none."""
    document = tomllib.loads(uncommented())
    assert {section: list(keys) for section, keys in document.items()} == {
        section: list(model.model_fields) for section, model in SECTIONS.items()
    }
    for section, keys in document.items():
        for name, value in keys.items():
            default = default_of(section, name)
            if default is not None and (section, name) not in UNFIXED:
                assert value == default, f"[{section}] {name}"


def test_the_example_loads_as_it_is_and_uncommented(tmp_path: Path) -> None:
    """As it is it changes nothing; with everything in force it is valid."""
    assert load(tmp_path, example()) == load_settings(None, {})
    for name in ("ca.crt", "client.crt", "client.key"):
        (tmp_path / name).touch()
    assert load(tmp_path, uncommented()).mqtt.url == "mqtts://broker.example:8883"


def test_the_reference_has_every_key_with_its_default_and_bounds() -> None:
    """docs/settings.md: one table for each section, one row for each key, secrets marked."""
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    found = {}
    for section, body in re.findall(r"(?ms)^## \[(\w+)\]\n(.*?)(?=^## |\Z)", text):
        rows = re.findall(r"(?m)^\| `(\w+)` \| (.*?) \| (.*?) \|", body)
        found[section] = [name for name, _, _ in rows]
        for name, default, allowed in rows:
            field = SECTIONS[section].model_fields[name]
            value = default_of(section, name)
            if (section, name) not in UNFIXED:
                shown = "not set" if value is None else f"`{json.dumps(value)}`"
                assert default == shown, f"[{section}] {name}"
            assert ("*secret*" in allowed) is is_secret(field), f"[{section}] {name}"
            bounds = [getattr(rule, end) for rule in field.metadata for end in ("ge", "le")
                      if hasattr(rule, end)]  # fmt: skip
            if bounds:
                assert allowed == " to ".join(map(str, bounds)), f"[{section}] {name}"
    assert found == {section: list(model.model_fields) for section, model in SECTIONS.items()}
    assert list(SECTIONS) == list(Settings.model_fields)


def test_a_program_needs_no_right_to_read_the_secrets_of_another(tmp_path: Path) -> None:
    """One file serves all: what belongs to others counts as set, and nobody asks what it is."""
    text = (
        '[mqtt]\nurl = "mqtts://b:8883"\npassword_file = "secret"\nca_file = "ca.crt"\n'
        '[postgres]\ndsn_file = "dsn"\n'
        '[influx]\nurl = "http://i:8086"\norg = "o"\nbucket = "b"\ntoken_file = "token"\n'
        '[remote]\nedge_dsn_file = "edge"\nrep_password_file = "rep"\n'
        '[dashboard]\nedge_dsn_file = "viewer"\n'
    )
    path = tmp_path / "edge-agent.toml"
    path.write_text(text)
    (tmp_path / "viewer").write_text("postgresql://v@h/d")
    settings = load_settings(path, {}, own=("agent", "dashboard"))
    assert settings.dashboard.edge_dsn is not None
    assert settings.dashboard.edge_dsn.get_secret_value() == "postgresql://v@h/d"
    for secret in (settings.postgres.dsn, settings.influx.token, settings.remote.rep_password):
        assert secret == UNKNOWN_SECRET
    assert not settings.store_enabled
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {}, own=("agent", "mqtt", "postgres"))
    message = str(caught.value)
    assert "3 problems" in message
    for name in ("secret", "ca.crt", "dsn"):
        assert name in message
    assert "rep" not in message


def test_what_can_be_read_is_checked_for_everybody(tmp_path: Path) -> None:
    """A wrong address is wrong, whoever finds it."""
    path = tmp_path / "edge-agent.toml"
    path.write_text('[dashboard]\nedge_dsn = "mysql://x"\n')
    with pytest.raises(ConfigError, match="edge_dsn"):
        load_settings(path, {}, own=("agent",))
