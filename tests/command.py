"""`nasbench` in a process of its own: its real exit code and output, without importing torch for every command."""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import pytest

# A server imports what is heavy once and forks a fresh process for each command.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    ["pytest", "nasbench.show", "nasbench.harness", "nasbench.importing", "sklearn.datasets", "torch._dynamo"]
)


class Result(NamedTuple):
    """What a command left on the terminal."""

    code: int | None
    out: str
    err: str


def nasbench(*args: str, cwd: Path, largest_file: int | None = None) -> Result:
    """Run `nasbench ARGS` in a folder, with this process's environment and installed plugins."""
    with tempfile.TemporaryDirectory() as folder:
        streams = Path(folder, "out"), Path(folder, "err")
        child = start(*args, cwd=cwd, streams=streams, largest_file=largest_file)
        child.join(120)
        if child.is_alive():
            child.kill()
            pytest.fail(f"nasbench {' '.join(args)} did not end")
        return Result(child.exitcode, *(stream.read_text() for stream in streams))


def start(*args: str, cwd: Path, streams: tuple[Path, Path], largest_file: int | None = None) -> BaseProcess:
    """Start `nasbench ARGS` in a folder; its output goes into two files."""
    child = _processes.Process(target=_child, args=(args, cwd, dict(os.environ), streams, largest_file))
    child.start()
    return child


def _child(
    args: tuple[str, ...], cwd: Path, environ: dict[str, str], streams: tuple[Path, Path], largest_file: int | None
) -> None:
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = ["nasbench", *args]
    runpy.run_module("nasbench", run_name="__main__")
