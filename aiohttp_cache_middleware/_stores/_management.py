"""What looks at all entries or changes them: a page at a time and in the writer, so what was accepted is there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .._codec import Codec, UndecodableError, UnencodableError
from .._errors import StoreError
from .._model import BodyRef, Entry, StoredResponse, has_expired
from ._directory import disk_usage
from ._faults import is_damage
from ._protocol import Report
from ._queue import Change
from ._rows import KEPT_STALE, expire_time
from ._tier import Tier
from ._verified import VerifiedBodies
from ._writing import WriteBehind

if TYPE_CHECKING:
    from ._database import Database
    from ._records import Place, Records, Rewritten

_PAGE: Final = 128  # records per step


class Management:
    """
    Manages the store in *root*.

    Args:
        writing: Runs the steps.
        tier: Where entries are forgotten that change here.
    """

    def __init__(self, root: Path, writing: WriteBehind, codec: Codec, tier: Tier, bodies: VerifiedBodies) -> None:
        self._root = root
        self._writing = writing
        self._codec = codec
        self._tier = tier
        self._bodies = bodies

    async def scan(self) -> AsyncIterator[tuple[str, Entry]]:
        """Iterate over all entries; what can't be read is left out."""
        after, last_row = -1, await self._last_row()

        def page(database: Database) -> tuple[int | None, list[tuple[str, Entry]]]:
            rows = database.records.page(after, _PAGE, last_row)
            entries = []
            for _, key, record in rows:
                with contextlib.suppress(UndecodableError):
                    entries.append((key, self._codec.decode(key, record)))
            return (rows[-1][0] if rows else None), entries

        while True:
            last, entries = await self._writing.run(page)
            for item in entries:
                yield item
            if last is None:
                return
            after = last

    async def rewrite(
        self, change: Callable[[str, Entry], Entry | None], *, expired_by: float | None = None
    ) -> tuple[int, int]:
        """Apply *change* to every entry, or to the expired ones; what can't be read is removed and not counted."""
        replaced = removed = 0

        def rewrite(key: str, record: object) -> Rewritten:
            nonlocal removed
            try:
                entry = self._codec.decode(key, record)
                new = entry if expired_by is not None and not has_expired(entry, expired_by) else change(key, entry)
                if new is not None:
                    written = record if new is entry else self._codec.encode(key, new)
                    return written, expire_time(new, is_kept_stale=False)
            except (UndecodableError, UnencodableError):
                return None
            removed += isinstance(entry, StoredResponse)
            return None

        async def apply(after: Place, page: Callable[[Records, Place], Sequence[tuple[Place, str, object]]]) -> None:
            nonlocal replaced
            while True:

                def step(database: Database, after: Place = after) -> tuple[Place | None, int]:
                    last, changed, count = database.records.rewrite(lambda: page(database.records, after), rewrite)
                    database.marks.change(changed)
                    self._tier.clear()
                    return last, count

                last, count = await self._writing.run(step)
                replaced += count
                if last is None:
                    return
                after = last

        if expired_by is None:
            last_row = await self._last_row()
            await apply(-1, lambda records, after: records.page(after, _PAGE, last_row))
        else:
            for base in (0.0, KEPT_STALE):
                # A second more: the sums have fewer digits than a time. Whether it has expired, the entry tells.
                before = base + expired_by + 1.0
                await apply((base, -1), lambda records, after: records.expired(after, before, _PAGE))  # noqa: B023 (called in this round)
        return replaced, removed

    async def count(self) -> int:
        """Number of stored responses."""
        return await self._writing.run(lambda database: database.records.responses())

    async def volume(self) -> int:
        """Bytes of all files in the directory."""
        return await self._writing.run(lambda _: disk_usage(self._root))

    async def clear(self) -> None:
        """Remove all entries."""
        last_row = await self._last_row()

        def clear(database: Database) -> bool:
            more = database.records.remove_all(last_row)
            database.marks.change_all()
            self._tier.clear()
            return more

        while await self._writing.run(clear):
            pass
        # A record that was replaced meanwhile has kept its row, but its new body has come after the last one.
        await self._writing.run(lambda database: database.records.remove_bodies_without_record())

    async def verify(self, *, repair: bool) -> Report:
        """Check the database, every record, body and file; *repair* removes what is damaged or left over."""
        try:
            return await self._verify(repair=repair)
        except StoreError as error:
            if error.__cause__ is None or not is_damage(error.__cause__):
                raise
            # It has been set aside, as whenever that comes to light.
            return Report(problems=(error.cause,), repaired=True)

    async def _verify(self, *, repair: bool) -> Report:
        problems = await self._writing.run(lambda database: database.records.problems())
        if problems and repair:
            await self._writing.run(lambda database: database.records.mend())
        # Before the entries: one whose body goes here is damaged.
        orphans = await self._writing.run(lambda database: _orphans(database, repair=repair))
        entries = 0
        damaged: list[tuple[str, object]] = []
        after: int | None = -1
        last_row = await self._last_row()
        while after is not None:
            start = after

            def page(database: Database) -> tuple[int | None, int, list[tuple[str, object]]]:
                rows = database.records.page(start, _PAGE, last_row)  # noqa: B023 (called in this round)
                bad = [(key, record) for _, key, record in rows if self._is_damaged(database, key, record)]
                return (rows[-1][0] if rows else None), len(rows), bad

            after, count, bad = await self._writing.run(page)
            entries += count
            damaged += bad
        if repair:
            # Not what has taken the place of one of them meanwhile.
            await self._writing.remove(
                [Change(key, if_record=record if isinstance(record, bytes) else None) for key, record in damaged]
            )
        return Report(entries, tuple(key for key, _ in damaged), tuple(orphans), tuple(problems), repaired=repair)

    async def _last_row(self) -> int:
        """Give the row beyond which are those that come while all are gone through: they would keep it from ending."""
        return await self._writing.run(lambda database: database.records.last_row())

    def _is_damaged(self, database: Database, key: str, record: object) -> bool:
        """Tell whether an entry is damaged, and still there: another process may have replaced it, and its body."""
        return not self._is_sound(database, key, record) and database.records.holds(key, record)

    def _is_sound(self, database: Database, key: str, record: object) -> bool:
        try:
            entry = self._codec.decode(key, record)
        except UndecodableError:
            return False
        if not isinstance(entry, StoredResponse) or not isinstance(entry.body, BodyRef):
            return True
        return self._bodies.is_sound(database.home, entry.body)


def _orphans(database: Database, *, repair: bool) -> list[str]:
    """Give the names of files and bodies that no record uses, after their removal if it is a *repair*."""
    files = database.orphans()
    without_record = database.records.bodies_without_record()
    if repair:
        for path in files:
            with contextlib.suppress(OSError):
                path.unlink()
        database.records.remove_bodies_without_record()
    return [*(path.relative_to(database.home).as_posix() for path in files), *(name for _, name in without_record)]
