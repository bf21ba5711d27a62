"""The API's web application: requests in, JSON, metrics, the live stream and the live page out.

It holds no state of its own: data comes from the lakehouse and the live stream, so a crash loses nothing.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import orjson
from flask import Blueprint, Flask, Response, request, send_from_directory
from graphql import print_schema
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from werkzeug.exceptions import HTTPException

from api import metrics
from api.auth import guard
from api.errors import ApiError
from api.execution import Executor
from api.live.service import Live
from api.live.stream import live_routes
from api.rest import rest_routes
from api.schema.context import RequestContext
from api.schema.query import build_schema
from api.settings import ApiSettings
from lakehouse.query import Lake

log = logging.getLogger(__name__)

WEB = Path(__file__).parent / "web"


def create_app(settings: ApiSettings, lake: Lake, live: Live) -> Flask:
    """The application over an open lakehouse and a live part (started or not)."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.api_body_bytes
    guard(app, settings)
    _answer_errors_as_json(app)
    app.register_blueprint(_graphql_routes(settings, lake, live))
    app.register_blueprint(rest_routes(lake, live.hub))
    app.register_blueprint(live_routes(live.hub))
    _add_service_routes(app, lake, live)
    _add_page_routes(app)
    return app


def json_response(body: Any, status: int = 200) -> Response:
    """A JSON answer that no cache keeps."""
    response = Response(orjson.dumps(body), status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def _graphql_routes(settings: ApiSettings, lake: Lake, live: Live) -> Blueprint:
    routes = Blueprint("graphql", __name__)
    schema = build_schema()
    sdl = print_schema(schema) + "\n"
    executor = Executor(schema, settings.api_query_depth)

    @routes.post("/graphql")
    def graphql() -> Response:
        # A form on another site can post texts and forms to this address, but not application/json.
        if request.mimetype != "application/json":
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "send Content-Type: application/json")
        query, variables, operation_name = _graphql_body(request.get_data())
        context = RequestContext(lake, live.hub, time.monotonic() + settings.api_query_seconds)
        answer = executor.run(query, variables, operation_name, context)
        return json_response(answer.body, answer.status)

    @routes.get("/graphql/schema.graphql")
    def graphql_schema() -> Response:
        return Response(sdl, mimetype="text/plain")

    return routes


def _graphql_body(data: bytes) -> tuple[str, dict[str, Any] | None, str | None]:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "BAD_USER_INPUT", f"the body is not JSON: {error}") from None
    if not isinstance(body, dict) or not isinstance(body.get("query"), str):
        raise ApiError(400, "BAD_USER_INPUT", 'send {"query": "…", "variables": {…}}')
    variables, operation_name = body.get("variables"), body.get("operationName")
    if not isinstance(variables, dict | None) or not isinstance(operation_name, str | None):
        raise ApiError(400, "BAD_USER_INPUT", "variables is an object and operationName a text, or null")
    return body["query"], variables, operation_name


def _add_service_routes(app: Flask, lake: Lake, live: Live) -> None:
    def checks() -> dict[str, dict[str, Any]]:
        lakehouse: dict[str, Any] = {"ready": True, "detail": "readable"}
        try:
            lake.snapshot("gold.minute_bars")
        except Exception as error:  # noqa: BLE001
            # Whatever keeps the tables from being read, the answer is the same: not ready, and why is in the log.
            log.warning("the lakehouse cannot be read: %s", error)
            lakehouse = {"ready": False, "detail": f"cannot be read: {type(error).__name__}"}
        stream = {"ready": live.consumer.connected, "detail": live.consumer.status()}
        metrics.READY.set(bool(lakehouse["ready"] and stream["ready"]))
        return {"lakehouse": lakehouse, "live": stream}

    @app.get("/health")
    def health() -> Response:
        found = checks()
        ready = all(check["ready"] for check in found.values())
        return json_response({"status": "ready" if ready else "not ready", "checks": found}, 200 if ready else 503)

    @app.get("/metrics")
    def prometheus() -> Response:
        checks()
        return Response(generate_latest(metrics.REGISTRY), content_type=CONTENT_TYPE_LATEST)


def _add_page_routes(app: Flask) -> None:
    @app.get("/")
    def page() -> Response:
        return send_from_directory(WEB, "index.html")

    @app.get("/web/<path:name>")
    def web_file(name: str) -> Response:
        return send_from_directory(WEB, name)


def _answer_errors_as_json(app: Flask) -> None:
    def error(status: int, code: str, message: str) -> Response:
        return json_response({"errors": [{"message": message, "extensions": {"code": code}}]}, status)

    @app.errorhandler(ApiError)
    def api_error(cause: ApiError) -> Response:
        return error(cause.status, cause.code, cause.message)

    @app.errorhandler(HTTPException)
    def http_error(cause: HTTPException) -> Response:
        response = error(cause.code or 500, cause.name.upper().replace(" ", "_"), cause.description or cause.name)
        if cause.code == 405:
            response.headers["Allow"] = ", ".join(sorted(getattr(cause, "valid_methods", None) or ()))
        return response

    @app.errorhandler(Exception)
    def unexpected(cause: Exception) -> Response:
        log.error("%s %s failed", request.method, request.path, exc_info=cause)
        return error(500, "INTERNAL", "internal error; the service's log tells more")
