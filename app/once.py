"""Mutations that may be sent twice, and the record of all of them."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

from strawberry.extensions import FieldExtension
from strawberry.types import Info
from strawberry.types.field import StrawberryField

from app.context import Context
from app.patience import UNREACHABLE
from app.problems import ApiError
from app.wakeups import HeldWakeups
from profiles import audit, requests

logger = logging.getLogger(__name__)

LONGEST_KEY = 200
ID = re.compile(r"[a-z]{3}_[0-9a-f]{1,32}")
"""Of anything, see app/api/ids.py."""
DONE = "DONE"


def idempotency_key(header: str | None) -> str | None:
    """The key in a header Idempotency-Key, a quoted text or a bare one; raises ApiError INVALID_IDEMPOTENCY_KEY."""
    if header is None:
        return None
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 0 < len(key) <= LONGEST_KEY or not key.isascii() or not key.isprintable():
        message = f"An Idempotency-Key has 1 to {LONGEST_KEY} printable ASCII characters; a UUID is best."
        raise ApiError("INVALID_IDEMPOTENCY_KEY", message)
    return key


def known_id(given: object) -> str | None:
    """The id that an input names; None for what can be none: clients may write there what they like, as long as they
    like."""
    return given if isinstance(given, str) and ID.fullmatch(given) else None


def object_of(input: object) -> str | None:
    """The id of what an input is about; None for none."""
    return known_id(getattr(input, "id", None)) or known_id(getattr(input, "profile_id", None))


def named(payload: Any) -> dict[str, str]:
    """Ids of the objects that a payload answers with, by its attributes."""
    found = {field.name: getattr(payload, field.name) for field in fields(payload)}
    return {name: str(value.id) for name, value in found.items() if hasattr(value, "id")}


class Once(FieldExtension):
    """Does a mutation once for each Idempotency-Key; the innermost of its extensions."""

    def apply(self, field: StrawberryField) -> None:
        self.field = field

    async def resolve_async(self, next_: Any, source: Any, info: Info[Any, Any], **kwargs: Any) -> Any:
        context: Context = info.context
        key = idempotency_key(context.idempotency_key)
        if key is None:
            return await next_(source, info, **kwargs)
        made: list[Any] = []

        async def work() -> dict[str, str]:
            made.append(await next_(source, info, **kwargs))
            return named(made[0])

        # The input as it was read: two texts of the same meaning are the same input.
        fingerprint = sha256(f"{info.field_name} {kwargs!r}".encode()).digest()
        held = HeldWakeups(context.resources.wakeups)
        context.resources_meanwhile = replace(context.resources, wakeups=held)
        try:
            done = await requests.once(
                context.workspace_id,
                actor=context.known_caller.name,
                key=key,
                place=str(info.path.key),
                fingerprint=fingerprint,
                now=context.now,
                work=work,
            )
        finally:
            context.resources_meanwhile = None
        # A bell that is rung before the commit is heard by workers who find nothing.
        await held.ring_now()
        return made[0] if done is None else await self.again(info, done)

    async def again(self, info: Info[Any, Any], ids: Mapping[str, str]) -> Any:
        """The payload of before, with its objects as they are now."""
        # Whatever has an id can be found, and so all subjects are known there.
        from app.api.finding import find

        found = {name: await find(info, id) for name, id in ids.items()}
        if None in found.values():
            raise ApiError("GONE", "This was done before, and what it made has been deleted since.")
        payload: Any = self.field.type
        return payload(**found)


class Beforehand(FieldExtension):
    """Does first what must not be done in the transaction of Once: it asks a child or takes a second connection, and
    requests that hold one meanwhile could take all that there are."""

    def __init__(self, step: Callable[[Any, Any], Awaitable[None]]) -> None:
        self.step = step

    async def resolve_async(self, next_: Any, source: Any, info: Info[Any, Any], **kwargs: Any) -> Any:
        await self.step(info, kwargs["input"])
        return await next_(source, info, **kwargs)


class Audited(FieldExtension):
    """Keeps who asked for a mutation and how it ended."""

    async def resolve_async(self, next_: Any, source: Any, info: Info[Any, Any], **kwargs: Any) -> Any:
        context: Context = info.context
        # A key or a person: client tokens may do nothing that is audited.
        caller = context.known_caller
        entry_id = await audit.begin(
            context.workspace_id,
            at=context.now,
            key_id=caller.key_id,
            subject=caller.subject,
            action=info.field_name,
            object=object_of(kwargs.get("input")),
        )
        outcome, object = "FAILED", None
        try:
            payload = await next_(source, info, **kwargs)
            outcome = payload.user_errors[0].code if payload.user_errors else DONE
            object = next(iter(named(payload).values()), None)
            return payload
        finally:
            try:
                await audit.end(context.workspace_id, entry_id, outcome=outcome, object=object)
            except UNREACHABLE:
                # What was done was done, and is to be answered so: who is told of a fault sends again.
                logger.exception("audit entry without its outcome", extra={"entry_id": str(entry_id)})
