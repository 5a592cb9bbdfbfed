"""What a command is going to do, as a list: printed by `--dry-run`, or carried out one by one.

A command first looks, then makes the list of what is missing. An empty list means that there is
nothing to do. A command that was interrupted is run again and goes on from there.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TextIO

import orjson

from edge_agent.errors import TransientError
from edge_agent.postgres.sql_files import queries
from remote.ends import End


def _as_it_is(error: TransientError) -> TransientError:
    return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do at one end.

    ``what`` is a sentence. ``sql`` is what is sent; it is shown, so it never holds a secret: a
    statement that needs one reads current_setting('plc_remote.secret'), which ``secret`` is bound
    to for this transaction, with the server's logging of statements off. ``transaction`` is False
    for what PostgreSQL refuses in one. ``act`` is called instead of sending ``sql`` if the step is
    more than SQL; ``sql`` then is what is shown. ``explain`` may put an error into better words.
    """

    where: End
    what: str
    sql: str = ""
    arguments: tuple[object, ...] = ()
    secret: str | None = field(default=None, repr=False)
    transaction: bool = True
    act: Callable[[], Awaitable[object]] | None = None
    explain: Callable[[TransientError], TransientError] = _as_it_is

    async def carry_out(self) -> None:
        """Do it. Raises ``ConfigError`` or ``TransientError``."""
        try:
            await self._carry_out()
        except TransientError as error:
            explained = self.explain(error)
            if explained is error:
                raise
            raise explained from error

    async def _carry_out(self) -> None:
        if self.act is not None:
            await self.act()
        elif self.transaction:
            async with self.where.transaction(self.what):
                if self.secret is not None:
                    await self.where.connection.execute(queries()["secret_unlogged"])
                    await self.where.connection.execute(queries()["secret_bind"], self.secret)
                await self.where.connection.execute(self.sql, *self.arguments)
        else:
            await self.where.execute(self.sql, *self.arguments, doing=self.what)

    def shown(self) -> dict[str, str]:
        """For whoever reads: the SQL with its arguments."""
        sql = self.sql
        for number, argument in enumerate(self.arguments, 1):
            sql += f"\n-- ${number} = {argument!r}"
        return {"where": self.where.label, "what": self.what, "sql": sql.strip()}


class Narrator:
    """Prints what is done: a sentence each while it happens, or one JSON object at the end."""

    def __init__(
        self, *, as_json: bool = False, dry_run: bool = False, output: TextIO | None = None
    ) -> None:
        self.dry_run = dry_run
        self._as_json = as_json
        self._output = output or sys.stdout
        self._steps: list[Step] = []
        self._notes: list[str] = []
        self._extra: dict[str, object] = {}

    async def carry_out(self, steps: Iterable[Step]) -> int:
        """Print each step, and do it unless this is a dry run; returns how many there were."""
        count = 0
        for step in steps:
            count += 1
            self._steps.append(step)
            self._print(f"{step.where.label:6}  {step.what}")
            if self.dry_run:
                for line in step.shown()["sql"].splitlines():
                    self._print(f"          {line}")
            else:
                await step.carry_out()
        return count

    def note(self, text: str) -> None:
        """Say something that is no step."""
        self._notes.append(text)
        self._print(text)

    def add(self, **facts: object) -> None:
        """Further members of the JSON object; nothing is printed otherwise."""
        self._extra |= facts

    def finish(self) -> None:
        """Print the JSON object, if that was asked for."""
        if self._as_json:
            document = {
                "dry_run": self.dry_run,
                "steps": [step.shown() for step in self._steps],
                "notes": self._notes,
                **self._extra,
            }
            print(orjson.dumps(document, default=str).decode(), file=self._output, flush=True)

    def _print(self, text: str) -> None:
        if not self._as_json:
            print(text, file=self._output, flush=True)
