"""Records in, tables out: a pure function, so that a table can be checked against its records."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from nasbench import records
from nasbench.errors import BadInput, unknown
from nasbench.files import dump_json, write_atomic
from nasbench.metrics import mean_interval
from nasbench.plugins import parse_label, validated
from nasbench.recipe import GROUPS, beside_preset, label_beside_preset
from nasbench.results import differences, reported
from nasbench.results.reported import Paper

FORMATS = {"md": "pipe", "csv": "csv", "latex": "latex_booktabs"}
Key = tuple[str, str, str, str, str]
#: Column title, metric, digits; a column that no row has is left out.
COLUMNS = (
    ("Kendall's tau", "kendall_tau", 3),
    ("tau by params", "params_tau", 3),
    ("true top-1 (%)", "top1", 2),
    ("retention (%)", "retention", 1),
    ("params (M)", "params", 3),
    ("MAdds (M)", "madds", 1),
    ("density (%/M)", "accuracy_density", 1),
)
MILLIONS = {"params", "madds"}
#: Without a subset it counts what a search asked the ground truth for; else what a supernet has ranked.
LOOKED_UP = "anytime_valid"
#: Likewise, for what papers print.
REPORTED = (
    ("reported tau (paper)", "kendall_tau", 3),
    ("reported top-1 (paper)", "top1", 2),
    ("reported density (paper)", "accuracy_density", 2),
)


def read_all(*folders: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every run below some folders, once, with its record's path, relative to the folder where there is only one."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for folder in folders:
        for path in records.find(folder):
            record = records.read(path)
            where = path.relative_to(folder) if len(folders) == 1 else path
            found.setdefault(record["id"], (str(where), record))
    if not found:
        names = " or ".join(map(str, folders))
        raise BadInput(f"There are no records below {names}; run something first, or name the folder with --runs.")
    return sorted(found.values(), key=lambda one: one[0])


def key_of(record: dict[str, Any]) -> Key:
    """What runs must share to stand in one table."""
    recipe = record["recipe"]
    return recipe["space"], recipe["target"], recipe["dataset"], recipe["preset"], recipe["score"]["subset"]


def everywhere(found: Iterable[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The runs, and after them each as seen from the other datasets that its scores were ranked against.

    Nothing was trained or chosen anew for these; a run made for that target counts before them. A search that looks
    accuracies up has no scores: what it would find elsewhere is another run.
    """
    runs = list(found)
    made = {(dump_json(settings(run)), run["recipe"]["seed"]) for _, run in runs}
    seen = [(path, one) for path, run in runs for one in _seen_from(run)]
    return [*runs, *(one for one in seen if (dump_json(settings(one[1])), one[1]["recipe"]["seed"]) not in made)]


def _seen_from(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`kendall_tau.cifar100` as the `kendall_tau` of a record whose target is cifar100."""
    names = {m["name"] for result in record["results"] for m in result["metrics"]}
    for target in sorted(name.partition(".")[2] for name in names if name.startswith("kendall_tau.")):
        results = [
            {
                **result,
                "metrics": [
                    {**m, "name": m["name"].removesuffix(f".{target}")}
                    for m in result["metrics"]
                    if m["name"] in MILLIONS or m["name"].endswith(f".{target}")
                ],
            }
            for result in record["results"]
        ]
        recipe = record["recipe"]
        yield {**record, "recipe": {**recipe, "target": target}, "results": results, "chosen_for": recipe["target"]}


def tables(found: Iterable[tuple[str, dict[str, Any]]]) -> dict[Key, list[dict[str, Any]]]:
    """For each table its rows: scenario by scenario, then best tau or top-1 first.

    Runs that differ only by seed are one row; one that chose for several scenarios or phases is one row for each.
    """
    groups: dict[Key, dict[str, list[tuple[str, dict[str, Any]]]]] = defaultdict(lambda: defaultdict(list))
    for path, record in found:
        groups[key_of(record)][dump_json(settings(record))].append((path, record))
    return {
        key: sorted(
            (
                row
                for label, runs in zip(_labels(list(rows.values())), rows.values(), strict=True)
                for row in _rows(label, runs)
            ),
            key=_rank,
        )
        for key, rows in sorted(groups.items())
    }


def settings(record: dict[str, Any]) -> dict[str, str]:
    """All that determines a run but its seed and device, by dotted name.

    A setting that an older record lacks has its default; the options of the terms stand in the method's label.
    """

    def flat(name: str, value: Any) -> dict[str, str]:
        if not isinstance(value, dict):
            return {name: f"{value}"}
        return {k: v for key in sorted(value) for k, v in flat(f"{name}.{key}" if name else key, value[key]).items()}

    recipe = {name: value for name, value in record["recipe"].items() if name != "device"}
    groups = {name: cls().model_dump(mode="json") | recipe.get(name, {}) for name, cls in GROUPS.items()}
    for local in ("threads", "checkpoint_seconds"):
        groups["engine"].pop(local, None)
    try:
        terms = {term.name for term in parse_label(recipe["method"])}
    except BadInput:  # what no run wrote
        terms = recipe["options"].keys() - {recipe["space"]}
    options = {name: values for name, values in recipe["options"].items() if name not in terms}
    return flat("", {**recipe, **groups, "options": options, "seed": None, "data.content": record["dataset_hash"]})


def _labels(rows: list[list[tuple[str, dict[str, Any]]]]) -> list[str]:
    """Each row's method, the settings in which it differs from its preset, and, where rows share a method, those in
    which they differ from each other; never one that is the preset's."""
    every = [{**settings(runs[0][1]), "method": label_beside_preset(runs[0][1]["recipe"])} for runs in rows]
    labels = []
    for mine, runs in zip(every, rows, strict=True):
        others, usual = [s for s in every if s["method"] == mine["method"]], _of_preset(runs[0][1])
        differing = [
            f"{k}={v}"
            for k, v in mine.items()
            if usual.get(k, v) != v or (k not in usual and any(other.get(k) != v for other in others))
        ]
        labels.append(", ".join([mine["method"], *differing]))
    return labels


def _of_preset(record: dict[str, Any]) -> dict[str, str]:
    """What the preset of a record says, as `settings`, but for what a machine's rule decides and the table says."""
    usual = settings({**record, "recipe": {**record["recipe"], **beside_preset(record["recipe"])}})
    said = {k: v for k, v in usual.items() if k.partition(".")[0] in (*GROUPS, "options") and v != "auto"}
    return {k: v for k, v in said.items() if k != "score.subset"}


def _rank(row: dict[str, Any]) -> tuple[str, str, float, float, str]:
    order = [row["values"][name] for name in ("kendall_tau", "top1")]
    tau, top1 = (-statistics.fmean(v) if v else math.inf for v in order)  # what has none comes last
    return " ".join(row["scenario"].values()), row["phase"], tau, top1, row["method"]


def _rows(label: str, runs: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row for each scenario and phase that any of these runs, which differ by seed alone, chose for.

    A phase that was not measured, such as a search whose choice was then trained, is left out beside one that was.
    """
    runs = sorted(runs, key=lambda r: r[1]["recipe"]["seed"])
    found: dict[tuple[str, str], list[tuple[str, dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    for path, record in runs:
        for result in record["results"]:
            found[dump_json(result["scenario"]), result["phase"]].append((path, record, result))
    rows = {key: _row(label, key[1], each) for key, each in found.items()}
    measured = {key for key, row in rows.items() if row["values"]["kendall_tau"] or row["values"]["top1"]}
    scenarios = {scenario for scenario, _ in measured}
    return [row for key, row in rows.items() if key in measured or key[0] not in scenarios]


def _row(label: str, phase: str, found: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    every = [{m["name"]: m["value"] for m in result["metrics"] if m["value"] is not None} for _, _, result in found]
    return {
        "method": label,
        "scenario": {name: str(value) for name, value in found[0][2]["scenario"].items()},
        "phase": phase,
        "values": {name: [m[name] for m in every if name in m] for _, name, _ in COLUMNS},
        "metrics": {r["recipe"]["seed"]: metrics for (_, r, _), metrics in zip(found, every, strict=True)},
        "seeds": [r["recipe"]["seed"] for _, r, _ in found],
        "looked_up": [m["n"] for _, _, r in found for m in r["metrics"] if m["name"] == LOOKED_UP and not m["subset"]],
        "minutes": [sum(r["measured"]["seconds"].values()) / 60 for _, r, _ in found],
        "devices": sorted({f"{r['measured']['device']}, {r['measured']['threads']} threads" for _, r, _ in found}),
        "dates": sorted({r["measured"]["date"][:10] for _, r, _ in found}),
        "paths": [path for path, _, _ in found],
        "chosen_for": sorted({r["chosen_for"] for _, r, _ in found if "chosen_for" in r}),
    }


def spread(values: list[float], digits: int, scale: float = 1.0) -> str:
    """Mean ± standard deviation, as text; of one value that value, of none nothing."""
    if not values:
        return ""
    values = [v / scale for v in values]
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def in_brackets(interval: tuple[float, float] | None, digits: int) -> str:
    """An interval as text; nothing if there is none."""
    return f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else ""


def cells(row: dict[str, Any], more: Sequence[str] = ()) -> dict[str, str]:
    """One row as text, a column each, and one for each of `more` metrics."""
    text = {**row["scenario"], "phase": row["phase"], "method": row["method"]}
    intervals = {"kendall_tau": "95 % interval", "top1": "95 % interval (top-1)"}
    for title, name, digits in COLUMNS:
        text[title] = spread(row["values"][name], digits, 1e6 if name in MILLIONS else 1.0)
        if name in intervals:
            text[intervals[name]] = in_brackets(mean_interval(row["values"][name], name), digits)
    for name in more:
        text[name] = spread([metrics[name] for metrics in row["metrics"].values() if name in metrics], 3)
    text["looked up"] = spread(row["looked_up"], 0)
    text["minutes"] = spread(row["minutes"], 1)
    text["n"] = str(len(row["seeds"]))
    return text


def filled(body: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same rows without the columns that say nothing: those without a value, and a phase that all share."""
    titles = list(dict.fromkeys(title for text in body for title in text))
    idle = {title for title in titles if not any(text.get(title) for text in body)}
    if len({text["phase"] for text in body}) == 1:
        idle.add("phase")
    return [{title: text.get(title, "") for title in titles if title not in idle} for text in body]


def render(
    key: Key,
    rows: list[dict[str, Any]],
    format: str = "md",
    papers: Sequence[Paper] = (),
    links: bool = True,
    more: Sequence[str] = (),
) -> str:
    """One table as text, with a column for each of `more` metrics; what the papers print of a row's label stands in
    columns of its own."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    space, target, dataset, preset, subset = key
    body, cited = filled([cells(row, more) for row in rows]), dict[str, str]()
    ranked = any(row["values"]["kendall_tau"] for row in rows)
    if not ranked:  # then the runs trained the networks themselves, and no table says what is true
        body = [{title.removeprefix("true "): text for title, text in row.items()} for row in body]
    for title, name, digits in REPORTED:
        printed = [reported.find(papers, row["method"], space, target, name) for row in rows]
        if any(printed):
            cited |= {one[0].paper: one[0].note for one in printed if one}
            for text, one in zip(body, printed, strict=True):
                text[title] = one[1].text(digits) if one else ""
    if format == "csv":
        where = dict(zip(("space", "target", "dataset", "preset", "subset"), key, strict=True))
        return _csv([where | text for text in body])
    if format == "latex":
        return (
            f"% {space}, {target}, trained on {dataset}, preset {preset}, subset {subset}\n"
            + tabulate(body, headers="keys", tablefmt=FORMATS[format], disable_numparse=True)
            + "\n"
        )
    for row, text in zip(rows, body, strict=True) if links else ():
        each = [f"[{seed}]({path})" for seed, path in zip(row["seeds"], row["paths"], strict=True)]
        text["records (seed)"] = " ".join(each)
    lines = [
        f"# {space}, ranked against {target}" if ranked else f"# {space} on {target}",
        "",
        f"Trained on {dataset} with preset `{preset}`{f'; tau-b on the subset `{subset}`' if ranked else ''}.",
        *(
            f"The scores and picks are those of the runs ranked against {name}: nothing was trained or chosen anew."
            for name in sorted({name for row in rows for name in row["chosen_for"]})
        ),
        "Mean ± standard deviation over n seeds; the interval is Student's 95 % for the mean.",
        "",
        tabulate(body, headers="keys", tablefmt=FORMATS[format], disable_numparse=True),
        "",
        *notes(rows),
        *(f"Reported: as printed in {paper}. {note}\n" for paper, note in cited.items()),
        f"Measured on: {'; '.join(sorted({d for row in rows for d in row['devices']}))}. "
        f"Dates: {', '.join(sorted({d for row in rows for d in row['dates']}))}.",
    ]
    return "\n".join(lines) + "\n"


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Which differences can be told from noise."""
    notes = []
    for row in rows:
        tau, trivial = row["values"]["kendall_tau"], row["values"]["params_tau"]
        interval = mean_interval(tau)
        if interval and trivial and tau != trivial:  # it may be that count itself
            baseline = statistics.fmean(trivial)
            verdict = "cannot be told from"
            if interval[0] > baseline:
                verdict = "ranks better than"
            elif interval[1] < baseline:
                verdict = "ranks worse than"
            notes.append(f"- {row['method']} {verdict} the parameter count (tau {baseline:.3f}).")
    if any(row["looked_up"] for row in rows):
        notes.append("- Looked up: networks trained alone that a search was told the accuracy of; not in `minutes`.")
    if any(len(row["seeds"]) < differences.ENOUGH for row in rows):
        notes.append("- Rows of fewer than three seeds get no verdict.")
    if notes:
        notes.append("")
    return [*notes, *(line for sentence in differences.note(rows) for line in (sentence, ""))]


def _csv(body: list[dict[str, str]]) -> str:
    import csv
    import io

    out = io.StringIO()
    writer = csv.DictWriter(out, list(body[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(body)
    return out.getvalue()


def render_all(
    found: list[tuple[str, dict[str, Any]]], format: str = "md", papers: Sequence[Paper] = (), more: Sequence[str] = ()
) -> str:
    """Every table, one after the other, without links to the records. Raises BadInput for a metric that none has."""
    known = {m["name"] for _, record in found for result in record["results"] for m in result["metrics"]}
    for name in more:
        if name not in known:
            raise unknown("metric", name, known)
    every = tables(everywhere(found)).items()
    return "\n".join(render(key, rows, format, papers, links=False, more=more) for key, rows in every)


def file_name(key: Key) -> str:
    """The file of a table."""
    space, target, dataset, preset, subset = key
    return f"{space}-{target}-{dataset}-{preset}-{subset.replace(':', '')}.md".replace("/", "_")


def publish(runs: Path, out: Path) -> list[Path]:
    """Copy the records below `runs` into `out/records`, then write the tables of all records there."""
    for _, record in read_all(runs):
        recipe = validated(records.Recipe, record["recipe"])
        name = f"{records.folder_name(recipe, record['id'])}.json"
        write_atomic(out / "records" / name, records.dumps(record))
    written = []
    for path, text in pages(out).items():
        write_atomic(path, text)
        written.append(path)
    return written


def stale(out: Path) -> list[Path]:
    """Tables in `out` that are not what its records and reported numbers give, or whose records are gone."""
    wanted = pages(out)
    orphans = {path for path in out.glob("*.md") if path.name != "README.md"} - wanted.keys()
    return [p for p, text in wanted.items() if not p.exists() or p.read_text() != text] + sorted(orphans)


def pages(out: Path) -> dict[Path, str]:
    """The tables of the records in `out`, by the file that each belongs in."""
    papers = reported.read_all()
    return {
        out / file_name(key): render(key, rows, papers=papers)
        for key, rows in tables(everywhere(read_all(out))).items()
    }
