"""The ``nonet`` command. Exit status: 0 done, 1 failed, 2 wrong usage; errors are one line on stderr.

Modules of the subcommands import what they need when they run, so that ``nonet --help`` stays quick.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from nonet.cli import data, doctor, models, research, serve, service, settings, triton, work, worker
from nonet.cli.failure import CommandFailed
from nonet.runtime.errors import ServingError
from nonet.runtime.extras import how_to_install
from nonet.runtime.release import VERSION

__all__ = ["app", "main"]

DEBUG_FLAG = "--debug"

app = typer.Typer(
    name="nonet",
    help="Nine research systems for efficient vision and sensing, served as one product.\n\n"
    "Example: nonet serve --repository model_repository",
    no_args_is_help=True,
    rich_markup_mode=None,  # with it, [[service]] and the like would be taken for markup and vanish
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nonet {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG_FLAG, help="Show the traceback of a failure. Accepted anywhere in the line.")
    ] = False,
) -> None:
    """Options before the command."""


app.command("serve")(serve.serve)
app.command("service")(service.service)
app.add_typer(models.app, name="models")
research.register(app)
app.command("doctor")(doctor.doctor)
app.command("data")(data.data)
app.command("settings")(settings.settings)
app.command("triton-config")(triton.triton_config)
app.command("work")(work.work)
app.command("worker", hidden=True)(worker.worker)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` if None) and return its exit status."""
    line = list(sys.argv[1:] if arguments is None else arguments)
    # What follows a lone -- belongs to the command.
    end = line.index("--") if "--" in line else len(line)
    debug = DEBUG_FLAG in line[:end]
    line = [word for word in line[:end] if word != DEBUG_FLAG] + line[end:]
    try:
        result = typer.main.get_command(app).main(args=line, prog_name="nonet", standalone_mode=False)
    except Exception as error:
        if debug:
            traceback.print_exc()
        text, status = _explain(error)
        if text:
            print(f"nonet: {text}", file=sys.stderr)
        return status
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> tuple[str, int]:
    """One line for the user, and the exit status."""
    if hasattr(error, "format_message"):  # typer's own: wrong usage, which it gives status 2
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "nonet"
        text = _one_line(str(error.format_message())).removesuffix(".")
        return (f"{text}; see '{command} --help'" if text else ""), int(getattr(error, "exit_code", 1))
    if isinstance(error, typer.Abort):
        return "aborted", 1
    if isinstance(error, CommandFailed | ServingError):
        return _one_line(str(error)), getattr(error, "status", 1)
    if isinstance(error, OSError) and error.strerror:
        name = f": {error.filename}" if error.filename else ""
        return f"{error.strerror.lower()}{name}", 1
    if isinstance(error, ModuleNotFoundError):
        extra = "research" if error.name in ("torch", "onnxscript") else ""
        hint = how_to_install(extra) if extra else "see 'nonet doctor'"
        return f"the module {error.name} is not installed: {hint}", 1
    return f"{_one_line(str(error)) or type(error).__name__} (details: {DEBUG_FLAG})", 1


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
