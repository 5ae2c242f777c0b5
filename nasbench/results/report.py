"""One page of all records in a folder: `nasbench report`. Needs jinja2 and matplotlib, the extra `plot`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from nasbench.errors import BadInput
from nasbench.files import write_atomic
from nasbench.plotting import Found, Options, Picture, architecture, cost, intervals, progress, ranking, styled
from nasbench.plotting.inline_svg import inlined
from nasbench.recipe import GROUPS, OF_THE_DATA, label_beside_preset, resolve
from nasbench.results import leaderboard as boards
from nasbench.results.leaderboard import Key


class Board(NamedTuple):
    """A table of the page, and what belongs below it."""

    id: str
    title: str
    about: str
    columns: list[str]
    rows: list[dict[str, str]]
    runs: list[list[tuple[int, str]]]
    """For each row its runs: seed and id."""
    notes: list[str]
    pictures: list[Shown]


class Shown(NamedTuple):
    """A picture in the page, with the words for who cannot see it."""

    svg: str
    title: str
    text: str


class Detail(NamedTuple):
    """A run."""

    record: dict[str, Any]
    label: str
    path: str
    command: str
    settings: dict[str, str]
    pictures: list[Shown]
    problem: str
    """Why it has no drawing; empty where it has."""


def write(folder: Path, out: Path) -> None:
    """Write the page of the records below a folder. Raises BadInput if there are none or a library is missing."""
    write_atomic(out, page(folder))


def page(folder: Path) -> str:
    """The page: a single file that asks the network for nothing, and runs no script but its own."""
    try:
        from jinja2 import Environment
    except ImportError:
        raise BadInput("A report needs jinja2; install it with pip install 'nasbench[plot]'.") from None
    templates = files("nasbench") / "templates"
    script = (templates / "report.js").read_text()
    with styled():
        found, seen = Found(folder), Counter()
        tables = [board(found, key, seen) for key in found.tables]
        details = [detail(found, path, record, seen) for path, record in found.records]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["sortable"] = sortable
    environment.filters["number"] = number
    return environment.from_string((templates / "report.html").read_text()).render(
        name=folder.resolve().name,
        boards=tables,
        details=details,
        style=(templates / "report.css").read_text(),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        dates=sorted({record["measured"]["date"][:10] for _, record in found.records}),
    )


class Counter:
    """Numbers the pictures of a page, so that nothing in two of them has one id."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, picture: Picture) -> Shown:
        self.count += 1
        return Shown(inlined(picture, f"p{self.count}"), picture.title, picture.text)


def board(found: Found, key: Key, shown: Counter) -> Board:
    """One table with its notes and pictures."""
    space, target, dataset, preset, subset = key
    rows = found.tables[key]
    body = boards.filled([boards.cells(row) for row in rows])
    ids = {path: record["id"] for path, record in found.records}
    ranked = any(row["values"]["kendall_tau"] for row in rows)
    about = f"Trained on {dataset} with preset {preset}{f'; tau-b on the subset {subset}' if ranked else ''}."
    for name in sorted({name for row in rows for name in row["chosen_for"]}):
        about += f" The scores and picks are those of the runs ranked against {name}: nothing was trained anew."
    return Board(
        f"table-{hashlib.blake2b(repr(key).encode(), digest_size=4).hexdigest()}",
        f"{space}, ranked against {target}" if ranked else f"{space} on {target}",
        f"{about} Mean ± standard deviation over n seeds; the interval is Student's 95 % for the mean.",
        list(body[0]),
        body,
        [[(seed, ids[path]) for seed, path in zip(row["seeds"], row["paths"], strict=True)] for row in rows],
        [note.removeprefix("- ").replace("`", "") for note in boards.notes(rows) if note],
        [shown(picture) for picture in of_table(found, key)],
    )


def of_table(found: Found, key: Key) -> Iterator[Picture]:
    """The pictures below a table; a page has no room for the intervals of every scenario, which the bars show too."""
    rows = found.tables[key]
    part = found.only(key)
    names = {name for row in rows for metrics in row["metrics"].values() for name in metrics}
    if len({(tuple(row["scenario"].items()), row["phase"]) for row in rows}) == 1:
        yield from intervals.pictures(part, Options())
    for x, y in (("madds", "top1"), ("average_madds", "average_top1")):
        if {x, y} <= names:
            yield from cost.pictures(part, Options(x, y))
    yield from progress.anytime(part, Options())
    yield from progress.training(part, Options())


def detail(found: Found, path: str, record: dict[str, Any], shown: Counter) -> Detail:
    """One run with its pictures: how it ranked, and what it chose if that is one architecture."""
    pictures, problem = [shown(picture) for picture in ranking.of_run(found, path, record, Options())], ""
    if len(record["results"]) == 1 and record["results"][0]["arch"]:
        try:
            space = architecture.space_of(record)
            pictures.append(shown(architecture.draw("", space, space.parse(record["results"][0]["arch"]), 3.4)))
        except BadInput as error:  # a space that is not installed here
            problem = str(error)
    return Detail(record, found.label(path, record), path, command(record), settings(record), pictures, problem)


def settings(record: dict[str, Any]) -> dict[str, str]:
    """All that determined a run, by dotted name."""
    recipe = record["recipe"]
    groups = {**{group: recipe[group] for group in GROUPS if group in recipe}, **recipe["options"]}
    return {f"{group}.{name}": json.dumps(value) for group, values in groups.items() for name, value in values.items()}


def command(record: dict[str, Any]) -> str:
    """What repeats a run: its label and preset, and every setting in which it differs from them."""
    recipe = record["recipe"]
    label, names, sets = label_beside_preset(recipe), {n: recipe[n] for n in ("dataset", "preset", "seed")}, []
    base = _resolved(label, recipe["space"], **names)
    if not base or base["target"] != recipe["target"]:
        other = _resolved(label, recipe["space"], **names, target=recipe["target"])
        if other:  # else it is the dataset's own, which may not be at hand
            base, names["target"] = other, recipe["target"]
    base = base or {"options": {}}  # a plugin is not at hand: say everything
    recorded = {**{group: recipe[group] for group in GROUPS if group in recipe}, **recipe["options"]}
    given = {group: cls().model_dump(mode="json") | base.get(group, {}) for group, cls in GROUPS.items()}
    given |= base["options"]
    for group, values in recorded.items():
        for name, value in values.items():
            if given.get(group, {}).get(name, ...) != value and not (group == recipe["space"] and name in OF_THE_DATA):
                sets += ["--set", f"{group}.{name}={json.dumps(value)}"]
    plugin_files = [name for name in recipe.get("plugin_files", {}) if name.endswith(".py")]  # the others are installed
    words = ["nasbench", "run", *(word for name in plugin_files for word in ("--plugin", name))]
    words += ["-m", label, "-s", recipe["space"]]
    return shlex.join([*words, *(word for name, value in names.items() for word in (f"--{name}", str(value))), *sets])


def _resolved(label: str, space: str, **names: Any) -> dict[str, Any] | None:
    try:
        return resolve(label, space, **names).model_dump(mode="json")
    except BadInput:
        return None


def number(value: float | None) -> str:
    """A metric's value, short: the record has it in full.

    >>> number(1234567.0), number(0.53512), number(None)
    ('1,234,567', '0.5351', 'undefined')
    """
    if value is None:
        return "undefined"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.1f}"


def sortable(text: str) -> str:
    """What a cell is sorted by: the number it begins with, or its text.

    >>> sortable("0.535 ± 0.030"), sortable("[-0.1, 0.2]"), sortable("madds=3M"), sortable("fairnas")
    ('0.535', '-0.1', '3000000.0', 'fairnas')
    """
    found = re.match(r"\[?(-?\d[\d,]*\.?\d*(?:e-?\d+)?)(?![\w-])|\w+=(\d+\.?\d*)([KMG]?)$", text)
    if not found:
        return text
    if found[1]:
        return found[1].replace(",", "").rstrip(".")
    return str(float(found[2]) * {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}[found[3]])
