"""The command line: one thin function per verb. What is heavy is imported inside, so that help is instant."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import typer

# The verbs register themselves, and help shows them in this order.
# isort: off
from nasbench.cli import running, looking, comparing, picturing, reproducing, making, data  # noqa: F401

# isort: on
from nasbench.cli.options import app, one_line
from nasbench.errors import BadInput

#: Base of what typer raises for a flag or command it cannot use, wherever this version of it keeps the class.
UsageError: Any = typer.BadParameter.__mro__[1]


def main() -> None:
    """Entry point: 0 done, 1 failed or stale, 2 bad input or refused, 130 interrupted."""
    warnings.formatwarning = _warning
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="nasbench", standalone_mode=False)
    except BadInput as error:
        code = _fail(2, error)
    except UsageError as error:
        where = error.ctx.command_path if error.ctx else "nasbench"
        code = _fail(2, f"{error.format_message().rstrip('.')} (see `{where} --help`).")
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    if code == 130:
        _fail(code, "interrupted; the same command goes on from the last checkpoint (one every half minute).")
    sys.exit(code)


def _warning(message: object, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    # What will change is for the author of the code to know, so it is told where that is.
    where = f" ({filename}:{lineno})" if issubclass(category, FutureWarning) else ""
    return f"warning: {one_line(message)}{where}\n"


def _fail(code: int, message: object) -> int:
    print(f"nasbench: {one_line(message)}", file=sys.stderr)
    return code
