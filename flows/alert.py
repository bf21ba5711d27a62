"""Telling somebody: a JSON message to a webhook, and a line in the log.

In: a text. Out: ``{"text": …}`` posted to ``TICKHOUSE_ALERT_WEBHOOK_URL``, the form that chat systems take. A
webhook that is away is logged and changes nothing else: the alert is in the log either way.
"""

from __future__ import annotations

import logging
from typing import Any

import httpx

from flows.settings import FlowsSettings

log = logging.getLogger("flows.alert")

WEBHOOK_TIMEOUT_S = 5.0


def alert(text: str, settings: FlowsSettings | None = None) -> bool:
    """Say ``text`` where the settings ask for it; whether a webhook took it."""
    log.error("%s", text)
    url = (settings or FlowsSettings()).alert_webhook_url
    if url is None:
        return False
    try:
        httpx.post(url.get_secret_value(), json={"text": text}, timeout=WEBHOOK_TIMEOUT_S).raise_for_status()
    except httpx.HTTPError as error:
        # Not the error's own text: it holds the address, which is a secret.
        log.warning("the alert did not reach the webhook: %s", type(error).__name__)
        return False
    return True


def alert_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """Hook of a flow that failed or crashed."""
    alert(f"Flow {flow.name} {state.name.lower()}, run {flow_run.name}: {state.message}")
