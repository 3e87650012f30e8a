"""Subscriptions, whatever carries them: limits, errors and keys as of any other operation.

Each is executed in a context of its own, so that one key's subscriptions share nothing but their limit. Who subscribes
is proven anew every few seconds: a key that was revoked hears nothing after that.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import orjson
from graphql import DocumentNode, GraphQLError, get_operation_ast
from graphql import OperationType as Kind
from starlette.requests import Request
from starlette.responses import StreamingResponse
from strawberry.http import GraphQLRequestData
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from app.auth import Caller, unauthenticated
from app.context import Context, Services
from app.patience import UNREACHABLE
from app.problems import ApiError, presented
from app.rates import REFUSED_COST, cost_of, who_of
from app.schema import Schema
from db.errors import MusterError

PROVEN_EVERY_S = 2.0
"""And a key that was good is remembered for five seconds."""
SILENCE = ": nothing new\n\n"
"""Said to keep proxies from taking a quiet stream for a dead one."""
EVENT_STREAM = "text/event-stream"
PLAIN = ("application/json", "application/graphql-response+json")
"""Who names one of these takes an answer that is no stream."""
SUBSCRIPTION = Kind.SUBSCRIPTION


async def proven(services: Services, headers: Mapping[str, str]) -> Caller:
    """Who subscribes; raises ApiError UNAUTHENTICATED."""
    caller = await services.authenticator.caller(headers, now=services.clock())
    if caller is None:
        raise unauthenticated()
    return caller


async def is_proven(services: Services, headers: Mapping[str, str]) -> bool:
    """Whether who subscribed still may; also while the database is away and nobody can tell."""
    try:
        await proven(services, headers)
    except MusterError:
        return False
    except UNREACHABLE:
        return True
    return True


async def run(
    schema: Schema, services: Services, caller: Caller, headers: Mapping[str, str], asked: GraphQLRequestData
) -> AsyncGenerator[dict[str, Any], None]:
    """The results of one subscription, as clients see them; one without `data` when it could not be begun."""
    try:
        context, who = context_of(services, caller, headers), who_of(caller, "")
        services.rates.check(who)
        try:
            context.read = await services.reader.read(
                schema._schema,
                asked.query or "",
                services.settings.introspection,
                who=who,
                size=len(asked.query or ""),
                check=services.rates.check,
            )
            document, wrong = context.read
        except GraphQLError:
            # To have refused it was work too.
            await services.rates.take(who, REFUSED_COST)
            raise
        await services.rates.take(who, REFUSED_COST if wrong else cost_of(document, asked.operation_name))
        if wrong:
            yield {"errors": errors_of(wrong, asked)}
            return
        require_subscription(document, asked.operation_name)
        with services.shares.taken(caller):
            results = await schema.stream(
                asked.query,
                variable_values=asked.variables,
                context_value=context,
                operation_name=asked.operation_name,
                allowed_operation_types=(OperationType.SUBSCRIPTION,),
            )
            async with aclosing(results):
                async for result in results:
                    # No part of one: nothing here is deferred.
                    assert isinstance(result, ExecutionResult)
                    answer: dict[str, Any] = {} if result.data is None else {"data": result.data}
                    yield answer | ({"errors": errors_of(result.errors, asked)} if result.errors else {})
    except GraphQLError as fault:
        yield {"errors": errors_of([fault], asked)}
    except ApiError as refusal:
        yield {"errors": [{"message": refusal.message, "extensions": {"code": refusal.code}}]}


def require_subscription(document: DocumentNode, name: str | None) -> None:
    """Raise ApiError for a query or a mutation, and for a document of which nobody can tell what is to be executed."""
    operation = get_operation_ast(document, name)
    if operation is None or operation.operation is not SUBSCRIPTION:
        raise ApiError("BAD_REQUEST", "Subscriptions alone are answered here; send all else with POST.")


def context_of(services: Services, caller: Caller, headers: Mapping[str, str]) -> Context:
    return Context(
        services=services,
        caller=caller,
        accept_language=headers.get("accept-language"),
        user_agent=headers.get("user-agent", ""),
    )


def errors_of(errors: Sequence[GraphQLError], asked: GraphQLRequestData) -> list[Any]:
    """Errors as clients may see them."""
    return [error.formatted for error in presented(errors, operation=asked.operation_name)]


# --- server-sent events -------------------------------------------------------------------------------------------


def is_wanted(request: Request) -> bool:
    """Whether the answer is to be a stream of events: some clients name that with every query, beside JSON (urql)."""
    accepted = {one.partition(";")[0].strip().lower() for one in request.headers.get("accept", "").split(",")}
    return EVENT_STREAM in accepted and accepted.isdisjoint(PLAIN)


def events(
    schema: Schema, services: Services, caller: Caller, headers: Mapping[str, str], asked: GraphQLRequestData
) -> StreamingResponse:
    """The results as server-sent events: `next` with each, then `complete` (GraphQL over SSE, distinct connections)."""
    results = run(schema, services, caller, headers, asked)
    return StreamingResponse(
        written(results, services, headers),
        media_type=EVENT_STREAM,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def written(
    results: AsyncGenerator[dict[str, Any], None], services: Services, headers: Mapping[str, str]
) -> AsyncIterator[str]:
    """The text of the stream, until the results end or whoever asked for them may not have them any more.

    When this process is about to end it breaks off, without `complete`: the client is to ask again.
    """
    async with aclosing(results):
        following = asyncio.ensure_future(anext(results, None))
        try:
            while True:
                await asyncio.wait((following,), timeout=PROVEN_EVERY_S)
                if services.feeds.is_ending:
                    return
                if not await is_proven(services, headers):
                    break
                if not following.done():
                    yield SILENCE
                    continue
                result = following.result()
                if result is None:
                    break
                yield f"event: next\ndata: {orjson.dumps(result).decode()}\n\n"
                following = asyncio.ensure_future(anext(results, None))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    yield "event: complete\ndata:\n\n"
