"""What each of Prefect's clients would read again."""

from __future__ import annotations

import ssl

import certifi
import pytest

from flows.deployments import read_certificates_once


def test_a_file_of_certificates_is_read_once_and_what_clients_change_is_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssl, "create_default_context", ssl.create_default_context)
    read_certificates_once()
    trusted = ssl.create_default_context(cafile=certifi.where())
    assert ssl.create_default_context(cafile=certifi.where()) is trusted
    assert trusted.verify_mode == ssl.CERT_REQUIRED
    assert ssl.create_default_context() is not ssl.create_default_context()
