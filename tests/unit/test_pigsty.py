"""deploy/pigsty/ says only what Pigsty understands, and names only roles that the schema has.

Pigsty ignores a key that it does not know, so a wrong letter would cost a setting in silence.
pigsty_4_5_0.txt holds the names that its source knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/pigsty"
TEXT = (FOLDER / "pigsty.yml").read_text()
ROLES_SQL = (ROOT / "sql/010_roles.sql").read_text()
PLACEHOLDER = re.compile(r"CHANGE_ME_[A-Z0-9]+(_[A-Z0-9]+)*")
SECRET = re.compile(r"(^|_)(password|pass|secret|key)$")
SUPERUSER = "plc_remote"


# --- reading YAML --------------------------------------------------------------------------------
# No YAML library is among the dependencies. This reads the part of the language that the file
# keeps to, and refuses the rest: block mappings and lists, flow ones on one line, plain and
# single-quoted scalars.


def scalar(word: str) -> object:
    """A plain or quoted word's value."""
    if word.startswith("'"):
        assert word.endswith("'"), word
        return word[1:-1]
    assert not set(word) & set('&*!|>%@`"{}[]'), f"not read here: {word}"
    if word in ("true", "false"):
        return word == "true"
    return int(word) if re.fullmatch(r"-?\d+", word) else word


def flow(text: str) -> object:
    """What stands on one line: `{ a: 1, b: [ x, y ] }`, `[ x ]` or a scalar."""
    words = re.findall(r"'[^']*'|[{}\[\],]|[^\s{}\[\],'][^{}\[\],']*", text)
    value, rest = _value([word.strip() for word in words])
    assert not rest, f"more than one value: {text}"
    return value


def _value(words: list[str]) -> tuple[object, list[str]]:
    first, *rest = words
    if first not in "{[":
        return scalar(first), rest
    entries: list[object] = []
    mapping: dict[str, object] = {}
    while rest[0] not in "}]":
        if first == "{":
            key, colon, plain = rest[0].partition(":")
            assert colon, f"no key: {rest[0]}"
            rest = [plain.strip(), *rest[1:]] if plain.strip() else rest[1:]
            mapping[key.strip()], rest = _value(rest)
        else:
            entry, rest = _value(rest)
            entries.append(entry)
        if rest[0] == ",":
            rest = rest[1:]
    return (mapping if first == "{" else entries), rest[1:]


def read(text: str) -> Any:
    """The document as mappings, lists and scalars. A key that comes twice is an error."""
    lines = [
        (len(line) - len(line.lstrip()), line.strip())
        for line in re.sub(r"(?m)(^|\s)#.*$", "", text).splitlines()
        if line.strip() not in ("", "---", "...")
    ]
    value, rest = _block(lines)
    assert not rest, f"indented otherwise: {rest[0]}"
    return value


def _block(lines: list[tuple[int, str]]) -> tuple[Any, list[tuple[int, str]]]:
    depth = lines[0][0]
    entries: list[object] = []
    mapping: dict[str, object] = {}
    while lines and lines[0][0] == depth:
        text, lines = lines[0][1], lines[1:]
        if text.startswith("- "):
            text = text[2:].strip()
            if re.match(r"[\w.]+: ", text):  # a mapping whose first key stands behind the dash
                entry, lines = _block([(depth + 2, text), *lines])
                entries.append(entry)
            else:
                entries.append(flow(text))
            continue
        key, colon, plain = text.partition(":")
        assert colon, f"no key: {text}"
        assert key not in mapping, f"twice: {key}"
        if plain.strip():
            mapping[key] = flow(plain.strip())
        else:
            mapping[key], lines = _block(lines)
    return entries or mapping, lines


INVENTORY = read(TEXT)["all"]
CLUSTER = INVENTORY["children"]["pg-plc"]["vars"]


# --- what Pigsty knows ---------------------------------------------------------------------------


def known() -> dict[str, set[str]]:
    """The names of pigsty_4_5_0.txt by section."""
    sections: dict[str, set[str]] = {}
    for line in (Path(__file__).parent / "pigsty_4_5_0.txt").read_text().splitlines():
        if line.startswith("["):
            names = sections.setdefault(line[1:-1], set())
        elif line and not line.startswith("#"):
            names.add(line)
    return sections


def parameters() -> Iterator[str]:
    """Every parameter that the inventory sets, for all hosts, a group or one host."""
    yield from INVENTORY["vars"]
    for group in INVENTORY["children"].values():
        yield from group.get("vars", {})
        for variables in group["hosts"].values():
            yield from variables


def pairs(value: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from pairs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pairs(inner)


# --- tests ---------------------------------------------------------------------------------------


def test_the_reader_reads() -> None:
    """Nesting, quotes, comments, and the two kinds of lists."""
    text = "a:\n  b: { c: 'x, y: z', d: [ 1, z ] } # no\n  e:\n    - f: 1\n      g: true\n    - h\n"
    nested = {"b": {"c": "x, y: z", "d": [1, "z"]}, "e": [{"f": 1, "g": True}, "h"]}
    assert read(text) == {"a": nested}


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: *b", "a: 1\n  b: 2", 'a: "b"', "a: { b }"])
def test_the_reader_refuses_what_it_does_not_read(text: str) -> None:
    """A key that comes twice, an alias, a wrong indentation: never a guess."""
    with pytest.raises(AssertionError):
        read(text)


def test_every_parameter_is_known() -> None:
    """Pigsty would ignore any other without a word."""
    used = set(parameters())
    assert len(used) > 30
    assert used <= known()["parameters"]


@pytest.mark.parametrize("key", ["pg_users", "pg_databases", "pg_hba_rules"])
def test_every_key_of_an_entry_is_known(key: str) -> None:
    """So are the keys of users, databases and access rules."""
    used = {name for entry in CLUSTER[key] for name in entry}
    assert used
    assert used <= known()[key]


def test_every_key_of_a_backup_store_is_known() -> None:
    """Each becomes an option of pgBackRest; the chosen store is among those described."""
    stores = INVENTORY["vars"]["pgbackrest_repo"]
    assert {name for store in stores.values() for name in store} <= known()["pgbackrest_repo"]
    assert INVENTORY["vars"]["pgbackrest_method"] in stores


def test_the_version_is_the_one_that_was_checked() -> None:
    """The list of names belongs to one version."""
    assert INVENTORY["vars"]["version"] == "v4.5.0"


def test_group_roles_are_those_of_the_schema() -> None:
    """What pigsty.yml makes ahead of the schema, and what it grants, sql/010_roles.sql knows."""
    (array,) = re.findall(r"ARRAY\[((?:'\w+'(?:, )?)+)\]", ROLES_SQL)
    groups = set(re.findall(r"'(\w+)'", array))
    made = {user["name"] for user in CLUSTER["pg_users"] if "password" not in user}
    assert made == groups
    granted = {role for user in CLUSTER["pg_users"] for role in user.get("roles", [])}
    assert granted
    assert granted <= groups


def test_nobody_logs_in_as_a_group_role() -> None:
    """No login, or, for the owner of TimescaleDB's jobs, not one connection."""
    for user in CLUSTER["pg_users"]:
        if "password" not in user:
            assert user["login"] is False or user["connlimit"] == 0, user["name"]


def test_only_edge_remote_is_a_superuser() -> None:
    """A dashboard or an agent needs its group role only."""
    assert [u["name"] for u in CLUSTER["pg_users"] if u.get("superuser")] == [SUPERUSER]


def test_access_is_encrypted_or_denied() -> None:
    """Every rule is hostssl or a refusal, and the last one refuses everybody else."""
    rules = CLUSTER["pg_hba_rules"]
    assert {rule["auth"] for rule in rules} == {"ssl", "deny"}
    assert (rules[-1]["user"], rules[-1]["addr"], rules[-1]["auth"]) == ("all", "world", "deny")
    assert [rule["order"] for rule in rules] == sorted(rule["order"] for rule in rules)
    aliases = known()["pg_hba_rules addr"]
    for rule in rules:
        assert rule["addr"] in aliases or re.fullmatch(r"[\d.]+/\d+", rule["addr"]), rule
        assert rule["auth"] in known()["pg_hba_rules auth"]


def test_every_secret_is_a_placeholder() -> None:
    """Nobody starts a cluster with a password that the whole world can read here."""
    secrets = [(k, v) for k, v in pairs(INVENTORY) if SECRET.search(k) and isinstance(v, str)]
    assert len(secrets) >= 14
    assert not [key for key, value in secrets if not PLACEHOLDER.fullmatch(value)]
    assert len({value for _, value in secrets}) == len(secrets), "each has its own"


def test_all_of_pigstys_own_passwords_are_set() -> None:
    """Each has a default that is printed in its documentation."""
    own = {
        name
        for name in known()["parameters"]
        if name.endswith("_password") and name.split("_")[0] not in ("minio", "dbsu")
    }
    without_default = {"pg_dbsu_password", "pg_etcd_password"}
    assert own - without_default <= set(INVENTORY["vars"])


def test_timescaledb_is_installed_loaded_first_and_created() -> None:
    """Any one of the three alone gives a database without it."""
    assert "timescaledb" in CLUSTER["pg_extensions"]
    assert CLUSTER["pg_libs"].split(",")[0] == "timescaledb"
    (database,) = CLUSTER["pg_databases"]
    assert "timescaledb" in database["extensions"]


def test_the_baseline_names_the_same_database_and_roles() -> None:
    """plc.sql is what `baseline` says, and grants to roles that exist by then."""
    (database,) = CLUSTER["pg_databases"]
    sql = re.sub(r"--.*", "", (FOLDER / database["baseline"]).read_text())
    assert set(re.findall(r"ON DATABASE (\w+)", sql)) == {database["name"]}
    users = {user["name"] for user in CLUSTER["pg_users"]}
    (granted,) = re.findall(r"GRANT CONNECT ON DATABASE \w+ TO ([\w, ]+);", sql)
    assert set(granted.split(", ")) <= users


def test_addresses_are_placeholders() -> None:
    """The hosts are those of Pigsty's own examples, one primary among three, an odd etcd."""
    hosts = {host for group in INVENTORY["children"].values() for host in group["hosts"]}
    assert hosts == {"10.10.10.10", "10.10.10.11", "10.10.10.12"}
    members = INVENTORY["children"]["pg-plc"]["hosts"].values()
    assert sorted(member["pg_role"] for member in members) == ["primary", "replica", "replica"]
    assert len(INVENTORY["children"]["etcd"]["hosts"]) % 2 == 1
