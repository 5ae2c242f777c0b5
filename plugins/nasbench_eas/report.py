"""Records of EAS and its baselines as the tables of the paper: `python -m nasbench_eas.report RUNS`.

Tables 1 and 2 (accuracy of each superclass at each budget) and Table 3 (what training and searching cost).
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from tabulate import tabulate

from nasbench import BadInput, records
from nasbench.budget import Budget

#: Stages whose time is spent before a scenario is known, and after; the supernet's is the same for all.
TRAINING, SEARCH = ("generator", "accuracies", "predictor"), ("propose", "pick")
#: Subnets that OFA-T and OFA-V measure in the paper.
PAPER_SAMPLES = 16_000

Record = dict[str, Any]


def accuracy_table(found: Iterable[Record]) -> str:
    """Rows: budget and method, the mean over seeds. Columns: each superclass, their mean, the mean MAdds."""
    cells: dict[tuple[float, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    names: dict[str, None] = {}
    for record in found:
        for i, result in enumerate(record["results"]):
            row = cells[Budget.parse(result["scenario"]["budget"]).value, _method(record)]
            names[result["scenario"]["superclass"]] = None
            for name, column in (
                ("top1", result["scenario"]["superclass"]),
                ("average_top1", ""),
                ("average_madds", " "),
            ):
                metric = records.metric(record, name, i)
                if metric and metric["value"] is not None:
                    row[column].append(metric["value"])
    rows = [
        [
            str(Budget("madds", budget)),
            method,
            *(f"{fmean(row[name]):.1f}" if row[name] else "" for name in names),
            f"{fmean(row['']):.1f}" if row[""] else "",
            f"{fmean(row[' ']) / 1e6:.2f}" if row[" "] else "",
        ]
        for (budget, method), row in sorted(cells.items())
    ]
    return tabulate(
        rows, ["budget", "method", *names, "Avg. Acc. (%)", "Avg. MAdds (M)"], "github", disable_numparse=True
    )


def cost_table(found: Iterable[Record]) -> str:
    """What finding architectures takes once the supernet is there: seconds of training and of search."""
    of: dict[str, list[Record]] = defaultdict(list)
    for record in found:
        of[_method(record)].append(record)
    rows = []
    for method, each in sorted(of.items()):
        seconds = [r["measured"]["seconds"] for r in each]
        training, search = (fmean(sum(s.get(n, 0) for n in names) for s in seconds) for names in (TRAINING, SEARCH))
        samples = each[0]["recipe"]["options"].get(method.partition("+")[0], {}).get("samples")
        measured = [s["accuracies"] for s in seconds if "accuracies" in s]
        per = fmean(measured) / samples if measured and samples else None
        rows.append(
            [
                method,
                f"{training:.1f}",
                f"{search:.2f}",
                len(each[0]["results"]),
                "" if per is None else samples,
                "" if per is None else f"{per:.2f}",
                "" if per is None else f"{per * PAPER_SAMPLES / 3600:.1f}",
            ]
        )
    head = ["method", "training (s)", "search (s)", "scenarios", "subnets measured", "s per subnet"]
    return tabulate(rows, [*head, f"projected: {PAPER_SAMPLES:,} (h)"], "github", disable_numparse=True)


def _method(record: Record) -> str:
    """The terms of the label, without options."""
    from nasbench.plugins import parse_label

    return "+".join(term.name for term in parse_label(record["recipe"]["method"]))


def report(runs: Path) -> str:
    """Both tables of every record below a folder whose results are for superclasses, by dataset and preset."""
    by: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in map(records.read, records.find(runs)):
        if all("superclass" in result["scenario"] for result in record["results"]):
            by[record["recipe"]["dataset"], record["recipe"]["preset"]].append(record)
    if not by:
        raise BadInput(f"{runs} holds no record with superclasses; run eas or ofa-t with --runs {runs} first.")
    parts = []
    for (dataset, preset), found in sorted(by.items()):
        seeds = sorted({record["recipe"]["seed"] for record in found})
        about = f"{dataset}, preset {preset}, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
        parts += [
            f"Top-1 (%) on {about}",
            accuracy_table(found),
            f"Cost beside the supernet's on {about}",
            cost_table(found),
        ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    try:
        print(report(Path(sys.argv[1] if len(sys.argv) > 1 else "runs")))
    except BadInput as error:
        sys.exit(str(error))
