"""Mutations that may be sent twice, and the record of all of them."""

from collections.abc import Mapping
from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

from strawberry.extensions import FieldExtension
from strawberry.types import Info
from strawberry.types.field import StrawberryField

from app.context import Context
from app.problems import ApiError
from app.wakeups import HeldWakeups
from profiles import audit, requests

LONGEST_KEY = 200
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


class Audited(FieldExtension):
    """Keeps who asked for a mutation and how it ended."""

    async def resolve_async(self, next_: Any, source: Any, info: Info[Any, Any], **kwargs: Any) -> Any:
        context: Context = info.context
        caller = context.known_caller
        # Client tokens may do nothing that is audited.
        assert caller.key_id is not None
        entry_id = await audit.begin(
            context.workspace_id,
            at=context.now,
            key_id=caller.key_id,
            action=info.field_name,
            object=getattr(kwargs.get("input"), "id", None),
        )
        outcome, object = "FAILED", None
        try:
            payload = await next_(source, info, **kwargs)
            outcome = payload.user_errors[0].code if payload.user_errors else DONE
            object = next(iter(named(payload).values()), None)
            return payload
        finally:
            await audit.end(context.workspace_id, entry_id, outcome=outcome, object=object)
