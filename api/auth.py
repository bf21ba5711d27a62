"""Who may ask: API keys, the Host header, and what browsers are told.

In: every request. Out: nothing, or a 401/403 before anything is looked at.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from flask import Flask, Response, request

from api.errors import ApiError
from api.settings import ApiSettings, is_loopback

OPEN_ENDPOINTS = frozenset({"health", "page", "web_file"})
"""No key needed: they hold no data, and the page is where a person enters the key."""

CHART_STYLE = "'sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY='"  # pragma: allowlist secret
"""The style sheet that the vendored chart library inserts for its attribution; changes with its version."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' {CHART_STYLE}; connect-src 'self'; "
        "img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def guard(app: Flask, settings: ApiSettings) -> None:
    """Check every request of ``app``, and add the security headers to every answer."""
    digests = [_digest(key.get_secret_value()) for key in settings.api_keys]
    allowed = frozenset(host.lower() for host in settings.api_allowed_hosts)

    @app.before_request
    def check() -> None:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        # A page on the internet can point its own name at 127.0.0.1 and ask in the visitor's browser; its requests
        # carry that name. On other addresses the key protects.
        if is_loopback(settings.api_host) and not (is_loopback(host) or host in allowed):
            raise ApiError(
                403,
                "HOST_NOT_ALLOWED",
                f"this API does not answer for host {host[:80]!r} (TICKHOUSE_API_ALLOWED_HOSTS)",
            )
        if digests and request.endpoint not in OPEN_ENDPOINTS and not _key_matches(digests):
            raise ApiError(401, "UNAUTHENTICATED", "send a valid key in the header X-API-Key")

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        if response.status_code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response


def _key_matches(digests: list[bytes]) -> bool:
    given = request.headers.get("X-API-Key")
    if given is None and request.authorization is not None and request.authorization.type == "bearer":
        given = request.authorization.token  # Prometheus can send nothing else
    if not given:
        return False
    digest = _digest(given)
    # Digests have one length, and each is compared in constant time: the time taken tells nothing of the key.
    return any(hmac.compare_digest(digest, known) for known in digests)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
