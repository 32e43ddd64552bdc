"""Packages whose own `__init__` runs when something asks for what is not known without it."""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class LaterName:
    """A name in a module that is imported when the name is asked for; without one, the module."""

    module: str
    name: str = ""

    def read(self) -> Any:
        """What the name stands for; None if it is elsewhere in this version."""
        with contextlib.suppress(ImportError):
            module = importlib.import_module(self.module)
            return getattr(module, self.name, None) if self.name else module
        return None


def delay_init(name: str, known: Mapping[str, Any], light: Sequence[str] | None = None) -> None:
    """Lets a package be imported without running its `__init__`, unless it was imported before.

    Modules inside of the package are its own. Any other name that is not known runs the `__init__`.

    Args:
        name: of the package; nothing happens where it is not installed.
        known: name -> what it stands for, or where that is.
        light: modules inside of the package that do not rest on its `__init__`; None is all.
    """
    if name in sys.modules:
        return
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        return
    package = _LatePackage(spec, known)
    sys.modules[name] = package
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, package)
    if light is not None:
        sys.meta_path.insert(0, _InitFirst(package, light))


def names_inside(package: str) -> dict[str, LaterName]:
    """The modules inside of a package, and what its `__init__` imports from them."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    modules = pkgutil.iter_modules(spec.submodule_search_locations)
    imports = {
        one.asname or one.name: LaterName(f"{package}.{line.module}", one.name)
        for line in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
        if isinstance(line, ast.ImportFrom) and line.level == 1 and line.module
        for one in line.names
    }
    return {one.name: LaterName(f"{package}.{one.name}") for one in modules} | imports


class _LatePackage(ModuleType):
    """A package that runs its `__init__` in itself as soon as an unknown name is asked for."""

    def __init__(self, spec: ModuleSpec, known: Mapping[str, Any]) -> None:
        super().__init__(spec.name)
        self.__spec__, self.__loader__ = spec, spec.loader
        self.__file__, self.__package__ = spec.origin, spec.name
        self.__path__ = list(spec.submodule_search_locations or ())
        self._known: dict[str, Any] | None = dict(known)

    def run_init(self) -> None:
        """Runs the package's `__init__`, once."""
        if self._known is None:
            return
        self._known = None
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)

    def __getattr__(self, name: str) -> Any:
        known = self.__dict__["_known"]
        # Many ask every module for its `__wrapped__`, `__warningregistry__` and the like.
        if known is None or (name.startswith("__") and name not in known):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        found = known.get(name)
        if isinstance(found, LaterName):
            found = found.read()
        if found is None:
            self.run_init()
            return getattr(self, name)
        setattr(self, name, found)
        return found


class _InitFirst(MetaPathFinder, Loader):
    """Runs a package's `__init__` before modules inside of it are imported, but for a few."""

    def __init__(self, package: _LatePackage, light: Sequence[str]) -> None:
        self._package = package
        self._light = {f"{package.__name__}.{module}" for module in light}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{self._package.__name__}.") or fullname in self._light:
            return None
        sys.meta_path.remove(self)
        self._package.run_init()
        module = sys.modules.get(fullname)
        if module is None or module.__spec__ is None:
            return None
        # The `__init__` has imported it: to import it again would make it twice. Python takes the
        # module's own spec in such a case.
        module.__spec__ = copy.copy(module.__spec__)
        module.__spec__.loader = self
        return module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: the module has run."""
