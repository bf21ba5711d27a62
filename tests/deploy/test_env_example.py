"""`.env.example` says what the settings classes say, and every setting says what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from deploy.env_example import SECTIONS, env_example

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_file_is_what_the_settings_classes_give() -> None:
    assert (ROOT / ".env.example").read_text() == env_example(), "run: just generate"


@pytest.mark.parametrize("settings", SECTIONS.values())
def test_every_setting_has_a_description_and_the_common_prefix(settings: type[BaseSettings]) -> None:
    assert settings.model_config.get("env_prefix") == "TICKHOUSE_"
    assert [name for name, field in settings.model_fields.items() if not field.description] == []


def test_a_variable_that_several_packages_read_has_one_default() -> None:
    defaults: dict[str, dict[str, object]] = {}
    for settings in SECTIONS.values():
        for name, field in settings.model_fields.items():
            default = field.get_default(call_default_factory=True)
            # the launcher leaves open what it chooses itself
            if default is not None:
                defaults.setdefault(name, {})[settings.__name__] = default
    assert {name: found for name, found in defaults.items() if len({str(v) for v in found.values()}) > 1} == {}
