"""``nonet models``: what is in the repository, whether it is sound, and how fast it runs here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nonet.cli.failure import CommandFailed, WronglyGiven
from nonet.cli.import_network import import_model, say_published
from nonet.cli.long_work import long_work
from nonet.cli.quantise import quantise

if TYPE_CHECKING:
    from nonet.runtime.profile import ModelProfile
    from nonet.runtime.repository.loader import PreparedVersion

__all__ = ["app"]

app = typer.Typer(
    help="The model repository: list, show, verify, pull, import, quantise, profile.\n\n"
    "Example: nonet models list",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Repository = Annotated[Path, typer.Option("--repository", help="Folder of the models.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_REPOSITORY = Path("model_repository")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One version in the repository; ``problem`` says why it would not be served ("" if it would)."""

    name: str
    version: str
    prepared: PreparedVersion | None
    problem: str


@app.command("list")
def list_models(repository: Repository = DEFAULT_REPOSITORY, as_json: AsJson = False) -> None:
    """List the models, their versions and whether their files are whole.

    Example: nonet models list --repository model_repository
    """
    entries = list(_entries(repository))
    if not entries and not as_json:
        print(f"no models in {repository}; get one with: nonet models pull efficientnet_lite0")
        return
    _print_entries(entries, as_json)


@app.command("show")
def show(
    model: Annotated[str, typer.Argument(help="Name of a model, or of a family of models.")],
    version: Annotated[str, typer.Option(help="Version; the newest by default.")] = "",
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, which it always is for a model.")] = False,
) -> None:
    """Print everything known of a model version as JSON: tensors, origin, data, quality, licence, engine.

    Of a family, its members as a table, the way 'nonet models list' has them.

    Example: nonet models show fasternet_t0_grocery
    """
    from nonet.runtime.profile import ProfileStore

    entries = list(_entries(repository, model, families=True))
    if entries and entries[0].name != model:
        if version:
            raise WronglyGiven(f"'{model}' is a family; name one of its models with --version")
        _print_entries(entries, as_json)
        return
    wanted = [entry for entry in entries if version in ("", entry.version)]
    if not wanted:
        known = ", ".join(entry.version for entry in entries) or "none"
        raise CommandFailed(f"model '{model}' has no version {version or 'at all'}; versions: {known}")
    prepared = _sound(wanted[-1])
    manifest = prepared.manifest
    profile = ProfileStore().read(prepared.content)
    facts: dict[str, Any] = {
        "model": prepared.name,
        "version": prepared.version,
        "versions": [entry.version for entry in entries],
        "inputs": [_tensor(spec) for spec in prepared.config.inputs],
        "outputs": [_tensor(spec) for spec in prepared.config.outputs],
        "max_batch_size": prepared.config.max_batch_size,
        "labels": len(prepared.labels),
        "content": prepared.content,
        "manifest": manifest.model_dump(by_alias=True, mode="json") if manifest else None,
        "profile": profile.model_dump(mode="json") if profile else None,
    }
    print(json.dumps(facts, indent=2, ensure_ascii=False))


@app.command("verify")
def verify(
    models: Annotated[list[str] | None, typer.Argument(help="Names; all models by default.")] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> None:
    """Hash every file again, load every version and compare its answers with its own check set.

    Exit status 1 if any version fails.

    Example: nonet models verify fasternet_t0_grocery
    """
    from nonet.runtime.backends.contract import BackendOptions
    from nonet.runtime.errors import ModelRefused
    from nonet.runtime.repository.selection import check_version

    rows = []
    failures = 0
    with long_work("verifying", "nothing was changed; again with: nonet models verify") as say:
        for entry in _entries_of(repository, models):
            say(f"verifying {entry.name} version {entry.version}")
            result, detail = "ok", ""
            try:
                if entry.prepared is None:
                    raise ModelRefused(entry.problem)
                verdict = check_version(entry.prepared, BackendOptions(concurrency=1))
                if verdict is None:
                    detail = "loads; it has no check set to compare with"
                elif verdict.accepted:
                    detail = f"answers differ from the check set by {verdict.error:.1e}"
                else:
                    raise ModelRefused(verdict.reason)
                if entry.prepared.manifest is None:
                    detail = "no manifest: its files cannot be checked; " + detail
            except ModelRefused as refused:
                result, detail = "failed", refused.reason
                failures += 1
            rows.append([entry.name, entry.version, result, detail])
    titles = ("model", "version", "result", "detail")
    if as_json:
        print(json.dumps([dict(zip(titles, row, strict=True)) for row in rows], indent=2))
    else:
        _print_table(titles, rows)
    if failures:
        raise CommandFailed(f"{failures} of {len(rows)} versions failed; publish, pull or copy them again")


@app.command("profile")
def profile(
    models: Annotated[list[str] | None, typer.Argument(help="Names; all models by default.")] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    threads: Annotated[int, typer.Option(min=1, help="Threads per execution, as serving will use.")] = 1,
    budget: Annotated[float, typer.Option(min=0.01, help="Seconds per engine and batch size.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Measure latency by batch size in every installed engine and choose the fastest one that is right.

    An engine is right if it agrees with fp32 ONNX Runtime on the model's own check set. The choice is kept
    in the user's cache (NONET_CACHE) for this machine and these files; serving then uses it.

    Example: nonet models profile fasternet_t0_grocery
    """
    from nonet.runtime.backends.contract import BackendOptions
    from nonet.runtime.profile import ProfileStore
    from nonet.runtime.repository.selection import profile_version

    store = ProfileStore()
    options = BackendOptions(threads=threads)
    results = []
    after = "what was measured so far is kept; go on with the models that are left"
    with long_work("measuring", after) as say:
        for entry in _entries_of(repository, models):
            result = profile_version(_sound(entry), options, store.machine, budget=budget, progress=say)
            store.write(result)
            results.append(result)
            if not as_json:
                _print_profile(result)
    if as_json:
        print(json.dumps([result.model_dump(mode="json") for result in results], indent=2))


@app.command("pull")
def pull(
    model: Annotated[str, typer.Argument(help="Name; without it, what there is to pull.")] = "",
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> None:
    """Fetch official weights, check their hash and publish them as a network.

    Example: nonet models pull efficientnet_lite0
    """
    from nonet.cli.pull import available
    from nonet.cli.pull import pull as fetch

    if not model:
        choices = available()
        if as_json:
            print(json.dumps([dataclasses.asdict(each) for each in choices], indent=2))
        for each in () if as_json else choices:
            print(f"{each.name}  {each.description} ({each.size / 1e6:.0f} MB, {each.licence})")
        return
    after = f"nothing was published; again with: nonet models pull {model}"
    with long_work(f"fetching {model}", after) as say:
        pulled = fetch(model, repository, progress=say)
    what = "published" if pulled.fresh else "already there:"
    say_published(what, pulled.model, pulled.version, repository, as_json)


app.command("import")(import_model)
app.command("quantise")(quantise)


def newest_sound(repository: Path, model: str) -> PreparedVersion:
    """The newest version of a model. Raises CommandFailed if there is none or its files are not whole."""
    entries = list(_entries(repository, model))
    if not entries:
        raise CommandFailed(f"model '{model}' has no version")
    return _sound(entries[-1])


def _entries_of(repository: Path, models: list[str] | None) -> Iterator[Entry]:
    if not models:
        yield from _entries(repository)
    for name in models or ():
        yield from _entries(repository, name)


def _entries(repository: Path, model: str = "", *, families: bool = False) -> Iterator[Entry]:
    """Every version of ``model``, or of all models, in order; with ``families`` also those of the models of a
    family of that name. Raises CommandFailed for an unknown name."""
    from nonet.runtime.errors import ModelRefused
    from nonet.runtime.repository.config import read_config
    from nonet.runtime.repository.integrity import FileHasher
    from nonet.runtime.repository.layout import CONFIG_FILE, scan
    from nonet.runtime.repository.loader import prepare_version

    try:
        folders = scan(repository)
    except (FileNotFoundError, NotADirectoryError):
        raise CommandFailed(f"no folder {repository}; name the repository with --repository") from None
    if model and model not in folders:
        members = [entry for entry in _entries(repository) if families and _family(entry) == model]
        if not members:
            known = ", ".join(folders) or "none"
            raise CommandFailed(f"no model '{model}' in {repository}; models: {known}")
        yield from members
        return
    hasher = FileHasher()
    for folder in [folders[model]] if model else folders.values():
        for version in folder.versions:
            prepared, problem = None, ""
            try:
                config = read_config(folder.path / CONFIG_FILE)
                prepared = prepare_version(repository, folder, version, config, hasher=hasher)
            except ModelRefused as refused:
                problem = refused.reason
            yield Entry(folder.name, version.version, prepared, problem)


def _family(entry: Entry) -> str:
    manifest = entry.prepared.manifest if entry.prepared else None
    return manifest.family if manifest else ""


def _print_entries(entries: list[Entry], as_json: bool) -> None:
    rows = [_summary(entry) for entry in entries]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    titles = ("model", "version", "task", "family", "quality", "MiB", "state")
    _print_table(titles, [[str(row[title]) for title in titles] for row in rows])


def _sound(entry: Entry) -> PreparedVersion:
    if entry.prepared is None:
        raise CommandFailed(f"model '{entry.name}' version {entry.version}: {entry.problem}")
    return entry.prepared


def _summary(entry: Entry) -> dict[str, Any]:
    prepared, manifest = entry.prepared, entry.prepared.manifest if entry.prepared else None
    quality = manifest.quality if manifest else {}
    state = entry.problem or ("ok" if manifest else "ok, without manifest")
    return {
        "model": entry.name,
        "version": entry.version,
        "task": manifest.task if manifest else "",
        "family": manifest.family if manifest else "",
        "quality": ", ".join(
            f"{key} {value:.3g}" for key, value in quality.items() if isinstance(value, int | float)
        ),
        "MiB": f"{prepared.model_file.stat().st_size / 2**20:.1f}" if prepared else "",
        "licence": manifest.licence if manifest else "",
        "state": state,
    }


def _tensor(spec: Any) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)}


def _print_profile(result: ModelProfile) -> None:
    sizes = sorted({rows for engine in result.engines for rows in engine.latencies})
    titles = ("engine", "precision", *(f"batch {rows}, ms" for rows in sizes), "answers")
    rows = []
    for index, engine in enumerate(result.engines):
        times = [f"{engine.latencies[size] * 1e3:.2f}" if size in engine.latencies else "-" for size in sizes]
        if not engine.accepted:
            answers = engine.reason
        elif engine.error is None:
            answers = "no check set"
        else:
            answers = f"differ by {engine.error:.1e}"
        mark = "chosen: " if index == result.chosen else ""
        rows.append([f"{mark}{engine.engine}", engine.precision, *times, answers])
    _print_table(titles, rows, title=f"{result.model} version {result.version}")


def _print_table(titles: tuple[str, ...], rows: list[list[str]], title: str = "") -> None:
    import os

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=None, pad_edge=False, title_justify="left")
    for name in titles:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if os.isatty(1) else 160).print(table)
