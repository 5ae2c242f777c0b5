"""What a person sees: progress, results, settings. No numbers are made here."""

from __future__ import annotations

import statistics
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from nasbench import hookimpl
from nasbench.metrics import mean_interval
from nasbench.plugins import build_terms, load
from nasbench.recipe import GROUPS, Recipe
from nasbench.records import metric
from nasbench.run import Run
from nasbench.space import Arch, SearchSpace

console = Console(highlight=False, soft_wrap=True)


class ProgressBar:
    """An observer that draws one bar per stage."""

    priority = 0

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[info]}"),
            console=Console(stderr=True),
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> ProgressBar:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    @hookimpl
    def progress(self, run: Run, stage: str, done: int, total: int, info: dict[str, Any]) -> None:
        """Advance the stage's bar; numbers are read from the device only now and then."""
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(stage, total=total, info="")
        self.bars.update(self.tasks[stage], completed=done)
        if done == total or done % max(1, total // 100) == 0:
            self.bars.update(self.tasks[stage], info=" ".join(f"{k} {float(v):.4g}" for k, v in info.items()))


def setting(recipe: Recipe) -> None:
    """One line on what is used, and how to get the paper's setting."""
    train = f"{recipe.train.epochs} epochs" if recipe.train else ""
    console.print(
        f"{recipe.method} on {recipe.space}: trained on {recipe.dataset}, ranked against {recipe.target}; "
        f"preset {recipe.preset} ({train}, subset {recipe.score.subset})."
    )
    if recipe.preset != "paper":
        console.print("The paper's setting: --preset paper. All settings: nasbench config.", style="dim")


def plan(run: Run) -> None:
    """What would run."""
    train = run.recipe.train
    steps = train.epochs * run.steps_per_epoch
    console.print(
        f"seed {run.recipe.seed}: {steps:,} training steps of {train.batch_size} images "
        f"({len(run.data.train):,} training, {len(run.data.valid):,} validation), "
        f"{len(run.subset()):,} architectures to rank; "
        f"{run.recipe.device}, {run.recipe.engine.precision}; into {run.folder}"
    )


def number(row: dict[str, Any] | None, digits: int = 3) -> str:
    """A metric with its interval, or why there is none."""
    if row is None or row["value"] is None:
        return "undefined"
    text = f"{row['value']:.{digits}f}"
    return f"{text} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]" if row.get("low") is not None else text


def record(record: dict[str, Any], path: Path) -> None:
    """The results of one run."""
    table = Table.grid(padding=(0, 2))
    for i, result in enumerate(record["results"]):
        tau, baseline = metric(record, "kendall_tau", i), metric(record, "params_tau", i)
        if tau:
            table.add_row(
                "Kendall's tau",
                f"{number(tau)}  95 % interval over {tau['n']} architectures ({tau['subset']})",
            )
            table.add_row("  by parameter count", number(baseline))
        table.add_row("pick", result["arch"])
        if top1 := metric(record, "top1", i):
            lost = metric(record, "regret", i)
            table.add_row("  true top-1", f"{top1['value']:.2f} %  ({number(lost, 2)} below the best in the table)")
        params, density = metric(record, "params", i), metric(record, "accuracy_density", i)
        if params and params["value"]:
            text = f"{params['value'] / 1e6:.3f} M" + (f", {density['value']:.1f} % per M" if density else "")
            table.add_row("  parameters", text)
    measured = record["measured"]
    table.add_row(
        "time",
        ", ".join(f"{name} {s:.1f} s" for name, s in measured["seconds"].items()) or "none to speak of",
    )
    table.add_row("peak memory", f"{measured['peak_memory_bytes'] / 2**20:,.0f} MiB ({measured['peak_memory_of']})")
    table.add_row("record", str(path))
    console.print(f"seed {record['recipe']['seed']}", style="bold")
    console.print(table)
    tau, baseline = metric(record, "kendall_tau"), metric(record, "params_tau")
    if tau and baseline and None not in (tau["value"], baseline["value"]) and baseline["value"] >= tau["value"]:
        console.print("The parameter count, which costs no training, ranks these architectures better.", style="yellow")


def over_seeds(done: list[dict[str, Any]]) -> None:
    """Mean and interval over seeds."""
    for name, digits in (("kendall_tau", 3), ("params_tau", 3), ("top1", 2)):
        rows = [m["value"] for r in done if (m := metric(r, name)) and m["value"] is not None]
        if len(rows) > 1:
            low, high = mean_interval(rows) or (float("nan"),) * 2
            mean = statistics.fmean(rows)
            console.print(
                f"{name} over {len(rows)} seeds: {mean:.{digits}f}, 95 % interval [{low:.{digits}f}, {high:.{digits}f}]"
            )


# ---------------------------------------------------------------------- query


def describe(space: SearchSpace, arch: Arch) -> dict[str, Any]:
    """Everything known of an architecture, as plain values."""
    tables = {id(t): t for target in space.targets() if (t := space.ground_truth(target))}
    rows = [row for table in tables.values() for row in table.everything(arch)]
    unique = list({tuple(row.items()): row for row in rows}.values())
    return {
        "space": space.name,
        "arch": space.format(arch),
        "index": space.number(arch),
        **space.cost(arch),
        "options": space.model_dump(mode="json"),
        "ground_truth": unique,
    }


def architecture(answer: dict[str, Any]) -> None:
    """The answer to a query."""
    options = ", ".join(f"{k}={v}" for k, v in answer["options"].items())
    console.print(f"{answer['arch']}  (number {answer['index']} of {answer['space']}: {options})")
    console.print(f"{answer['params']:,} parameters, {answer['madds']:,} multiply-adds")
    table = Table("table", "dataset", "split", "epochs", "seed", "top-1 %")
    for row in answer["ground_truth"]:
        table.add_row(
            row["table"], row["dataset"], row["split"], str(row["epochs"]), row["seed"], f"{row['value']:.4f}"
        )
    if answer["ground_truth"]:
        console.print(table)
    else:
        console.print(f"No ground truth at hand; add it with `nasbench data add {answer['space']} FILE`.")


# ---------------------------------------------------------------------- config


def commented_yaml(recipe: Recipe) -> str:
    """The recipe as the YAML that `--config` reads, with every option's description above it."""
    lines = [f"# nasbench run --method {recipe.method!r} --space {recipe.space} --config THIS_FILE"]
    lines += [yaml.safe_dump({k: getattr(recipe, k)}).strip() for k in ("dataset", "target", "preset", "seed")]
    for group, settings in GROUPS.items():
        lines += ["", *_section(group, settings, getattr(recipe, group).model_dump(mode="json"))]
    owners: dict[str, type[BaseModel]] = {n: type(p) for n, p in build_terms(recipe.method, recipe.options).items()}
    owners[recipe.space] = load("space", recipe.space)
    for name, cls in owners.items():
        if recipe.options.get(name):
            lines += ["", *_section(name, cls, recipe.options[name])]
    return "\n".join(lines) + "\n"


def _section(name: str, cls: type[BaseModel], values: dict[str, Any]) -> list[str]:
    lines = [f"{name}:"]
    for key, value in values.items():
        lines += [
            f"  # {line.strip()}" for line in (cls.model_fields[key].description or "").splitlines() if line.strip()
        ]
        lines += [f"  {yaml.safe_dump({key: value}, default_flow_style=None).strip()}"]
    return lines
