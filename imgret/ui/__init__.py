"""The Gradio page and the public endpoints. Nothing else but app.py imports Gradio.

Half of Gradio's import time goes into rewriting the type stubs of its own components. This module, which is imported
before Gradio, turns that step off.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _WithoutStubs(MetaPathFinder, Loader):
    """Finds gradio.component_meta as Python does, and replaces the function that writes stubs."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "gradio.component_meta" or (spec := PathFinder.find_spec(name, path)) is None:
            return None
        self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert self._loader is not None
        self._loader.exec_module(module)
        module.create_or_modify_pyi = lambda *_: None  # type: ignore[attr-defined]


sys.meta_path.insert(0, _WithoutStubs())
