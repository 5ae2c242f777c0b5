"""How long the paper's setting takes on a GPU: a few epochs and all of ranking are measured, the rest is projected.

    python benchmarks/gpu.py --dataset cifar10                  # both methods, recorded and as without
    python benchmarks/gpu.py --dataset cifar10 --epochs 3 --out benchmarks/h200/paper.json

Everything goes through the harness, as `nasbench run --preset paper` does: data, augmentation, sampling, update. The
first epoch, in which the passes are recorded, is counted once. What is not recorded is measured on fewer steps. Some
steps of a last epoch run under torch's profiler, which says how long the device works for a step: what a step takes
beyond that it waits for Python.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from nasbench import Run, hookimpl
from nasbench.data import load_images
from nasbench.harness import prepare
from nasbench.recipe import resolve

METHODS = ("spos", "fairnas+calr+ms")
#: Steps under the profiler, or an epoch.
PROFILED = 20


class Clock:
    """When each epoch of a run ended, the device having done its part; and what that was in steps of the last one."""

    def __init__(self) -> None:
        self.ends, self.profiled = [time.perf_counter()], PROFILED
        self.profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True)

    @hookimpl(wrapper=True)
    def train_step(self, run: Run) -> Any:
        left = run.total_steps - run.step
        self.profiled = min(PROFILED, run.steps_per_epoch)
        if left == self.profiled and run.device.type == "cuda":
            wait(run.device)
            self.profile.start()
        answer = yield
        if (run.step + 1) % run.steps_per_epoch == 0:
            wait(run.device)
            self.ends.append(time.perf_counter())
        if left == 1 and run.device.type == "cuda":
            self.profile.stop()
        return answer

    def device_part(self) -> dict[str, Any]:
        """How many kernels a step had, and how long they took."""
        kernels = [e for e in self.profile.events() or () if e.device_type == torch.autograd.DeviceType.CUDA]
        took = sum(e.time_range.elapsed_us() for e in kernels)
        return {
            "kernels_per_step": round(len(kernels) / self.profiled),
            "device_ms_per_step": round(took / self.profiled / 1000, 3),
        }


def wait(device: torch.device) -> None:
    """Until the device has done everything it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(method: str, mode: str, args: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """One method: seconds of its epochs and of scoring, and the projection for the whole run."""
    epochs = args.epochs + 2 if mode == "recorded" else 3
    sets: dict[str, Any] = {"engine": {"static": mode}, "train": {"epochs": epochs}}
    if mode != "recorded":
        sets["data"] = {"train_images": args.few * 64}
    resolved = {
        which: resolve(
            method, "nb201", dataset=args.dataset, target="cifar10", preset=args.preset, device=args.device, sets=s
        )
        for which, s in (("whole", {}), ("short", sets))
    }
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    clock = Clock()
    run, _ = prepare(resolved["short"], runs, [clock])
    clock.ends = [time.perf_counter()]
    run.hook.train(run=run)
    each = [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]
    step = statistics.median(each[1:-1]) / run.steps_per_epoch
    archs, together = run.subset(), run.recipe.score.together
    ranked = archs if mode == "recorded" else archs[: 3 * together]
    began = time.perf_counter()
    for first in range(0, len(ranked), together):
        run.hook.score(run=run, archs=ranked[first : first + together])
    wait(run.device)
    scoring = (time.perf_counter() - began) / len(ranked) * len(archs)
    whole = resolved["whole"].train.epochs
    images = int(len(load_images(args.dataset).splits["train"]) * (1 - resolved["whole"].data.valid_share))
    steps = -(-images // run.recipe.train.batch_size) * whole
    once = max(0.0, each[0] - step * run.steps_per_epoch)
    return {
        "ms_per_step": round(1000 * step, 3),
        "measured_steps": run.steps_per_epoch * (len(each) - 2),
        **(clock.device_part() if args.device == "cuda" else {}),
        "seconds_once": round(once, 2),
        "epochs_of_the_paper": whole,
        "training_minutes": round((once + steps * step) / 60, 2),
        "scoring_minutes": round(scoring / 60, 2),
        "minutes": round((once + steps * step + scoring) / 60, 2),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if args.device == "cuda" else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--epochs", type=int, default=2, help="measured after the first")
    parser.add_argument("--few", type=int, default=20, help="steps an epoch of what is not recorded")
    parser.add_argument("--modes", nargs="+", default=["recorded", "off"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    for mode in args.modes:
        for method in METHODS:
            with tempfile.TemporaryDirectory() as runs:
                results[f"{method} {mode}"] = found = measured(method, mode, args, Path(runs))
            print(
                f"{method:<16} {mode:<9} {found['ms_per_step']:8.2f} ms a step   training "
                f"{found['training_minutes']:6.1f} min   official327 {found['scoring_minutes']:5.1f} min   "
                f"together {found['minutes']:6.1f} min",
                flush=True,
            )
    device = torch.cuda.get_device_name() if args.device == "cuda" else args.device
    if args.out:
        report = {"device": device, "torch": torch.__version__, "dataset": args.dataset, "results": results}
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
