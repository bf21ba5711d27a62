"""``python -m flows``: see :mod:`flows.listing`."""

from __future__ import annotations

from rich.console import Console

from flows.settings import FlowsSettings, apply_environment


def main() -> None:
    settings = FlowsSettings()
    apply_environment(settings)
    from flows.listing import print_flows  # imports Prefect, which reads its environment then

    print_flows(settings, Console())


if __name__ == "__main__":
    main()
