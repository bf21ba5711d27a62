"""On PYTHONPATH of a service, this kills it with SIGKILL at a named point of its code.

In: a file ``$CRASH_POINTS_DIR/<module that runs>`` of one line, ``module:qualified.name:before|after:n``. The n-th
call of that function, in the first process that reads the file, ends the process just before or after it; the file
is gone then, so the next start works. Nothing of this is in the product.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


class _Finder:
    """Lets the module with the point load as ever, then replaces the function."""

    def __init__(self, order: Path, point: str) -> None:
        self._order = order
        self._module, self._name, self._when, count = point.strip().split(":")
        self._left = int(count)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != self._module:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            *outer, last = self._name.split(".")
            owner = functools.reduce(getattr, outer, module)
            setattr(owner, last, self._watched(getattr(owner, last)))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _watched(self, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            last = self._left == 0
            if last and self._when == "before":
                self._die()
            result = function(*args, **kwargs)
            if last:
                self._die()
            return result

        return call

    def _die(self) -> None:
        self._order.unlink(missing_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)


def _install() -> None:
    arguments = sys.orig_argv
    if "-m" not in arguments or "CRASH_POINTS_DIR" not in os.environ:
        return
    order = Path(os.environ["CRASH_POINTS_DIR"]) / arguments[arguments.index("-m") + 1]
    if order.exists():
        sys.meta_path.insert(0, _Finder(order, order.read_text()))  # type: ignore[arg-type]


_install()
