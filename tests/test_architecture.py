"""Who may import whom, what a serving process holds, and that every package says what it exports.

The rules are those of the design; they are checked on the import statements themselves, those inside
functions and under TYPE_CHECKING included.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nonet.gateway.process.services import installed_services

ROOT = Path(__file__).parents[1]
SERVICE_FINDER = "nonet.gateway.process.services"
"""The only module of the gateway that meets the services; it finds them by the namespace, not by name."""
WINGS = ("runtime", "jobs", "gateway", "services", "research")
HEAVY = ("torch", "torchvision", "timm", "onnxscript")
FILES = sorted(path for wing in WINGS for path in (ROOT / wing / "nonet").rglob("*.py"))


def module_name(path: Path) -> str:
    """The dotted name of a file below one of the source roots."""
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


EXPORTED_PACKAGES = [module_name(path) for path in FILES if path.name == "__init__.py"]


def imports_of(path: Path) -> Iterator[str]:
    """Full names of everything a file imports, ``from a import b`` as ``a.b``."""
    own = module_name(path)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


IMPORTS = {module_name(path): sorted(set(imports_of(path))) for path in FILES}


def offenders(wing: str, forbidden: tuple[str, ...], but: frozenset[str] = frozenset()) -> list[str]:
    """``module -> import`` for each import of a forbidden name in a wing."""
    return [
        f"{module} -> {name}"
        for module, names in IMPORTS.items()
        if (module == wing or module.startswith(f"{wing}.")) and module not in but
        for name in names
        if any(name == each or name.startswith(f"{each}.") for each in forbidden)
    ]


def others(*allowed: str) -> tuple[str, ...]:
    return tuple(f"nonet.{wing}" for wing in (*WINGS, "cli") if wing not in allowed)


def test_the_check_itself_sees_relative_lazy_and_type_only_imports(tmp_path: Path) -> None:
    text = "import a.b\nfrom c import d\ndef f():\n    from e.f import g\n"
    path = ROOT / "gateway" / "nonet" / "gateway" / "made_up.py"
    tree = ast.parse(text)
    assert tree.body
    found = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in (a.name for a in node.names)
    }
    assert found == {"a.b"}
    assert module_name(path) == "nonet.gateway.made_up"
    assert "nonet.runtime.task.Task" in IMPORTS["nonet.services.recognition.task"]


def test_runtime_imports_none_of_the_others() -> None:
    assert offenders("nonet.runtime", others("runtime")) == []


def test_jobs_import_runtime_only() -> None:
    assert offenders("nonet.jobs", others("jobs", "runtime")) == []


def test_gateway_imports_runtime_and_jobs_only() -> None:
    assert offenders("nonet.gateway", others("gateway", "runtime", "jobs")) == []


def names_of_tasks() -> dict[str, list[str]]:
    """What a service calls its own: folder, paths, methods, kinds of jobs, pages."""
    found: dict[str, list[str]] = {}
    for name, service in installed_services().items():
        paths = [task.path for task in service.tasks] + [each.path for each in service.resources]
        rpcs = {task.rpc.partition("/")[0] for task in service.tasks}
        works = [task.work.kind for task in service.tasks if task.work is not None]
        pages = [f'"{task.page.path}"' for task in service.tasks if task.page and task.page.path != "/"]
        found[name] = [name, *paths, *rpcs, *works, *pages, f"nonet.services.{name}"]
    return found


def test_no_file_of_the_gateway_the_runtime_or_the_jobs_names_a_task() -> None:
    """A new task needs no edit there: whatever a service calls its own stands in its folder alone."""
    named = names_of_tasks()
    assert {"recognition", "raw_image", "floor_identification"} <= named.keys()
    offending = [
        f"{path.relative_to(ROOT)}: {word}"
        for wing in ("gateway/nonet/gateway", "runtime", "jobs")
        for path in sorted((ROOT / wing).rglob("*"))
        if path.suffix in (".py", ".html", ".js", ".lua")
        for word in itertools.chain.from_iterable(named.values())
        if word in path.read_text()
    ]
    assert offending == []


def is_job(module: str) -> bool:
    """Whether a module does a job: those of this name run in a worker's process."""
    return module.rpartition(".")[2] == "job"


def test_services_import_runtime_only_and_never_each_other() -> None:
    jobs = frozenset(module for module in IMPORTS if module.startswith("nonet.services.") and is_job(module))
    assert jobs == {
        "nonet.services.adaptation.job",
        "nonet.services.floor_identification.job",
        "nonet.services.raw_image.job",
        "nonet.services.recognition.distillation.job",
    }
    assert offenders("nonet.services", others("services", "runtime"), but=jobs) == []
    for module in jobs:  # long work may need what trains; it is imported in a worker's process only
        assert offenders(module, others("services", "runtime", "research")) == []
        assert [each for each, names in IMPORTS.items() if module in names] == []
    for service in sorted(
        path.name for path in (ROOT / "services" / "nonet" / "services").iterdir() if path.is_dir()
    ):
        siblings = tuple(
            name
            for module, names in IMPORTS.items()
            if module.startswith(f"nonet.services.{service}")
            for name in names
            if name.startswith("nonet.services.") and not name.startswith(f"nonet.services.{service}")
        )
        assert siblings == (), service


def test_research_meets_runtime_only() -> None:
    assert offenders("nonet.research", others("research", "runtime")) == []


@pytest.mark.parametrize("wing", ["runtime", "jobs", "gateway", "services"])
def test_nothing_that_serves_imports_a_training_library(wing: str) -> None:
    assert offenders(f"nonet.{wing}", HEAVY) == []


def test_the_core_of_the_gateway_knows_no_transport() -> None:
    """The data plane and what it stands on can be driven by any face, or by none."""
    transports = ("fastapi", "starlette", "uvicorn", "grpc", "nonet.gateway.http", "nonet.gateway.grpc")
    for package in ("core", "scheduler", "cache", "metrics"):
        assert offenders(f"nonet.gateway.{package}", transports) == []
    assert offenders("nonet.jobs", transports) == []


def test_the_faces_do_not_know_each_other() -> None:
    assert offenders("nonet.gateway.grpc", ("nonet.gateway.http",)) == []
    assert offenders("nonet.gateway.http", ("nonet.gateway.grpc",)) == []
    for module in IMPORTS:
        name = module.rpartition(".")[2]
        if name.startswith("rest_") or name.endswith("_rest"):
            assert offenders(module, ("grpc", "nonet.gateway.grpc")) == [], module
        if name.startswith("rpc_") or name.endswith("_rpc"):
            assert offenders(module, ("fastapi", "nonet.gateway.http")) == [], module


@pytest.mark.parametrize("wing", ["runtime", "jobs", "gateway", "services"])
def test_no_modules_import_each_other_in_a_circle(wing: str) -> None:
    """Type-only imports count too: what needs them is not apart."""
    modules = {name for name in IMPORTS if name.startswith(f"nonet.{wing}")}
    needs = {
        module: {
            found
            for name in IMPORTS[module]
            for found in (name, name.rpartition(".")[0])
            if found in modules and found != module and found.rpartition(".")[2] != "__init__"
        }
        for module in modules
    }
    # A package's own __init__ gathers what its modules offer; only modules are held apart.
    packages = {module_name(path) for path in FILES if path.name == "__init__.py"}
    left = {module: needs[module] - packages for module in modules - packages}
    while free := {module for module, wanted in left.items() if not wanted & left.keys()}:
        for module in free:
            del left[module]
    assert left == {}


def test_no_module_is_named_after_nothing() -> None:
    nameless = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [module for module in IMPORTS if module.rpartition(".")[2] in nameless] == []


def test_no_file_is_longer_than_can_be_read_at_a_sitting() -> None:
    long = {module_name(path): len(path.read_text().splitlines()) for path in FILES}
    assert {module: lines for module, lines in long.items() if lines > 400} == {}


def test_the_command_line_imports_nothing_heavy_at_the_top() -> None:
    """``nonet --help`` must not wait for an engine; commands import what they need when they run."""
    code = "import sys, nonet.cli.main; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "onnxruntime", "fastapi", "grpc", "numpy", "pydantic", "openvino"} & set(loaded)


def test_what_serves_never_holds_torch() -> None:
    """Import the whole serving process, every module of it, and look at what came along. What runs inside
    Triton or Ray can be imported there only."""
    code = (
        "import sys, pkgutil, importlib\n"
        "import nonet.gateway.process.gateway_process, nonet.cli.main\n"
        "for wing in ('runtime', 'jobs', 'gateway', 'services'):\n"
        "    package = importlib.import_module('nonet.' + wing)\n"
        "    for info in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not info.name.endswith('.job') and '.inside.' not in info.name:\n"
        "            importlib.import_module(info.name)\n"
        "print(*sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(result.stdout.split())


@pytest.mark.parametrize("name", EXPORTED_PACKAGES)
def test_each_package_that_exports_says_what(name: str) -> None:
    """A package whose ``__init__`` offers names lists them, once each, and each exists."""
    path = next(path for path in FILES if path.name == "__init__.py" and module_name(path) == name)
    offered = {
        alias.asname or alias.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    if name.startswith("nonet.research") and offered:
        pytest.importorskip("torch")
    if not offered:
        return
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", None)
    assert exported is not None, f"{name} offers {sorted(offered)} and has no __all__"
    assert len(set(exported)) == len(exported)
    assert set(exported) >= {each for each in offered if not each.startswith("_")}
    for each in exported:
        assert hasattr(module, each)
