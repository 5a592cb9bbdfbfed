"""What the agent can be told, from a TOML file, the environment and the command line.

Precedence, lowest first: defaults, `edge-agent.toml`, `EDGE_AGENT__SECTION__KEY` variables,
command line. A secret may be given as the name of a file that holds it: its key with `_file`
appended, in the file or in the environment. A relative file name means the file of that name in
`$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`) if there is one; else it counts from the
settings file's folder, or from the working folder if it came from elsewhere. All are absolute then.

One file serves the whole installation, so the sections of `edge-remote` and `edge-dashboard` are
checked here as well. docs/settings.md is the reference; a test holds it to these models.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from edge_agent.errors import ConfigError
from edge_agent.settings_sources import (
    UNKNOWN_SECRET,
    Entry,
    KeyTable,
    Problems,
    allowed,
    collect,
    shown,
)

ID_CHARS_MAX = 64
"""As long as a host name may be; the id stands in MQTT client ids and in database rows."""

JOURNAL_BYTES_MIN = 1_000_000
"""A smaller journal could not hold one second of a plant."""

JOURNAL_BYTES_MAX = 10_000_000_000_000
"""Just below SQLite's own limit: 2^32 - 2 pages of 4,096 bytes."""

TOPIC_BYTES_MAX = 65_535
"""MQTT 5, 1.5.4: a string's length has two bytes."""

MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}
"""As registered with IANA; by scheme."""

DATABASE_DAYS_MAX = 3_660
"""Ten years; sql/015_settings.sql has the same limit."""

STATE_FOLDER = Path("/var/lib/edge-agent")
"""Where systemd's `StateDirectory=edge-agent` puts the data; commands must find it there too."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _host_name() -> str:
    return re.sub(r"[^\w.-]", "-", socket.gethostname())[:ID_CHARS_MAX] or "edge-agent"


def _checked_address(text: str) -> str:
    _split_address(text)
    return text


ListenAddress = Annotated[str, AfterValidator(_checked_address)]
"""HOST:PORT, or nothing for nowhere."""


class AgentSettings(_Section):
    """The daemon itself."""

    id: str = Field(default_factory=_host_name)
    data_dir: Path = Path("edge-agent-data")
    http: ListenAddress = "127.0.0.1:9108"
    commit_interval_ms: Annotated[int, Field(ge=50, le=5_000)] = 200
    shutdown_timeout_s: Annotated[float, Field(ge=1, le=600)] = 20
    log_format: Literal["auto", "keyvalue", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("id")
    @classmethod
    def _check_id(cls, text: str) -> str:
        if not re.fullmatch(rf"[\w.-]{{1,{ID_CHARS_MAX}}}", text):
            raise ValueError(f"1 to {ID_CHARS_MAX} letters, digits, '.', '_' or '-'")
        return text

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host and port to listen on; None where HTTP is off."""
        return _split_address(self.http)

    @property
    def journal_path(self) -> Path:
        """The journal's file."""
        return self.data_dir / "journal.db"

    @property
    def store_path(self) -> Path:
        """The embedded store's file."""
        return self.data_dir / "store.db"


class JournalSettings(_Section):
    """The queue on disk."""

    bytes_max: Annotated[int, Field(ge=JOURNAL_BYTES_MIN, le=JOURNAL_BYTES_MAX)] = 2_000_000_000
    policy: Literal["drop_oldest", "thin", "stop"] = "drop_oldest"


class Broker(NamedTuple):
    """Where the MQTT broker is."""

    host: str
    port: int
    tls: bool = False


class MqttSettings(_Section):
    """The broker; on when ``url`` is set."""

    url: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    ingest_topics: tuple[str, ...] = ()

    @field_validator("url")
    @classmethod
    def _check_url(cls, text: str | None) -> str | None:
        return _check_url(text, tuple(MQTT_PORTS), path_allowed=False) if text else None

    @field_validator("ca_file", "cert_file", "key_file")
    @classmethod
    def _check_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        is_own = info.context is None or info.context["own"]
        if path is not None and is_own and not _is_readable_file(path):
            raise ValueError("a file that exists and can be read")
        return path

    @field_validator("ingest_topics")
    @classmethod
    def _check_topics(cls, filters: tuple[str, ...]) -> tuple[str, ...]:
        for text in filters:
            if not _is_topic_filter(text):
                raise ValueError("MQTT topic filters, '+' for one level, '#' for all at the end")
        return filters

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both or neither")
        if (self.ca_file or self.cert_file) and self.broker and not self.broker.tls:
            raise ValueError(
                "ca_file, cert_file and key_file are for TLS, but url says mqtt://: write mqtts://"
            )
        return self

    @property
    def broker(self) -> Broker | None:
        """Where ``url`` says that the broker is; None where it is not set."""
        if self.url is None:
            return None
        parts = urlsplit(self.url)
        port = parts.port or MQTT_PORTS[parts.scheme]
        return Broker(parts.hostname or "", port, tls=parts.scheme == "mqtts")


class PostgresSettings(_Section):
    """PostgreSQL or TimescaleDB; on when ``dsn`` is set."""

    dsn: SecretStr | None = None
    flavour: Literal["auto", "timescale", "postgres"] = "auto"
    batch_max: Annotated[int, Field(ge=100, le=100_000)] = 5_000
    flush_interval_ms: Annotated[int, Field(ge=50, le=60_000)] = 1_000
    chunk_days: Annotated[int, Field(ge=1, le=30)] = 1
    compress_days: Annotated[int, Field(ge=1, le=DATABASE_DAYS_MAX)] = 7
    raw_days: Annotated[int, Field(ge=1, le=DATABASE_DAYS_MAX)] = 90
    minute_days: Annotated[int, Field(ge=1, le=DATABASE_DAYS_MAX)] = 400
    refresh_minute_days: Annotated[int, Field(ge=1, le=DATABASE_DAYS_MAX)] = 7
    refresh_hour_days: Annotated[int, Field(ge=1, le=DATABASE_DAYS_MAX)] = 31

    @field_validator("dsn")
    @classmethod
    def _check_dsn(cls, dsn: SecretStr | None) -> SecretStr | None:
        return _check_dsn(dsn)

    @model_validator(mode="after")
    def _check_days(self) -> Self:
        """What is refreshed must still have the rows it is computed from."""
        for refreshed, kept in (
            ("refresh_minute_days", "raw_days"),
            ("refresh_hour_days", "minute_days"),
        ):
            if getattr(self, refreshed) > getattr(self, kept):
                raise ValueError(
                    f"{refreshed} ({getattr(self, refreshed)}) must not be more than {kept} "
                    f"({getattr(self, kept)}): older rows are gone"
                )
        return self


class InfluxSettings(_Section):
    """InfluxDB 2; on when ``url`` is set."""

    url: str | None = None
    token: SecretStr | None = None
    org: str | None = None
    bucket: str | None = None
    measurement: str = "plc"
    flush_interval_ms: Annotated[int, Field(ge=50, le=60_000)] = 1_000

    @field_validator("url")
    @classmethod
    def _check_url(cls, text: str | None) -> str | None:
        return _check_url(text, ("http", "https"), path_allowed=True) if text else None

    @field_validator("token")
    @classmethod
    def _check_token(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not token.get_secret_value().isprintable():
            raise ValueError("one line of printable characters")
        return token

    @field_validator("measurement")
    @classmethod
    def _check_measurement(cls, text: str) -> str:
        if not text or text.startswith("#") or not text.isprintable():
            raise ValueError("printable text that is not empty and does not start with '#'")
        return text

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        missing = [name for name in ("token", "org", "bucket") if getattr(self, name) is None]
        if self.url and missing:
            raise ValueError(f"url is set, so {', '.join(missing)} must be set too")
        return self


class StoreSettings(_Section):
    """The embedded history."""

    enabled: Literal["auto"] | bool = "auto"
    raw_hours: Annotated[int, Field(ge=1, le=8_760)] = 24
    minute_days: Annotated[int, Field(ge=1, le=3_660)] = 90


class RemoteSettings(_Section):
    """Replication to the remote; for `edge-remote`."""

    edge_dsn: SecretStr | None = None
    remote_dsn: SecretStr | None = None
    name: str = "edge"
    subscription_dsn: SecretStr | None = None
    rep_password: SecretStr | None = None
    outbox_hours: Annotated[int, Field(ge=1, le=8_760)] = 48
    wal_keep_bytes: Annotated[int, Field(ge=64_000_000, le=10_000_000_000_000)] = 4_000_000_000
    http: ListenAddress = "127.0.0.1:9109"

    @field_validator("edge_dsn", "remote_dsn", "subscription_dsn")
    @classmethod
    def _check_dsn(cls, dsn: SecretStr | None) -> SecretStr | None:
        return _check_dsn(dsn)

    @field_validator("name")
    @classmethod
    def _check_name(cls, text: str) -> str:
        # Slots allow no more than this, and "plc_rep_" before it still fits a role's 63 bytes.
        if not re.fullmatch(r"[a-z0-9_]{1,40}", text):
            raise ValueError("1 to 40 small letters, digits or '_'")
        return text

    @field_validator("rep_password")
    @classmethod
    def _check_password(cls, password: SecretStr | None) -> SecretStr | None:
        # Other characters would need SASLprep (RFC 4013) to mean the same on every client.
        text = password.get_secret_value() if password is not None else ""
        if text and not re.fullmatch(r"[!-~]{12,200}", text):
            raise ValueError("12 to 200 ASCII letters, digits and signs, without spaces")
        return password

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host and port to listen on; None where HTTP is off."""
        return _split_address(self.http)


class DashboardSettings(_Section):
    """Where the pages get their data, and who may look; for `edge-dashboard`."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8501
    source: Literal["store", "edge", "remote"] = "store"
    edge_dsn: SecretStr | None = None
    remote_dsn: SecretStr | None = None
    agent_url: str | None = None
    users_file: Path | None = None
    cards_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @field_validator("edge_dsn", "remote_dsn")
    @classmethod
    def _check_dsn(cls, dsn: SecretStr | None) -> SecretStr | None:
        return _check_dsn(dsn)

    @field_validator("host")
    @classmethod
    def _check_host(cls, text: str) -> str:
        try:
            _split_address(f"[{text}]:0" if ":" in text else f"{text}:0")
        except ValueError:
            raise ValueError("an address or a host name, without port") from None
        return text

    @field_validator("agent_url")
    @classmethod
    def _check_url(cls, text: str | None) -> str | None:
        return _check_url(text, ("http", "https"), path_allowed=True) if text else None

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        # Whether they can be read is edge-dashboard's business: the agent runs as another user.
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both or neither")
        return self

    def agent_address(self, agent: AgentSettings) -> str:
        """Where the agent's HTTP is: ``agent_url``, else this machine's agent.

        Raises ``ConfigError`` where neither is there.
        """
        if self.agent_url:
            return self.agent_url
        if agent.http_address is None:
            raise ConfigError(
                "agent.http is off, so there are no live values", hint="set dashboard.agent_url"
            )
        host, port = agent.http_address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Settings(_Section):
    """All settings; every section has defaults, so that no file is needed at all."""

    agent: AgentSettings = Field(default_factory=AgentSettings)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    mqtt: MqttSettings = Field(default_factory=MqttSettings)
    postgres: PostgresSettings = Field(default_factory=PostgresSettings)
    influx: InfluxSettings = Field(default_factory=InfluxSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    remote: RemoteSettings = Field(default_factory=RemoteSettings)
    dashboard: DashboardSettings = Field(default_factory=DashboardSettings)

    @property
    def store_enabled(self) -> bool:
        """Whether the embedded history is kept; "auto" means: when no database is set."""
        if self.store.enabled == "auto":
            return self.postgres.dsn is None and self.influx.url is None
        return self.store.enabled


SECTIONS: dict[str, type[_Section]] = {
    "agent": AgentSettings,
    "journal": JournalSettings,
    "mqtt": MqttSettings,
    "postgres": PostgresSettings,
    "influx": InfluxSettings,
    "store": StoreSettings,
    "remote": RemoteSettings,
    "dashboard": DashboardSettings,
}

_FIELDS: Mapping[str, Mapping[str, FieldInfo]] = {
    section: model.model_fields for section, model in SECTIONS.items()
}


def _is_there(path: Path) -> bool:
    """Whether something has this name; what is wrong with it is found when it is read."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def load_settings(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
    *,
    own: Container[str] | None = None,
) -> Settings:
    """Read, merge and check all settings.

    ``path`` is the settings file, or None for none. ``overrides`` come from the command line, by
    dotted name (`{"agent.http": ""}`). ``own`` are the sections that the program uses, None for
    all: files that others name are not its business, and it may have no right to read them. Paths
    come out absolute: whoever changes the working folder later moves no file. Raises
    ``ConfigError`` that lists every problem, one a line: place, value found (never a secret's), and
    what is allowed.
    """
    if path is not None and not _is_there(path):
        raise ConfigError(
            f"{path}: there is no such file",
            hint="--config names the settings' file; without it every setting has its default",
        )
    problems = Problems()
    own = SECTIONS if own is None else own
    entries = collect(KeyTable(_FIELDS), path, environ, overrides or {}, problems, own)
    sections: dict[str, _Section] = {}
    for section, model in SECTIONS.items():
        values = {key: entry.value for key, entry in entries.get(section, {}).items()}
        if section == "agent":
            values.setdefault("data_dir", _default_data_dir(environ))
        try:
            sections[section] = model.model_validate(values, context={"own": section in own})
        except ValidationError as error:
            _explain(error, section, entries.get(section, {}), problems)
    if problems:
        raise ConfigError(str(problems), hint="docs/settings.md lists every key")
    return Settings.model_validate(sections)


def _explain(
    error: ValidationError, section: str, entries: Mapping[str, Entry], problems: Problems
) -> None:
    """Put pydantic's findings into words: one problem for each key, however many findings."""
    for key in dict.fromkeys(details["loc"][:1] for details in error.errors(include_url=False)):
        details: Any = next(e for e in error.errors(include_url=False) if e["loc"][:1] == key)
        reason = details.get("ctx", {}).get("error")
        if not key:  # a rule about several keys
            if section not in problems.incomplete:
                problems.add(f"[{section}]", str(reason))
            continue
        field, entry = _FIELDS[section][str(key[0])], entries[str(key[0])]
        rule = str(reason) if reason is not None else allowed(field)
        problems.add(entry.place(), f"found {shown(entry.value, field)}; allowed: {rule}")


def _default_data_dir(environ: Mapping[str, str]) -> Path:
    """systemd's folder; else where the service keeps its data, if we may write there; else here."""
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given).absolute()
    if STATE_FOLDER.is_dir() and os.access(STATE_FOLDER, os.W_OK):
        return STATE_FOLDER
    return Path("edge-agent-data").absolute()


def _split_address(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(\d{1,5})", text, re.ASCII)
    if match is None or int(match[2]) > 0xFFFF:
        raise ValueError('host:port, like 127.0.0.1:9108 or [::1]:9108, or "" for off')
    return match[1].strip("[]"), int(match[2])


def _check_url(text: str, schemes: tuple[str, ...], *, path_allowed: bool) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in schemes and parts.hostname and parts.port != 0
        (parts.hostname or "").encode("idna")  # as whoever looks it up will do
    except ValueError:  # a port that is no number, brackets that don't match, no name for DNS
        usable = False
    extra = any(mark in text for mark in "@?#") or not text.isprintable() or " " in text
    if not usable or extra or (parts.path.strip("/") and not path_allowed):
        forms = " or ".join(f"{scheme}://host:port" for scheme in schemes)
        raise ValueError(f"{forms}; user and password have keys of their own")
    return text


def _check_dsn(dsn: SecretStr | None) -> SecretStr | None:
    """Several hosts are allowed, each with a port of its own: `a:5432,b:5433`."""
    if dsn is None or dsn == UNKNOWN_SECRET:
        return dsn
    try:
        parts = urlsplit(dsn.get_secret_value())
        hosts = parts.netloc.rpartition("@")[2].split(",")
        usable = parts.scheme in ("postgresql", "postgres") and all(
            urlsplit(f"//{host}").port != 0 for host in hosts
        )
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("postgresql://user:password@host:port/database")
    return dsn


def _is_topic_filter(text: str) -> bool:
    """MQTT 5, 4.7.1: a wildcard fills its level, and '#' is the last one."""
    levels = text.split("/")
    return (
        0 < len(text.encode(errors="replace")) <= TOPIC_BYTES_MAX
        and text.isprintable()
        and all(level in ("+", "#") or not set(level) & set("+#") for level in levels)
        and "#" not in levels[:-1]
    )


def _is_readable_file(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except (OSError, ValueError):  # a name that no file can have
        return False
