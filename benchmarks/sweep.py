"""A sweep of 4 methods x 3 seeds on nb201 and the digits: left alone, killed at five random moments, and on Ray.

    python benchmarks/sweep.py FOLDER [--ray] [--kills 5] [--seed 0] [--set train.epochs=2]

Prints how many records of each are those of the sweep left alone, and exits 1 unless all are. On one core it takes
two to three times the half minute that a run takes, times 12. What is in FOLDER is not done again.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from nasbench import records

SWEEP = """
methods: [spos, fairnas, fairnas+calr, fairnas+calr+ms]
spaces: [nb201]
datasets: [digits]
presets: [quick]
seeds: 3
"""


#: Settings that make it shorter; none is full size.
changed: list[str] = []


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Begin the sweep in a folder, or go on with it, as a person would on the command line."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.yaml").write_text(SWEEP + f"set: {{{', '.join(changed)}}}\n")
    command = [sys.executable, "-m", "nasbench", "sweep", "sweep.yaml", "--device", "cpu", "--workers", "1", *options]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(folder: Path, *options: str) -> None:
    """Do what is left of the sweep."""
    process = start(folder, *options)
    if process.wait():
        sys.exit(f"the sweep in {folder} ended with {process.returncode}")


def kill(folder: Path, times: int, longest: float, rng: random.Random) -> None:
    """Start the sweep so many times and end each with SIGKILL at a random moment below `longest` seconds."""
    for i in range(times):
        process, moment = start(folder), rng.uniform(5, longest)
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < moment:
            time.sleep(0.1)
        print(f"kill {i + 1} after {moment:.1f} s, {len(done(folder))} records written", flush=True)
        process.send_signal(signal.SIGKILL)
        process.wait()


def done(folder: Path) -> list[Path]:
    """The records of the sweep in a folder."""
    return list(records.find(folder / "runs"))


def equal(a: Path, b: Path) -> tuple[int, int]:
    """How many records two sweeps have in common, equal but for what was measured, and how many in all."""
    found = [{record["id"]: record for record in map(records.read, done(folder))} for folder in (a, b)]
    same = sum(key in found[1] and records.equal(record, found[1][key]) for key, record in found[0].items())
    return same, len(found[0] | found[1])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ray", action="store_true", help="on a local Ray cluster as well")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of killing")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="make it shorter")
    asked = parser.parse_args()
    changed.extend(one.replace("=", ": ", 1) for one in asked.set)
    began = time.monotonic()
    finish(asked.folder / "alone")
    whole = time.monotonic() - began
    if not done(asked.folder / "killed"):
        kill(asked.folder / "killed", asked.kills, max(10.0, whole / asked.kills), random.Random(asked.seed))
    finish(asked.folder / "killed")
    others = ["killed"]
    if asked.ray:
        finish(asked.folder / "ray", "--engine", "ray")
        others.append("ray")
    outcomes = {name: equal(asked.folder / "alone", asked.folder / name) for name in others}
    for name, (same, count) in outcomes.items():
        print(f"{name}: {same} of {count} records are those of the sweep left alone")
    sys.exit(any(same != count for same, count in outcomes.values()))


if __name__ == "__main__":
    main()
