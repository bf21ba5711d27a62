"""One GraphQL request: text and variables in, a JSON object and an HTTP status out.

Parsed and validated documents are kept, so a text that was seen before costs neither again. A document that is too
long, too deep or asks for too much at once is refused before anything runs. Every error carries
``extensions.code``; what a client did not cause is logged and shown without details.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    execute_sync,
    get_operation_ast,
    parse,
    specified_rules,
    validate,
)

from api import metrics
from api.errors import ApiError
from api.limits import MAX_TOKENS, depth_rule, root_fields_rule
from api.schema.context import RequestContext
from lakehouse.running import QueryTimeoutError
from lakehouse.snapshots import SnapshotUnknownError

log = logging.getLogger(__name__)

KEPT_DOCUMENTS = 256
KEPT_DOCUMENT_BYTES = 16_000
"""Longer texts are answered and not kept, so that strangers cannot fill the memory."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send: the body, and the HTTP status (400 when nothing was executed)."""

    body: dict[str, Any]
    status: int


class Executor:
    """Runs documents against one schema; safe for threads."""

    def __init__(self, schema: GraphQLSchema, max_depth: int) -> None:
        self._schema = schema
        self._rules = [*specified_rules, depth_rule(max_depth), root_fields_rule()]
        self._documents: OrderedDict[str, DocumentNode] = OrderedDict()
        self._lock = threading.Lock()

    def run(
        self, query: str, variables: dict[str, Any] | None, operation_name: str | None, context: RequestContext
    ) -> Answer:
        """Answer one request; never raises for anything a client can send."""
        started = time.perf_counter()
        kind = "invalid"
        metrics.GRAPHQL_ACTIVE.inc()
        try:
            document, errors = self._document(query)
            operation = get_operation_ast(document, operation_name) if document is not None else None
            if document is None:
                answer = _refused(errors, "GRAPHQL_VALIDATION_FAILED")
            elif operation is None:
                answer = _refused([GraphQLError("operationName names none of the operations")], "BAD_USER_INPUT")
            else:
                kind = operation.operation.value
                result = execute_sync(
                    self._schema,
                    document,
                    context_value=context,
                    variable_values=variables,
                    operation_name=operation_name,
                )
                if result.data is None and result.errors and all(e.path is None for e in result.errors):
                    answer = _refused(result.errors, "BAD_USER_INPUT")
                else:
                    body: dict[str, Any] = {"data": result.data}
                    if result.errors:
                        body["errors"] = [_formatted(error, "BAD_USER_INPUT") for error in result.errors]
                    answer = Answer(body, 200)
        finally:
            metrics.GRAPHQL_ACTIVE.dec()
        status = "error" if "errors" in answer.body else "success"
        metrics.GRAPHQL_REQUESTS.labels(kind, status).inc()
        metrics.GRAPHQL_SECONDS.labels(kind).observe(time.perf_counter() - started)
        return answer

    def _document(self, query: str) -> tuple[DocumentNode | None, list[GraphQLError]]:
        with self._lock:
            known = self._documents.get(query)
            if known is not None:
                self._documents.move_to_end(query)
                metrics.DOCUMENT_CACHE.labels("hit").inc()
                return known, []
        metrics.DOCUMENT_CACHE.labels("miss").inc()
        try:
            document = parse(query, max_tokens=MAX_TOKENS)
        except GraphQLSyntaxError as error:
            return None, [error]
        except RecursionError:
            return None, [GraphQLError("the query is nested too deeply")]
        errors = validate(self._schema, document, self._rules, max_errors=20)
        if errors:
            return None, errors
        if len(query) <= KEPT_DOCUMENT_BYTES:
            with self._lock:
                self._documents[query] = document
                while len(self._documents) > KEPT_DOCUMENTS:
                    self._documents.popitem(last=False)
        return document, []


def _refused(errors: list[GraphQLError], code: str) -> Answer:
    return Answer({"errors": [_formatted(error, code) for error in errors]}, 400)


def _formatted(error: GraphQLError, code: str) -> dict[str, Any]:
    cause = error.original_error
    message = error.message
    extensions = dict(error.extensions or {})
    if isinstance(error, GraphQLSyntaxError):
        code = "GRAPHQL_PARSE_FAILED"
    elif isinstance(cause, ApiError):
        code = cause.code
    elif isinstance(cause, SnapshotUnknownError):
        message = f"asOf: {cause}"
    elif isinstance(cause, QueryTimeoutError):
        code, message = "QUERY_TIMEOUT", "the query took too long and was stopped; ask for less"
    elif cause is not None and not isinstance(cause, GraphQLError):
        log.error("GraphQL field %s failed", error.path, exc_info=cause)
        code, message = "INTERNAL", "internal error; the service's log tells more"
    extensions.setdefault("code", code)
    metrics.GRAPHQL_ERRORS.labels(extensions["code"]).inc()
    formatted: dict[str, Any] = {"message": message, "extensions": extensions}
    if error.locations:
        formatted["locations"] = [{"line": place.line, "column": place.column} for place in error.locations]
    if error.path:
        formatted["path"] = error.path
    return formatted
