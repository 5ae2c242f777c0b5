"""Our engine against the plain reference on the same work, alternating in one process.

    python benchmarks/bench.py                    # preset sizes cpu and paper, several rounds
    python benchmarks/bench.py --short            # under five minutes on two cores; what `make bench` runs
    python benchmarks/bench.py --cpu-time         # on a machine that is shared: processor time of one thread
    python benchmarks/bench.py --set precision=float32 memory_format=channels_last    # not what the engine's rule gives

Prints, for each task, both speeds and the ratio with its spread over rounds, and writes results.json. The
images are random: speed does not depend on what they show. Other load on the machine moves both sides, and
several threads that wait for each other most of all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import reference
import torch
from torch.utils.data import DataLoader

from nasbench.data import Images, Split, write_images
from nasbench.harness import prepare
from nasbench.machine import cpu_name
from nasbench.recipe import resolve
from nasbench.running import Run

SIZES = {"paper": (16, 5), "cpu": (8, 1)}
ARCHS = [
    (3, 1, 4, 2, 0, 3),
    (2, 3, 1, 4, 3, 0),
    (1, 4, 2, 0, 2, 4),
    (0, 2, 3, 1, 4, 1),
    (4, 0, 0, 3, 1, 2),
]  # each op once an edge
BATCH, VALID, EPOCH = 64, 1024, 4096


def make_run(method: str, size: str, home: Path, engine: dict[str, Any]) -> Run:
    """A composed run on random images with its supernet and optimizer, ready for its first step."""
    channels, cells = SIZES[size]
    sets = {
        "nb201": {"channels": channels, "cells": cells},
        "score": {"subset": "random:5"},
        "train": {"clip": 5.0},
        "engine": engine,
    }
    recipe = resolve(method, "nb201", dataset="random", target="cifar10", preset="paper", sets=sets)
    run, _ = prepare(recipe, home)
    run.net = run.hook.build_supernet(run=run)
    run.optimizer = run.hook.make_optimizer(run=run)
    run.total_steps = 1000
    return run


def random_images(home: Path) -> None:
    """A dataset of CIFAR-10's shape."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"train": EPOCH, "valid": VALID, "test": 64}
    splits = {
        key: Split(
            torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8),
            torch.arange(n) % 10,
        )
        for key, n in sizes.items()
    }
    write_images(
        Images("random", "cifar10", [str(i) for i in range(10)], splits), home / "datasets" / "random.safetensors"
    )


def tasks(
    size: str, home: Path, engine: dict[str, Any]
) -> dict[str, tuple[Callable[[], None], Callable[[], None], int]]:
    """For each task: the reference, the engine, and how many images pass a subnet in one call."""
    plain = reference.Supernet(*SIZES[size])
    sgd = torch.optim.SGD(plain.parameters(), lr=0.025, momentum=0.9, nesterov=True, weight_decay=5e-4)
    spos, fairnas, both = (make_run(m, size, home, engine) for m in ("spos", "fairnas", "fairnas+calr+ms"))
    images = torch.randn(BATCH, 3, 32, 32)
    labels = torch.arange(BATCH) % 10
    validation = [(torch.randn(256, 3, 32, 32), torch.arange(256) % 10) for _ in range(VALID // 256)]
    plain_turn, engine_turn = count(), count()

    def engine_step(run: Run) -> None:
        run.step = next(engine_turn) % 1000
        run.hook.train_step(run=run, batch=run.data.training_batch(torch.arange(BATCH), run.generator("augment")))

    def plain_steps() -> None:
        for _ in range(5):  # the subnets that SPOS draws at the same steps
            arch = spos.space.sample(spos.rng("archs", step=next(plain_turn) % 1000))
            reference.train_step(plain, sgd, images, labels, [arch])

    def engine_steps() -> None:
        for _ in range(5):
            engine_step(spos)

    def plain_evaluation() -> None:
        for arch in ARCHS:
            reference.accuracy(plain, validation, arch)

    def plain_epoch() -> None:
        for _ in DataLoader(
            reference.ImageFolderLike(spos.data.train.images, spos.data.train.labels), BATCH, shuffle=True
        ):
            pass

    def engine_epoch() -> None:
        for step in range(spos.steps_per_epoch):
            spos.step = step
            spos.hook.next_batch(run=spos)

    return {
        "spos_step": (plain_steps, engine_steps, 5 * BATCH),
        "fairnas_iteration": (
            lambda: reference.train_step(plain, sgd, images, labels, ARCHS),
            lambda: engine_step(fairnas),
            5 * BATCH,
        ),
        "calr_ms_iteration": (
            lambda: reference.train_step(plain, sgd, images, labels, ARCHS),
            lambda: engine_step(both),
            5 * BATCH,
        ),
        "evaluation": (plain_evaluation, lambda: spos.hook.score(run=spos, archs=ARCHS), 5 * VALID),
        "data_epoch": (plain_epoch, engine_epoch, EPOCH),
    }


def measure(call: Callable[[], None], repeat: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(repeat):
        call()
    return (clock() - start) / repeat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few rounds")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, processor time instead of wall time")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the recipe's engine group"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    args = parser.parse_args()
    rounds, seconds = (3, 4.0) if args.short else (7, 10.0)
    clock = time.process_time if args.cpu_time else time.perf_counter
    engine_settings = {"threads": 1 if args.cpu_time else None, **dict(pair.split("=", 1) for pair in args.set)}
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NASBENCH_HOME"] = folder
        random_images(Path(folder))
        for size in SIZES:
            for name, (plain, engine, images) in tasks(size, Path(folder), engine_settings).items():
                if name == "data_epoch" and size != "paper":
                    continue  # the same images at every size
                once = [measure(call, 1, clock) for call in (plain, engine, plain, engine)][
                    2:
                ]  # the first calls warm up
                repeat = max(1, round(seconds / sum(once)))
                pairs = [(measure(plain, repeat, clock), measure(engine, repeat, clock)) for _ in range(rounds)]
                ratios = [p / e for p, e in pairs]
                speeds = [images / statistics.median(side) for side in zip(*pairs, strict=True)]
                ratio = statistics.median(ratios)
                print(
                    f"{size:>5} {name:<18} reference {speeds[0]:8.0f} images/s   engine {speeds[1]:8.0f} images/s   "
                    f"ratio {ratio:5.1f}  [{min(ratios):.1f}, {max(ratios):.1f}]",
                    flush=True,
                )
                results[f"{name}@{size}"] = {
                    "ratio": round(ratio, 2),
                    "lowest": round(min(ratios), 2),
                    "highest": round(max(ratios), 2),
                    "reference_images_per_second": round(speeds[0], 1),
                    "engine_images_per_second": round(speeds[1], 1),
                }
    report = {
        "ratios": {
            key.removesuffix("@paper"): value["ratio"] for key, value in results.items() if key.endswith("@paper")
        },
        "details": results,
        "rounds": rounds,
        "torch": torch.__version__,
        "machine": cpu_name(),
        "engine": args.set,
        "threads": torch.get_num_threads(),
        "clock": clock.__name__,
    }
    args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
