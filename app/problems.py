"""What clients are told when something was refused or broke: typed user errors, and errors without our insides."""

import logging
import re
import secrets
from collections.abc import Sequence
from typing import Any

import strawberry
from graphql import GraphQLError
from starlette.responses import JSONResponse
from strawberry.extensions import FieldExtension
from strawberry.types import Info
from strawberry.types.field import StrawberryField

from app.patience import is_away
from db.errors import MusterError

logger = logging.getLogger(__name__)

INTERNAL = "INTERNAL"
UNAVAILABLE = "UNAVAILABLE"
AWAY = "The database is away for the moment; ask again in a few seconds."
MAY_BE_DONE = (
    "The database is away for the moment, and it is not known whether this was done. Send it again in a few seconds"
    " with the same Idempotency-Key: what was done is not done twice. If it had none, look first."
)
"""Of a mutation: its commit may have come through though the answer to it did not."""
COME_AGAIN = {"Retry-After": "10"}
BAD_REQUEST = "BAD_REQUEST"
"""What GraphQL itself refuses: syntax, validation, values of variables."""
LONG_VALUE = re.compile(
    r"(found|(?<!invalid )value)(?:: .{100,}| '.{100,}'(?= does not exist))", re.DOTALL | re.IGNORECASE
)
"""What GraphQL repeats of an input of the wrong shape: one so long may be a key for FCM or APNs. What stands behind
"has invalid value" is the reason, with the names of fields, and is kept."""
UNNAMED = "unnamed operation"
CLIENT_KEYS = frozenset({"traits", "properties", "data"})
"""Fields whose keys are the client's own."""


class ApiError(MusterError):
    """The edge refused an input that no use case has seen: an ill-formed id, a page too large, a missing right."""


@strawberry.type(description="Why an input was refused. Nothing was written.")
class UserError:
    field: list[str] | None = strawberry.field(
        description="Path of the input that caused it, outermost first; null when no single field did. What is wrong"
        " with the thing whose id was given is named as its update names it: of campaignSend, input.senderId."
    )
    code: str = strawberry.field(description="For programs: a stable word such as NOT_FOUND.")
    message: str = strawberry.field(description="For people: what is wrong, and what to do about it.")


def camel(name: str) -> str:
    """A field name of ours as clients know it: `from_name` is `fromName`, `class_` is `class`."""
    first, *rest = name.strip("_").split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def path_of(refusal: MusterError, *under: str) -> list[str] | None:
    """The refusal's field path in the client's names, below `under`; None when it concerns the input as a whole.

    What lies below traits and properties are the client's own keys, which stay as they are.
    """
    if not refusal.field:
        return [*under] if len(under) > 1 else None
    own = next((at + 1 for at, name in enumerate(refusal.field) if name in CLIENT_KEYS), len(refusal.field))
    return [*under, *map(camel, refusal.field[:own]), *refusal.field[own:]]


def user_error(refusal: MusterError, *under: str) -> UserError:
    """`refusal` for a payload, its field path beginning with `under`."""
    return UserError(field=path_of(refusal, *under), code=refusal.code, message=refusal.message)


class AsUserErrors(FieldExtension):
    """A mutation whose use case refuses answers its payload, empty but for `userErrors`."""

    def apply(self, field: StrawberryField) -> None:
        self.field = field

    async def resolve_async(self, next_: Any, source: Any, info: Info[Any, Any], **kwargs: Any) -> Any:
        # Several mutations of one request run one after the other: none may see what was read before its turn.
        info.context.forget_reads()
        try:
            return await next_(source, info, **kwargs)
        except MusterError as refusal:
            payload: Any = self.field.type
            return payload(user_errors=[user_error(refusal, "input")])


def presented(
    errors: Sequence[GraphQLError], *, operation: str | None, is_mutation: bool = False
) -> list[GraphQLError]:
    """`errors` as a client may see them; what was our fault is logged under an id that the client is given.

    A client's own mistake (syntax, validation, coercion, a refusal) keeps its words. Everything else is masked: an
    exception's text may hold addresses, SQL or another tenant's rows. That the database is away is told as that, and
    logged in one line for all.
    """
    shown = [present(error, operation=operation, is_mutation=is_mutation) for error in errors]
    if outage := next(filter(is_outage, map(cause_of, errors)), None):
        log_outage(outage, where=operation or UNNAMED)
    for error in errors:
        forget_frames(error)
    if mine := [error for error in shown if (error.extensions or {}).get("code") not in (INTERNAL, UNAVAILABLE)]:
        # One line for all, without the query or the values in it.
        codes = sorted({str((error.extensions or {}).get("code")) for error in mine})
        logger.info("operation refused", extra={"operation": operation, "codes": codes, "errors": len(mine)})
    return shown


def cause_of(error: GraphQLError) -> BaseException:
    """What was raised first."""
    cause: BaseException = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause


def is_outage(cause: BaseException) -> bool:
    """Whether a request failed because PostgreSQL is away."""
    return cause.code == UNAVAILABLE if isinstance(cause, MusterError) else is_away(cause)


def present(error: GraphQLError, *, operation: str | None, is_mutation: bool) -> GraphQLError:
    """One error of `presented`."""
    cause = cause_of(error)
    if isinstance(cause, GraphQLError):
        error.extensions = {"code": BAD_REQUEST} | (error.extensions or {})
        error.message = LONG_VALUE.sub(r"\1: something long.", error.message)
        return error
    if isinstance(cause, MusterError):
        facts: dict[str, Any] = {"code": cause.code}
        if field := path_of(cause):
            facts["field"] = field
        return GraphQLError(cause.message, nodes=error.nodes, path=error.path, extensions=facts)
    if is_away(cause):
        message = MAY_BE_DONE if is_mutation else AWAY
        return GraphQLError(message, nodes=error.nodes, path=error.path, extensions={"code": UNAVAILABLE})
    error_id = log_fault(cause, where=operation or UNNAMED)
    return GraphQLError(
        f"Something went wrong on our side; ask about error {error_id}.",
        nodes=error.nodes,
        path=error.path,
        extensions={"code": INTERNAL, "errorId": error_id},
    )


def forget_frames(fault: BaseException | None) -> None:
    """Let go of where an error and its causes came through: frames know the request, which knows the error, and all of
    it would be there until somebody looks for garbage, which holds up everybody."""
    while fault is not None:
        fault.__traceback__ = None
        fault = getattr(fault, "original_error", None)


def log_fault(fault: BaseException | None, *, where: str) -> str:
    """Log what went wrong on our side; gives the id to quote. Addresses in its text are withheld by app/logs.py."""
    error_id = secrets.token_hex(6)
    logger.error("request failed", extra={"error_id": error_id, "where": where}, exc_info=fault)
    return error_id


def log_outage(outage: BaseException, *, where: str) -> None:
    """Log that a request met PostgreSQL being away, which is nobody's fault here."""
    logger.warning("PostgreSQL is away", extra={"where": where, "trouble": type(outage).__name__})


def broken(fault: Exception, *, where: str, message: str = AWAY, **headers: str) -> JSONResponse:
    """What a request outside GraphQL is answered that nobody refused: 503 and `message` while PostgreSQL is away, else
    500 and the id under which the fault is logged."""
    if is_away(fault):
        log_outage(fault, where=where)
        return problem(503, UNAVAILABLE, message, **COME_AGAIN, **headers)
    error_id = log_fault(fault, where=where)
    return problem(500, INTERNAL, f"Something went wrong on our side; ask about error {error_id}.", **headers)


def problem(status: int, code: str, message: str, *, field: Sequence[str] = (), **headers: str) -> JSONResponse:
    """A refusal outside GraphQL: {"error": {"code", "message", "field"?}}."""
    body: dict[str, Any] = {"code": code, "message": message}
    if field:
        body["field"] = list(field)
    return JSONResponse({"error": body}, status_code=status, headers=headers)
