"""The names of the services of this installation, without importing them: they are those of their folders."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil

NAMESPACE = "nonet.services"


def service_names() -> list[str]:
    """The folders of the namespace that have a module ``task``, in order."""
    package = importlib.import_module(NAMESPACE)
    return sorted(
        info.name for info in pkgutil.iter_modules(package.__path__) if info.ispkg and _has_task(info)
    )


def _has_task(info: pkgutil.ModuleInfo) -> bool:
    """Looked for beside the package, which asking for it by its full name would import."""
    finder = info.module_finder
    package = finder.find_spec(f"{NAMESPACE}.{info.name}", None)
    return any(
        name == "task"
        for _, name, _ in pkgutil.iter_modules(package.submodule_search_locations if package else ())
    )
