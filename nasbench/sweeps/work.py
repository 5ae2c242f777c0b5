"""One run in a process of its own: `python -m nasbench.sweeps.work RUNS`, a recipe as a line of JSON on standard input.

The process that started it keeps the other end of standard input open: when that one dies, this one ends too, so a
sweep that is killed leaves nothing running. What a run says goes to standard output; the last line of a failed one
says why.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from nasbench import hookimpl
from nasbench.errors import BadInput
from nasbench.files import dump_json, write_atomic

if TYPE_CHECKING:
    from nasbench.running import Run

#: What stands in a run's folder while it runs: stage, done, total.
PROGRESS = "progress.json"


class Heartbeat:
    """An observer that leaves a run's progress in its folder, at most once a second."""

    def __init__(self) -> None:
        self.last = -1.0

    @hookimpl
    def progress(self, run: Run, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last >= 1 or done == total:
            self.last = now
            root = run
            while root.parent is not None:
                root = root.parent
            write_atomic(root.folder / PROGRESS, dump_json({"stage": stage, "done": done, "total": total}))

    @hookimpl
    def run_finished(self, run: Run) -> None:
        (run.folder / PROGRESS).unlink(missing_ok=True)


def work(recipe: str, runs: str) -> None:
    """Execute a recipe given as JSON, or go on with it."""
    from nasbench.harness import execute
    from nasbench.recipe import Recipe

    execute(Recipe.model_validate_json(recipe), Path(runs), observers=[Heartbeat()])


def _end_with_the_starter() -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock this thread would hold when the process ends
        pass
    os._exit(1)


def main() -> int:
    """Entry point: 0 done, 1 failed, 2 refused."""
    recipe = sys.stdin.buffer.readline().decode()
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    try:
        work(recipe, sys.argv[1])
    except BadInput as error:
        print(error, flush=True)
        return 2
    except Exception:
        traceback.print_exc(file=sys.stdout)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
