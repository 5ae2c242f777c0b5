"""What a person sees: progress, results, settings. No numbers are made here."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tabulate import tabulate

from nasbench import costs, hookimpl
from nasbench.distributed import rank
from nasbench.plugins import build_terms, discover, load, reachable
from nasbench.recipe import GROUPS, NAMES, Recipe, preset_values
from nasbench.records import metric
from nasbench.space import Arch, SearchSpace

if TYPE_CHECKING:
    from nasbench.results.comparison import Comparison
    from nasbench.results.export import Chosen, Exported
    from nasbench.running import Run

# Labels have brackets and paths are long: print what is there, as it is, on one line.
console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=rank() > 0)


class Terminal:
    """An observer that says what runs and, on a terminal, draws one bar per stage."""

    def __init__(self, announce: bool = True) -> None:
        self.announce, self.started = announce, False
        errors = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description:>8}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[info]}", markup=False),
            console=errors,
            disable=not errors.is_terminal or rank() > 0,
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.tasks:
            self.bars.stop()

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Nothing has refused."""
        self.started = True
        if self.announce:
            setting(run)

    @hookimpl
    def progress(self, run: Run, stage: str, done: int, total: int, info: dict[str, Any]) -> None:
        """Advance the stage's bar; numbers are read from the device only now and then."""
        if stage not in self.tasks:
            if done > 1:
                console.print(f"{stage}: going on after {done - 1:,} of {total:,} steps")
            self.bars.start()
            self.tasks[stage] = self.bars.add_task(stage, total=total, info="")
        self.bars.update(self.tasks[stage], completed=done)
        if done == total or done % max(1, total // 100) == 0:
            self.bars.update(self.tasks[stage], info=" ".join(f"{k} {float(v):.4g}" for k, v in info.items()))


def setting(run: Run) -> None:
    """One line on what is used, and how to get the paper's setting."""
    recipe = run.recipe
    train = f"{recipe.train.epochs} epochs, " if trains(run) else ""
    truth = f"ranked against {recipe.target}" if run.truth else f"no ground truth for {recipe.target}"
    console.print(
        f"{recipe.method} on {recipe.space}: data {recipe.dataset}, {truth}; "
        f"preset {recipe.preset} ({train}subset {recipe.score.subset})."
    )
    if recipe.preset != "paper":
        papers = preset_values(load("space", recipe.space), recipe.space, "paper", recipe.space)
        hint = "The paper's setting: --preset paper. " if papers else ""  # no space need have one
        console.print(f"{hint}All settings: nasbench config.", style="dim")


def trains(run: Run) -> bool:
    """Whether the composition runs the supernet loop."""
    return "train_step" in reachable(run.manager)


def plan(run: Run, announce: bool = True) -> None:
    """What would run."""
    if announce:
        setting(run)
    recipe, done = run.recipe, " (finished)" if (run.folder / "record.json").exists() else ""
    steps = recipe.train.epochs * run.steps_per_epoch
    train = f"{steps:,} training steps of {recipe.train.batch_size} images, " if trains(run) else ""
    console.print(
        f"seed {recipe.seed}: {train}{len(run.data.train):,} training and {len(run.data.valid):,} validation images, "
        f"{len(run.subset()):,} architectures to rank; {recipe.device}, {recipe.engine.precision}; "
        f"into {run.folder}{done}"
    )


#: Metrics that have lines of their own.
SHOWN = {"kendall_tau", "params_tau", "top1", "regret", "params", "accuracy_density", "madds", "anytime_valid"}


def number(row: dict[str, Any] | None, digits: int = 3) -> str:
    """A metric with its interval, or why there is none."""
    if row is None or row["value"] is None:
        return "undefined"
    text = f"{row['value']:.{digits}f}"
    return f"{text} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]" if row.get("low") is not None else text


def record(record: dict[str, Any], path: Path, finished_before: bool = False) -> None:
    """The results of one run, in plain lines that can be read, searched and piped."""
    console.print(
        f"seed {record['recipe']['seed']}" + (", finished before (--force starts over)" if finished_before else ""),
        style="bold",
    )
    if len(record["results"]) > 1:
        console.print(scenarios(record))
    else:
        pick(record)
    measured = record["measured"]
    shared = measured.get("shared", ())
    times = [f"{name} {s:.1f} s{' (shared)' if name in shared else ''}" for name, s in measured["seconds"].items()]
    measured_too = {m["name"] for result in record["results"] for m in result["metrics"]} - SHOWN
    if measured_too:
        line("also measured", ", ".join(sorted(measured_too)))
    looked_up = metric(record, "anytime_valid")
    if looked_up and not looked_up["subset"]:
        line("looked up", f"{looked_up['n']:,} networks trained alone, in the table")
    line("time", ", ".join(times) or "none to speak of")
    line("peak memory", f"{measured['peak_memory_bytes'] / 2**20:,.0f} MiB ({measured['peak_memory_of']})")
    line("record", str(path))
    tau, baseline = metric(record, "kendall_tau"), metric(record, "params_tau")
    if len(record["results"]) == 1 and tau and baseline and None not in (tau["value"], baseline["value"]):
        high = tau["high"] if tau["high"] is not None else math.inf
        if baseline["value"] >= tau["value"]:
            verdict = "ranks these architectures better" if baseline["value"] > high else "may rank them as well"
            console.print(f"The parameter count, which costs no training, {verdict}.", style="yellow")


def pick(record: dict[str, Any]) -> None:
    """The one choice of a run: how well the space was ranked, what was chosen and what it is worth."""
    tau, baseline = metric(record, "kendall_tau"), metric(record, "params_tau")
    if tau:
        line("Kendall's tau", f"{number(tau)}, 95 % over {tau['n']} architectures (subset {tau['subset']})")
        line("  by parameter count", number(baseline))
    line("pick", record["results"][0]["arch"])
    if top1 := metric(record, "top1"):
        regret = metric(record, "regret")
        below = f", {number(regret, 2)} below the best in the table" if regret else ""
        line("  true top-1" if regret else "  test top-1", f"{number(top1, 2)} %{below}")
    if params := metric(record, "params"):
        line("  parameters", f"{params['value']:,.0f}")
    if density := metric(record, "accuracy_density"):
        line("  accuracy density", f"{number(density, 1)} (top-1 in % per million parameters)")


def scenarios(record: dict[str, Any]) -> str:
    """The choices of a run for several scenarios, a line each; the record holds the architectures."""
    columns = {"top-1 (%)": ("top1", 2, 1), "params (M)": ("params", 3, 1e6), "MAdds (M)": ("madds", 1, 1e6)}
    rows = []
    for i, result in enumerate(record["results"]):
        row = {**result["scenario"], "phase": result["phase"]}
        for title, (name, digits, unit) in columns.items():
            found = metric(record, name, i)
            row[title] = f"{found['value'] / unit:.{digits}f}" if found and found["value"] is not None else ""
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)


def specialized(result: dict[str, Any], folder: Path) -> None:
    """What was chosen for one scenario, and where it lies."""
    console.print(", ".join(f"{k} {v}" for k, v in result["scenario"].items()), style="bold")
    line("architecture", result["arch"])
    for m in result["metrics"]:
        if m["value"] is not None:
            line(m["name"], f"{m['value']:,.6g} {m['unit']}".rstrip())
    line("network", str(folder))


def exported(chosen: Chosen, written: list[Exported]) -> None:
    """The files of an exported network, and how far each is from it."""
    console.print(chosen.about)
    for one in written:
        line(one.path.name, f"{one.path}, largest difference {one.difference:.2g} of logits up to {one.largest:.3g}")
        if not one.equal:
            console.print(f"  {one.path.name} does not compute the same: do not use it.", style="yellow")


def line(name: str, text: str) -> None:
    """One labelled line."""
    console.print(f"  {name:<21} {text}")


def over_seeds(done: list[dict[str, Any]]) -> None:
    """Mean and interval over seeds, for each scenario and phase."""
    from nasbench.metrics import mean_interval  # brings scipy in

    results = done[0]["results"]
    for i, result in enumerate(results):
        which = " ".join([*map(str, result["scenario"].values()), result["phase"]])
        at = f" ({which})" if len(results) > 1 else ""
        for name, digits in (("kendall_tau", 3), ("params_tau", 3), ("top1", 2)):
            values = [m["value"] for r in done if (m := metric(r, name, i)) and m["value"] is not None]
            if interval := mean_interval(values, name):
                low, high = (f"{end:.{digits}f}" for end in interval)
                mean = f"{statistics.fmean(values):.{digits}f}"
                console.print(f"{name} over {len(values)} seeds{at}: {mean}, 95 % interval [{low}, {high}]")


def comparison(found: Comparison) -> None:
    """Two rows of a leaderboard: what differs, and whether it can be told from noise."""
    space, target, dataset, preset, subset = found.key
    what = f"{found.metric} on {space}{f' at {found.scenario}' if found.scenario else ''}"
    console.print(
        f"{what}, ranked against {target} (trained on {dataset}, preset {preset}, subset {subset})", style="bold"
    )
    rows = [[seed, f"{a:.4f}", f"{b:.4f}", f"{a - b:+.4f}"] for seed, (a, b) in found.pairs.items()]
    aligned = ("left", *("right",) * 3)
    headers = ("seed", found.a, found.b, "difference")
    console.print(tabulate(rows, headers, "simple", colalign=aligned, disable_numparse=True))
    interval = f", 95 % interval [{found.interval[0]:+.4f}, {found.interval[1]:+.4f}]" if found.interval else ""
    console.print(f"mean difference {statistics.fmean(found.differences):+.4f}{interval}, n = {len(found.pairs)}")
    if found.unpaired:
        console.print(f"Only one of them has a value for seed {', '.join(map(str, found.unpaired))}.")
    console.print(found.verdict)


# ---------------------------------------------------------------------- query


def describe(space: SearchSpace, arch: Arch) -> dict[str, Any]:
    """Everything known of an architecture, as plain values."""
    tables = {target: table for target in space.targets() if (table := space.ground_truth(target))}
    rows = [row for target, table in tables.items() for row in table.everything(arch) if row["dataset"] == target]
    return {
        "space": space.name,
        "arch": space.format(arch),
        "index": space.number(arch),
        **space.cost(arch),
        "options": space.model_dump(mode="json"),
        "ground_truth": rows,
        "measured": costs.describe(space, arch),
    }


def architecture(answer: dict[str, Any]) -> None:
    """The answer to a query."""
    options = ", ".join(f"{k}={v}" for k, v in answer["options"].items())
    console.print(f"{answer['arch']}  (number {answer['index']} of {answer['space']}: {options})")
    console.print(f"{answer['params']:,} parameters, {answer['madds']:,} multiply-adds")
    if answer["measured"]:
        titles = ("table", "dataset", "cost", "device")
        lines = [[*(row[t] for t in titles), f"{row['value']:.4f} {row['unit']}"] for row in answer["measured"]]
        console.print(tabulate(lines, (*titles, "value"), "simple", disable_numparse=True), end="\n\n")
    if not answer["ground_truth"]:
        console.print(
            f"There is no ground truth of it at hand; add some with `nasbench data add {answer['space']} FILE`."
        )
        return
    columns = ("table", "dataset", "split", "epochs", "seed", "params")
    rows = [[*(row[c] for c in columns), f"{row['value']:.4f}"] for row in answer["ground_truth"]]
    aligned = (*("left",) * 5, "right", "right")
    console.print(tabulate(rows, (*columns, "top-1 %"), "simple", colalign=aligned, disable_numparse=True))


# ---------------------------------------------------------------------- config


def commented_yaml(recipe: Recipe) -> str:
    """The recipe as the YAML that `--config` reads, with every option's description above it."""
    lines = ["# nasbench run --config THIS_FILE"]
    lines += [yaml.safe_dump({name: getattr(recipe, name)}).strip() for name in NAMES]
    for group, settings in GROUPS.items():
        lines += ["", *_section(group, settings, getattr(recipe, group).model_dump(mode="json"))]
    owners: dict[str, type[BaseModel]] = {n: type(p) for n, p in build_terms(recipe.method, recipe.options).items()}
    owners[recipe.space] = load("space", recipe.space)
    owners |= {name: load("evaluator", name) for name in recipe.options.keys() & discover("evaluator").keys()}
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
        lines += [f"  {yaml.safe_dump({key: value}, default_flow_style=True, width=math.inf).strip()[1:-1]}"]
    return lines
