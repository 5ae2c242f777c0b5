"""The same sweep on a Ray cluster of one machine."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from nasbench import records
from nasbench.sweeps.engines import Local, Ray
from nasbench.sweeps.sweep import Job, execute, plan, read

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="needs the extra ray")

SWEEP = """
methods: [spos, fairnas+calr]
spaces: [tiny]
presets: [test]
seeds: 2
set: {train.epochs: 4, engine.checkpoint_seconds: 0}
"""


def jobs(folder: Path) -> list[Job]:
    folder.mkdir(exist_ok=True)
    (folder / "sweep.yaml").write_text(SWEEP)
    return plan(read(folder / "sweep.yaml"), folder / "runs")


def kill_a_worker_that_has_begun(runs: Path, killed: list[int]) -> None:
    while not killed:
        with contextlib.suppress(OSError):  # folders and processes go while they are looked at
            for status in Path("/proc").glob("[0-9]*/cmdline") if any(runs.rglob("step-*")) else ():
                if status.read_bytes().startswith(b"ray::work"):
                    os.kill(int(status.parent.name), signal.SIGKILL)
                    killed.append(int(status.parent.name))
                    return
        time.sleep(0.01)


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    here, there = jobs(tmp_path / "here"), jobs(tmp_path / "there")
    execute(here, Local(2))
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker_that_has_begun, args=(tmp_path / "there", killed), daemon=True)
    engine = Ray(num_cpus=2)
    killer.start()
    execute(there, engine)
    assert killed
    assert [job.state for job in there] == ["done"] * 4, [job.why for job in there]
    for a, b in zip(here, there, strict=True):
        assert records.equal(records.read(a.folder / "record.json"), records.read(b.folder / "record.json"))


def test_why_a_run_failed_is_told(tmp_path: Path) -> None:
    task = Ray(num_cpus=2).submit("{}", tmp_path / "x", 1)
    while (why := task.poll()) is None:
        time.sleep(0.1)
    assert why.startswith("ValidationError: ")
    assert "validation errors for Recipe" in why
