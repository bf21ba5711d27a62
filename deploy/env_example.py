"""`.env.example` from the settings classes: one line on what a variable does, then its default, commented out.

In: the settings class of each package. Out: the text of the file (`python -m deploy.env_example > .env.example`);
a test holds the committed file equal to it, so that no setting is undocumented and no documented one is gone.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from dataflows.settings import StreamSettings
from deploy.local.settings import LocalSettings
from flows.settings import FlowsSettings
from lakehouse.settings import LakehouseSettings
from simulator.settings import ExchangeSettings

SECTIONS: dict[str, type[BaseSettings]] = {
    "Running it on one machine": LocalSettings,
    "Exchange": ExchangeSettings,
    "Stream: bridge and dataflows": StreamSettings,
    "Lakehouse": LakehouseSettings,
    "Batch: Prefect flows": FlowsSettings,
    "API and live page": ApiSettings,
}

HEADER = """\
# Settings, each with its default. `just` reads a file named .env beside this one; so copy this to .env
# and take the # away from what you change. Written by `just generate`.
"""


def _default(value: Any) -> str:
    """A default as it would be written in the file; empty where there is none (or it is a secret)."""
    if value is None or value is PydanticUndefined or isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value) if value else ("{}" if isinstance(value, dict) else "")
    return str(value)


def env_example() -> str:
    """The whole file. A variable that several packages read stands once, with the first of them."""
    seen: set[str] = set()
    blocks = [HEADER]
    for title, settings in SECTIONS.items():
        prefix = settings.model_config.get("env_prefix", "")
        lines = [f"## {title}"]
        for name, field in settings.model_fields.items():
            variable = f"{prefix}{name}".upper()
            if variable in seen:
                continue
            seen.add(variable)
            default = _default(field.get_default(call_default_factory=True))
            lines += [f"# {field.description}", f"#{variable}={default}"]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


if __name__ == "__main__":
    print(env_example(), end="")
