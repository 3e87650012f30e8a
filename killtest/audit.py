"""Compares the two witnesses: the ledger in PostgreSQL and the record of the mail server."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from killtest.sink import Arrival

ARRIVED = ("sent", "delivered", "bounced", "complained")
OPEN = ("pending", "sending", "deferred")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the ledger."""

    profile_id: int
    state: str
    reason: str | None
    message_id: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the two say of one dispatch."""

    duplicates: int
    """Mails that somebody got once more."""
    twice: tuple[str, ...]
    """Who got more than one, with what both witnesses say of them."""
    lost: tuple[str, ...]
    """Who got nothing without it being known, with what the ledger says instead."""
    strays: tuple[str, ...]
    """Mails that the ledger does not know as sent or in doubt, or to somebody else than it says."""
    failed: tuple[Row, ...]
    in_doubt: tuple[Row, ...]
    arrived: frozenset[int]
    """Profiles with a mail in the record."""


def compare(
    ledger: Iterable[Row], record: Iterable[Arrival], addresses: Mapping[int, str], audience: Iterable[int]
) -> Comparison:
    """Every row `sent` must be in the record, every mail of the record must be a row that is sent or in doubt, and
    everybody in `audience` must have a row that says what became of them. `record`: of this dispatch only."""
    rows = {row.profile_id: row for row in ledger}
    by_id = {row.message_id: row for row in rows.values() if row.message_id is not None}
    mails = list(record)
    to_whom = Counter(mail.recipient for mail in mails)
    once_more = sum(count - 1 for count in to_whom.values())
    arrived, strays = set(), []
    for mail in mails:
        row = by_id.get(mail.message_id)
        if row is None or addresses[row.profile_id] != mail.recipient:
            strays.append(f"{mail.message_id}: in the record, not in the ledger")
            continue
        arrived.add(row.profile_id)
        if row.state not in (*ARRIVED, "in_doubt"):
            strays.append(f"{mail.message_id}: in the record, {row.state} in the ledger")
    lost = [f"{row.message_id}: sent, not in the record" for row in rows.values()
            if row.state in ARRIVED and row.profile_id not in arrived]  # fmt: skip
    lost += [f"profile {row.profile_id}: {row.state} at the end" for row in rows.values() if row.state in OPEN]
    lost += [f"profile {one}: no row" for one in sorted(set(audience) - rows.keys())]
    failed = tuple(row for row in rows.values() if row.state == "failed")
    in_doubt = tuple(row for row in rows.values() if row.state == "in_doubt")
    twice = tuple(
        f"{[(mail.message_id, mail.at) for mail in mails if mail.recipient == one]} for {one}: "
        f"{[row for row in rows.values() if addresses[row.profile_id] == one]}"
        for one, count in to_whom.items()
        if count > 1
    )
    return Comparison(once_more, twice, tuple(lost), tuple(strays), failed, in_doubt, frozenset(arrived))


def of_dispatch(record: Sequence[Arrival], dispatch_id: UUID) -> list[Arrival]:
    """The mails of one dispatch: its id is the first part of their message ids."""
    return [mail for mail in record if mail.message_id.startswith(f"<{dispatch_id.hex}.")]


@dataclass
class Verdict:
    """What a test found; `breaches` say what was not kept."""

    test: str
    recipients: int = 0
    duplicates: int = 0
    lost: int = 0
    in_doubt: int = 0
    bound: int = 0
    """How many in doubt there may be."""
    seconds: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.breaches

    def require(self, kept: bool, breach: str) -> None:
        """Note a breach unless it was kept."""
        if not kept:
            self.breaches.append(breach)

    def count(self, found: Comparison) -> None:
        """Add what was found of one dispatch. The sink accepts everything, so whoever failed is lost."""
        lost = [*found.lost, *(f"profile {row.profile_id}: failed, {row.reason}" for row in found.failed)]
        self.duplicates += found.duplicates
        self.lost += len(lost)
        self.in_doubt += len(found.in_doubt)
        self.require(found.duplicates == 0, f"{found.duplicates} mails too many")
        self.breaches += [*found.twice[:5], *lost[:5], *found.strays[:5]]

    def line(self) -> str:
        """One line of JSON."""
        facts = {
            "test": self.test,
            "recipients": self.recipients,
            "duplicates": self.duplicates,
            "lost": self.lost,
            "in_doubt": self.in_doubt,
            "bound": self.bound,
            "seconds": round(self.seconds, 1),
            "ok": self.ok,
        }
        return json.dumps(facts | self.more | ({"breaches": self.breaches} if self.breaches else {}))
