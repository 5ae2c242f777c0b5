"""A reproduced table as text: reported and measured side by side, never in one column."""

from __future__ import annotations

import csv
import io
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from nasbench.recipe import GROUPS
from nasbench.results.leaderboard import in_brackets, spread
from nasbench.results.papers import REASONS, Printed
from nasbench.results.reproduce import Outcome, order


def counts(measured: Sequence[Outcome]) -> dict[str, int]:
    """How many numbers there are, and how they stand."""
    states = Counter(one.reason or one.state for one in measured if not one.values)
    return {
        "rows": len({one.cell.row for one in measured}),
        "numbers": len(measured),
        "measured": sum(bool(one.values) for one in measured),
        "to run": states["open"],
        **{reason: states[reason] for reason in REASONS},
        "refused": states["refused"],
    }


def overview(tables: Sequence[tuple[Printed, Sequence[Outcome]]]) -> str:
    """A line for each table, and one for all."""
    rows: list[dict[str, Any]]
    rows = [{"table": printed.name, **counts(found), "shows": printed.table.title} for printed, found in tables]
    rows.append({"table": "all", **{n: sum(row[n] for row in rows) for n in counts([])}})
    reasons = [f"{name}: {text}." for name, text in REASONS.items()]
    return "\n".join([tabulate(rows, headers="keys", tablefmt="pipe"), "", *reasons]) + "\n"


def page(printed: Printed, measured: Sequence[Outcome], preset: str, command: str, folder: Path) -> str:
    """The table as Markdown; records are linked from `folder`."""
    count = counts(measured)
    only = ", ".join(f"{name} {count[name]}" for name in REASONS)
    columns: dict[str, list[Outcome]] = {}
    for one in measured:
        columns.setdefault(one.cell.column, []).append(one)
    shown = {name: column for name, column in columns.items() if any(one.values for one in column)}
    rest = [one for name, column in columns.items() if name not in shown for one in column]
    lines = [
        f"# {printed.name} with preset `{preset}`",
        "",
        f"{printed.table.title}. Reported: as printed in {printed.table.source} of {printed.paper.paper}. "
        f"{printed.paper.note}",
        *([printed.table.note] if printed.table.note else []),
        "",
        f"{count['numbers']} numbers: {count['measured']} measured, {count['to run']} that can be run and have no "
        f"record, {sum(count[name] for name in REASONS)} reported only ({only}), {count['refused']} refused. Measured "
        "is the mean ± standard deviation over n seeds, the interval Student's 95 % for the mean.",
        "",
    ]
    for name, column in shown.items():
        rows = [_cells(one, folder) for one in column]
        lines += [f"## {name}", "", _table(rows), "", _verdict(column), ""]
    if rest:
        rows = [{"row": one.cell.row, "column": one.cell.column, **_cells(one, folder)} for one in rest]
        lines += ["## Not measured", "", _table(rows), ""]
    return "\n".join([*lines, f"Made by `{command}`."]) + "\n"


def _cells(one: Outcome, folder: Path) -> dict[str, str]:
    digits = _digits(one)
    row = {"row": one.cell.row, "reported": one.cell.entry.number(digits)}
    if one.values:
        links = [f"[{seed}]({os.path.relpath(one.paths[seed], folder)})" for seed in one.values]
        row |= {
            "measured": spread(list(one.values.values()), digits),
            "difference": "" if one.difference is None else f"{one.difference:+.{digits}f}",
            "95 % interval": in_brackets(one.interval, digits),
            "n": str(len(one.values)),
            "records (seed)": " ".join(links),
        }
    state = {"measured": "", "open": "to run", "reported only": f"reported only ({one.reason})"}
    remark = ": ".join(filter(None, [state.get(one.state, one.state), one.why]))
    return {**row, "run": _run(one), "remark": remark}


def _run(one: Outcome) -> str:
    """Method, space, dataset, and the settings that these names do not show."""
    if one.recipe is None:
        return ""
    run, shown = one.cell.run, [*GROUPS, one.recipe.space]
    more = [f"{name}={value}" for name, value in (run.set or {}).items() if name.partition(".")[0] in shown]
    more += [f"target {run.target}"] if run.target == one.recipe.target else []
    more += [*(run.scenario or {}).values(), *filter(None, [run.phase])]
    return ", ".join([f"`{one.recipe.method}` on {one.recipe.space}, {one.recipe.dataset}", *more])


def _digits(one: Outcome) -> int:
    return 2 if one.cell.entry.unit else 3


def _verdict(column: list[Outcome]) -> str:
    """Whether the rows are ordered as printed; what noise can explain is not called so."""
    found = order(column)
    if found is None:
        return "Fewer than two rows are measured: there is no order to compare."
    pairs, told = found.rows * (found.rows - 1) // 2, found.agree_told + found.against_told
    said = "is not reproduced"
    if found.agree == pairs:
        said = "is reproduced" if told == pairs else "is seen, but not in every pair told from noise"
    tau = "undefined" if found.tau is None else f"{found.tau:.3f}"
    of = f"{pairs} pairs" if pairs > 1 else "1 pair"
    return (
        f"The paper's order of these {found.rows} rows {said}: of {of}, {found.agree} are ordered as printed "
        f"and {found.against} the other way (Kendall's tau between reported and measured {tau}). Told from noise "
        f"(paired by seed, t-test with Holm's correction, 5 %) are {found.agree_told} and {found.against_told}."
    )


def _table(rows: list[dict[str, str]]) -> str:
    titles = list(dict.fromkeys(title for row in rows for title in row if any(r.get(title) for r in rows)))
    body = [{title: row.get(title, "") for title in titles} for row in rows]
    return tabulate(body, headers="keys", tablefmt="pipe", disable_numparse=True)


def csv_text(measured: Sequence[Outcome], preset: str) -> str:
    """Every number on a line of its own, reported and measured in columns of their own."""
    out = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for one in measured:
        entry, low_high, values = one.cell.entry, one.interval or (None, None), list(one.values.values())
        row: dict[str, Any] = {
            "table": entry.source,
            "row": one.cell.row,
            "column": one.cell.column,
            "state": one.reason or one.state,
            "reported": entry.mean,
            "reported_std": entry.std,
            "measured": one.mean,
            "measured_std": statistics.stdev(values) if len(values) > 1 else None,
            "difference": one.difference,
            "low": low_high[0],
            "high": low_high[1],
            "n": len(values),
            "seeds": " ".join(map(str, one.values)),
            "method": one.recipe.method if one.recipe else None,
            "space": one.recipe.space if one.recipe else None,
            "dataset": one.recipe.dataset if one.recipe else None,
            "target": one.recipe.target if one.recipe else None,
            "preset": preset,
            "why": one.why,
        }
        if writer is None:
            writer = csv.DictWriter(out, list(row), lineterminator="\n")
            writer.writeheader()
        # Six digits are more than is known, and the same with every version of the libraries that compute them.
        writer.writerow({k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()})
    return out.getvalue()
