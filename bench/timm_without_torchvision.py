"""Lets timm's networks be built where torchvision is not installed.

timm imports torchvision for its data pipeline only; the benchmark uses networks alone. Importing this module
puts an empty torchvision in its place: any name can be imported from it, none does anything.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import ClassVar


class _InertType(type):
    """Any attribute of an inert class is another one, remembered so that it equals itself."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        inert = _InertType(name, (), {})
        setattr(cls, name, inert)
        return inert


class _Nothing(types.ModuleType):
    """A module with every name in it; each is an inert class."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        inert = _InertType(name, (), {})
        setattr(self, name, inert)
        return inert


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.split(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Nothing(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


sys.meta_path.insert(0, _Finder())
