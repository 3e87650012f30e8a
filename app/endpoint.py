"""GraphQL over HTTP: POST one JSON object, or GET a query, and get one object; in development GET shows GraphiQL.
A subscription is answered with a stream of events, to who accepts one.

The caller is proven before the body is read. What is no request at all answers 4xx with an `errors` list. An operation
that cannot be begun (it does not parse, is invalid, or its variables do not fit) answers without `data`: 400 to who
accepts application/graphql-response+json, 200 to who knows application/json only (graphql.github.io/graphql-over-http).
"""

import re
from collections.abc import Generator, Mapping
from typing import Any

import orjson
from cross_web import AsyncHTTPRequestAdapter, HTTPException
from graphql import DocumentNode, GraphQLError, GraphQLSchema, get_operation_ast
from graphql import OperationType as Kind
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.schema.exceptions import InvalidOperationTypeError
from strawberry.types import ExecutionResult

from app import graphiql, streams
from app.auth import unauthenticated
from app.context import Context, Services
from app.limits import TOO_MANY_VALUES, counted, holds_nul, is_too_much
from app.metrics import executed, field_of
from app.operations import Operations
from app.patience import is_away
from app.problems import AWAY, COME_AGAIN, UNAVAILABLE, cause_of, is_outage, log_outage, presented
from app.rates import REFUSED_COST, RateLimited, address_of, cost_of, who_of
from app.reading import Prepared
from app.schema import Schema, build_schema
from app.settings import Settings
from app.traces import TRACES
from db.errors import MusterError

OPERATION_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,79}")
VIEWER_HEADER = "x-muster-viewer"
JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"


class Endpoint(GraphQL[Context, None]):
    """strawberry's view with our callers, our parsing and our errors."""

    introspection = False
    """Whether the schema is told."""
    operations = Operations({})
    """Those that can be named."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response: Response
        try:
            response = await (self.stream(request) if streams.is_wanted(request) else self.run(request))
        except HTTPException as refusal:
            code = refusal.code if isinstance(refusal, Unknown) else "BAD_REQUEST"
            response = refused(refusal.status_code, code, refusal.reason, answered_as(request))
        except RateLimited as refusal:
            response = refused(429, refusal.code, refusal.message, answered_as(request))
            response.headers["Retry-After"] = str(refusal.retry_after_s)
        except MusterError as refusal:
            response = refused(401, refusal.code, refusal.message, answered_as(request))
            response.headers["WWW-Authenticate"] = "Bearer"
        except Exception as fault:
            # Nothing was executed: nobody could say whose key it is.
            if not is_away(fault):
                raise
            log_outage(fault, where="graphql")
            response = refused(503, UNAVAILABLE, AWAY, answered_as(request))
            response.headers.update(COME_AGAIN)
        await response(scope, receive, send)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        services: Services = request.app.state.services
        context = Context(
            services=services,
            caller=None,
            viewer_token=request.headers.get(VIEWER_HEADER),
            accept_language=request.headers.get("accept-language"),
            user_agent=request.headers.get("user-agent", ""),
            idempotency_key=request.headers.get("idempotency-key"),
        )
        context.caller = await services.authenticator.caller(request.headers, now=context.now)
        request.state.who = who_of(context.caller, address_of(request.scope))
        # GraphiQL asks for the schema before anybody has typed a key; every field asks for a right of its own.
        if context.caller is None and not services.settings.graphiql:
            raise unauthenticated()
        return context

    async def stream(self, request: Request) -> Response:
        """A subscription as server-sent events."""
        services: Services = request.app.state.services
        caller = await streams.proven(services, request.headers)
        request.state.who = who_of(caller, address_of(request.scope))
        asked = await self.parse_http_body(self.request_adapter_class(request))
        assert isinstance(self.schema, Schema)
        return streams.events(self.schema, services, caller, request.headers, asked)

    def should_render_graphql_ide(self, request: Any) -> bool:
        # A query may also be named.
        named = {"documentId", "extensions"} & request.query_params.keys()
        return not named and super().should_render_graphql_ide(request)

    async def render_graphql_ide(self, request: Request) -> Response:
        return graphiql.page()

    async def parse_http_body(self, request: AsyncHTTPRequestAdapter) -> GraphQLRequestData:
        if request.method == "GET":
            return read_query(request.query_params, self.operations)
        if not is_json(request.content_type):
            raise HTTPException(415, "Send JSON, with the header Content-Type: application/json.")
        body, asked = as_bytes(await request.get_body()), request._request  # type: ignore[attr-defined]
        services: Services = asked.app.state.services
        return await services.reader.read_body(body, read_operation(body, self.operations), who=asked.state.who)

    async def execute_single(
        self,
        request: Request,
        request_adapter: AsyncHTTPRequestAdapter,
        sub_response: Response,
        context: Context,
        root_value: None,
        request_data: GraphQLRequestData,
    ) -> ExecutionResult:
        await self.take_cost(request, context, request_data)
        document = valid(context.read)
        operation = document and get_operation_ast(document, request_data.operation_name)
        if document and operation is None and request_data.operation_name is None:
            # strawberry would execute the first.
            raise HTTPException(400, "There are several operations: say by operationName which one is to be executed.")
        if operation and operation.operation is Kind.SUBSCRIPTION:
            message = "A subscription is answered as text/event-stream; accept nothing else, or use a WebSocket."
            raise HTTPException(406, message)
        try:
            field = field_of(document, request_data.operation_name)
            with executed(field) as outcome, TRACES.span(f"operation {field}"):
                result = await super().execute_single(
                    request, request_adapter, sub_response, context, root_value, request_data
                )
                outcome.append(outcome_of(result))
        except HTTPException as refusal:
            if isinstance(refusal.__cause__, InvalidOperationTypeError):
                raise HTTPException(405, "GET is for queries; send mutations with POST.") from refusal
            raise
        sub_response.media_type = answered_as(request)
        if never_began(result) and sub_response.media_type == GRAPHQL_JSON:
            sub_response.status_code = 400
        if result.errors:
            is_mutation = bool(operation and operation.operation is Kind.MUTATION)
            result.errors = presented(result.errors, operation=request_data.operation_name, is_mutation=is_mutation)
        return result

    async def take_cost(self, request: Request, context: Context, asked: GraphQLRequestData) -> None:
        """Read the document and take what it costs; raises RateLimited, before anything is read where that is known."""
        rates, who, size = context.services.rates, request.state.who, len(await request.body())
        rates.check(who)
        try:
            context.read = await context.services.reader.read(
                self.typed, asked.query or "", self.introspection, who=who, size=size, check=rates.check
            )
            document, errors = context.read
            cost = REFUSED_COST if errors else cost_of(document, asked.operation_name)
        except GraphQLError as fault:
            # Without the frames it came through, which know the whole document, and this request, which knows it.
            context.read, cost = fault.with_traceback(None), REFUSED_COST
        await rates.take(who, cost)

    @property
    def typed(self) -> GraphQLSchema:
        """The schema as graphql-core knows it."""
        schema: GraphQLSchema = self.schema._schema  # type: ignore[attr-defined]
        return schema

    async def process_result(self, request: Request, result: ExecutionResult) -> GraphQLHTTPResponse:
        response = await super().process_result(request, result)
        if never_began(result):
            del response["data"]
        return response

    def create_response(
        self, response_data: GraphQLHTTPResponse | list[GraphQLHTTPResponse], sub_response: Response
    ) -> Response:
        response = super().create_response(response_data, sub_response)
        response.headers["Content-Type"] = f"{sub_response.media_type}; charset=utf-8"
        return response

    def encode_json(self, data: object) -> str:
        # Text, not bytes: over a WebSocket bytes would be sent as a binary frame.
        return orjson.dumps(data).decode()


def valid(read: Prepared | GraphQLError | None) -> DocumentNode | None:
    """The document, if it can be executed: only then its fields are the schema's."""
    return None if read is None or isinstance(read, GraphQLError) or read[1] else read[0]


def is_json(content_type: str | None) -> bool:
    return media_type(content_type or "") == JSON


def media_type(text: str) -> str:
    """Without its parameters, in lower case."""
    return text.partition(";")[0].strip().lower()


def answered_as(request: Request) -> str:
    """The media type of the answer: the one that says more where it is accepted by name, in whatever quality."""
    accepted = map(media_type, request.headers.get("accept", "").split(","))
    return GRAPHQL_JSON if GRAPHQL_JSON in accepted else JSON


def never_began(result: ExecutionResult) -> bool:
    """Whether nothing was executed: only what happened in a field has a path."""
    return result.data is None and bool(result.errors) and all(error.path is None for error in result.errors or ())


def outcome_of(result: ExecutionResult) -> str:
    """How an operation ended, for those who count."""
    if not result.errors:
        return "ok"
    return "unavailable" if any(is_outage(cause_of(error)) for error in result.errors) else "error"


def as_bytes(body: str | bytes) -> bytes:
    """strawberry's adapters may give either."""
    return body if isinstance(body, bytes) else body.encode()


def read_operation(body: bytes, operations: Operations) -> Generator[None, None, GraphQLRequestData]:
    """The operation in a request's body, read in pieces; raises HTTPException 400 saying what is wrong with it."""
    if (yield from counted(body)):
        raise HTTPException(400, TOO_MANY_VALUES)
    yield
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        raise HTTPException(400, f"The body is no JSON: {fault.msg}.") from fault
    if not isinstance(data, dict):
        raise HTTPException(400, "The body must be one JSON object; batches are not taken.")
    yield
    return check_operation(body, data, operations)


def read_query(parameters: Mapping[str, str | list[str] | None], operations: Operations) -> GraphQLRequestData:
    """The operation in the parameters of a GET, of which `variables` and `extensions` are JSON; raises HTTPException
    400."""
    data: dict[str, Any] = {name: parameters.get(name) for name in ("query", "operationName", "documentId")}
    for name in ("variables", "extensions"):
        try:
            data[name] = orjson.loads(str(parameters.get(name) or "null"))
        except orjson.JSONDecodeError as fault:
            raise HTTPException(400, f"The parameter {name} is no JSON: {fault.msg}.") from fault
    return check_operation(orjson.dumps(data), data, operations)


class Unknown(HTTPException):
    """The operation is not one that is known here; `code` says how."""

    def __init__(self, refusal: MusterError) -> None:
        super().__init__(400, refusal.message)
        self.code = refusal.code


def check_operation(body: bytes, data: dict[str, Any], operations: Operations) -> GraphQLRequestData:
    """The operation in `data`, which was read from `body`; raises HTTPException 400 saying what is wrong with it."""
    if holds_nul(body):
        raise HTTPException(400, "Texts must not hold the character U+0000; remove it.")
    try:
        query, name = operations.text(data), data.get("operationName")
    except MusterError as refusal:
        raise Unknown(refusal) from refusal
    variables, extensions = data.get("variables"), data.get("extensions")
    if not isinstance(query, str) or not query.strip():
        raise HTTPException(400, "The field query must hold a GraphQL document.")
    if not isinstance(variables, dict | None) or not isinstance(extensions, dict | None):
        raise HTTPException(400, "The fields variables and extensions must be objects.")
    if is_too_much(variables or {}):
        raise HTTPException(400, "The variables hold too many values; send fewer at once.")
    if name is not None and not (isinstance(name, str) and OPERATION_NAME.fullmatch(name)):
        raise HTTPException(400, "The field operationName must be the name of an operation, at most 80 characters.")
    return GraphQLRequestData(query=query, variables=variables, operation_name=name, extensions=extensions)


def refused(status: int, code: str, message: str, media_type: str) -> JSONResponse:
    """A refusal in the shape of a GraphQL answer."""
    errors: list[Mapping[str, Any]] = [{"message": message, "extensions": {"code": code}}]
    return JSONResponse({"errors": errors}, status_code=status, media_type=media_type)


def endpoint(settings: Settings, operations: Operations) -> Endpoint:
    """The view for `settings`: the schema is told, and GraphiQL shown, where they say so."""
    view = Endpoint(
        build_schema(introspection=settings.introspection),
        graphql_ide="graphiql" if settings.graphiql else None,
        allow_queries_via_get=True,
        subscription_protocols=(),
        multipart_uploads_enabled=False,
    )
    view.introspection = settings.introspection
    view.operations = operations
    return view
