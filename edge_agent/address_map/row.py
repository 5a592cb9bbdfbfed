"""One row of an address map: the rules for its cells, and the tag it becomes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from edge_agent.address_map import cells
from edge_agent.address_map.cells import ALLOWED
from edge_agent.errors import ConfigError
from edge_agent.model import AddressSyntax, ByteOrder, Tag, ValueType, locate


class Syntaxes:
    """The protocols' own checks; a protocol or connection is asked once for all its rows."""

    def __init__(self, syntax: Callable[[str], type[AddressSyntax]]) -> None:
        self._syntax = syntax
        self._protocols: dict[str, type[AddressSyntax] | str] = {}
        self._conns: dict[tuple[str, str], str | None] = {}

    def protocol(self, name: str) -> type[AddressSyntax]:
        """A protocol's syntax. Raises ``ValueError`` for one that nobody offers."""
        if name not in self._protocols:
            try:
                self._protocols[name] = self._syntax(name)
            except ConfigError as error:
                self._protocols[name] = str(error)
        found = self._protocols[name]
        if isinstance(found, str):
            raise ValueError(found)  # noqa: TRY004  (the text is the protocols' own complaint)
        return found

    def check_conn(self, protocol: str, conn: str) -> None:
        """Raises ``ValueError`` with the driver's text."""
        key = (protocol, conn)
        if key not in self._conns:
            self._conns[key] = None
            try:
                self.protocol(protocol).parse_conn(conn)
            except ValueError as error:
                self._conns[key] = str(error)
        complaint = self._conns[key]
        if complaint is not None:
            raise ValueError(complaint)


Name = Annotated[str, AfterValidator(cells.name)]
Label = Annotated[str, AfterValidator(cells.label)]
Text = Annotated[str, AfterValidator(cells.text)]
Number = Annotated[float, BeforeValidator(cells.number), Field(allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(cells.whole)]


class RowModel(BaseModel):
    """A row's rules. It takes the cells that are not empty, by column, as text.

    The context of a validation is the map's `Syntaxes`, or ``None`` to leave out the checks that
    belong to a protocol.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    site: Name
    line: Label
    device: Name
    tag: Name
    protocol: Text
    conn: Text
    unit_id: Whole = Field(default=1, ge=0, le=cells.UNIT_ID_MAX)
    type: Annotated[ValueType, BeforeValidator(cells.value_type)]
    address: Text
    scale: Number = 1.0
    offset: Number = 0.0
    period_ms: Whole = Field(ge=cells.PERIOD_MS_MIN, le=cells.PERIOD_MS_MAX)
    unit: Label = ""
    lo: Number | None = None
    hi: Number | None = None
    byte_order: ByteOrder = ByteOrder.ABCD
    deadband: Number = Field(default=0.0, ge=0)
    precision: Whole | None = Field(default=None, ge=0, le=cells.PRECISION_DIGITS_MAX)
    heartbeat_ms: Whole | None = Field(default=None, ge=cells.PERIOD_MS_MIN, le=cells.PERIOD_MS_MAX)
    enabled: Annotated[bool, BeforeValidator(cells.enabled)] = True
    description: Annotated[str, AfterValidator(cells.description)] = ""

    @field_validator("protocol")
    @classmethod
    def _protocol_is_offered(cls, protocol: str, info: ValidationInfo) -> str:
        if info.context is not None:
            info.context.protocol(protocol)
        return protocol

    @field_validator("conn")
    @classmethod
    def _conn_suits_protocol(cls, conn: str, info: ValidationInfo) -> str:
        if info.context is not None and "protocol" in info.data:
            info.context.check_conn(info.data["protocol"], conn)
        return conn

    @field_validator("address")
    @classmethod
    def _address_suits_protocol(cls, address: str, info: ValidationInfo) -> str:
        if info.context is not None and "protocol" in info.data and "type" in info.data:
            syntax = info.context.protocol(info.data["protocol"])
            if "conn" in info.data:
                locate(syntax, info.data["conn"], address, info.data["type"])
            else:  # that cell has a problem of its own
                syntax.parse_address(address, info.data["type"])
        return address

    @field_validator("scale")
    @classmethod
    def _scale_keeps_the_value(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("a scale of 0 makes every value the same; write 1 for no scaling")
        return scale

    @field_validator("hi")
    @classmethod
    def _hi_above_lo(cls, hi: float | None, info: ValidationInfo) -> float | None:
        lo = info.data.get("lo")
        if hi is not None and lo is not None and hi <= lo:
            if hi < lo:
                raise ValueError(f"not above lo, which is {lo:.12g}; exchange the two")
            raise ValueError(f"not above lo, which is {lo:.12g}")
        return hi

    @field_validator("byte_order", mode="before")
    @classmethod
    def _byte_order_suits_type(cls, text: str, info: ValidationInfo) -> ByteOrder:
        return cells.byte_order(text, info.data.get("type"))

    @field_validator("heartbeat_ms")
    @classmethod
    def _heartbeat_not_below_period(cls, value: int | None, info: ValidationInfo) -> int | None:
        period_ms = info.data.get("period_ms", 0)
        if value is not None and value < period_ms:
            raise ValueError(
                f"below period_ms, which is {period_ms}; write {period_ms} or more,"
                " or leave the cell empty"
            )
        return value

    def to_tag(self) -> Tag:
        """The row as the rest of the product knows it."""
        fields: dict[str, Any] = {
            # Most texts stand in many rows; interned, a tag takes half the memory.
            name: sys.intern(value) if type(value) is str else value
            for name, value in self.__dict__.items()
        }
        del fields["enabled"]
        return Tag(**fields)


def problems_of(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Column and message of everything that is wrong with a row."""
    for detail in error.errors(include_url=False):
        column = str(detail["loc"][0])
        yield column, _message(detail["type"], column, detail.get("ctx", {}))


def _message(kind: str, column: str, context: Mapping[str, Any]) -> str:
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return f"the cell is empty; write {ALLOWED[column]}"
    if kind == "greater_than_equal":
        return f"below {context['ge']:g}; allowed: {ALLOWED[column]}"
    if kind == "less_than_equal":
        return f"above {context['le']}; allowed: {ALLOWED[column]}"
    if kind == "finite_number":
        return f"too large; allowed: {ALLOWED[column]}"
    return f"allowed: {ALLOWED[column]}"
