"""What a run leaves behind: one JSON file, the same for the same recipe but for what stands under `measured`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from nasbench.errors import BadInput, unknown
from nasbench.files import dump_json
from nasbench.plugins import LATER, build, build_terms, load, validated
from nasbench.recipe import Recipe
from nasbench.space import Arch

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1


@dataclass
class Choice:
    """An architecture that a search chose, for a scenario (a budget, a superclass) and a phase."""

    arch: Arch
    scenario: dict[str, Any] = field(default_factory=dict)
    phase: str = "search"
    selected_on: str = ""
    """What the choice was made by, for example `validation top-1 of the supernet`."""
    network: nn.Module | None = None
    """The plain network with its weights, of the shape that `space.build(arch)` makes; kept beside the record."""
    artefact: dict[str, Any] | None = None
    """What the architecture's text form does not say, for example the channels kept; kept beside the record."""


class Metric(BaseModel):
    """One number of a result, with what it means and what it was computed on."""

    model_config = ConfigDict(extra="forbid")
    name: str
    value: float | None
    unit: str = ""
    definition: str
    dataset: str = ""
    split: str = ""
    subset: str = ""
    selected_on: str = ""
    low: float | None = None
    """Lower end of a 95 % interval."""
    high: float | None = None
    """Upper end of a 95 % interval."""
    n: int | None = None
    """How many architectures the number is over."""
    curve: dict[str, list[int | float]] | None = None
    """How the value came about, column by column; a record leaves it out where there is none."""
    choice: int = 0
    """Which of the run's choices it belongs to."""


class Result(BaseModel):
    """What a search chose for one scenario and phase, and how good it is."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    scenario: dict[str, Any]
    """The budget and the superclass that it was chosen for; empty for a search without scenarios."""
    phase: str
    """The part of the run that it stands for, `search` where there is only one."""
    arch: str
    """The architecture in the space's text form."""
    arch_file: str | None = None
    """What the text form does not say, as JSON; a path below the run's folder."""
    network: str | None = None
    """The network's weights, as safetensors; a path below the run's folder."""
    metrics: list[Metric]


class Record(BaseModel):
    """What `record.json` holds: all that determined a run, what it found, and what was measured on the way."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    format: int
    """Version of this form."""
    id: str
    """Eight hex digits, equal for equal recipes on equal images (see `identity`)."""
    recipe: Recipe
    """Everything that determined the run."""
    dataset_hash: str
    """Hash of the images' content."""
    results: list[Result]
    """One for each scenario and phase."""
    measured: dict[str, Any]
    """What may differ between equal runs: seconds, memory, machine, versions, date."""

    def metric(self, name: str, choice: int = 0) -> Metric:
        """A metric of one result. Raises BadInput for a name that it lacks."""
        found = {metric.name: metric for metric in self.results[choice].metrics}
        if name not in found:
            raise unknown("metric", name, found)
        return found[name]


def identity(recipe: Recipe, content_hash: str) -> str:
    """Eight hex digits that name a run: all that determines its result, but neither device nor place."""
    values = recipe.model_dump(mode="json", exclude={"device": True, "engine": {"threads", "checkpoint_seconds"}})
    space = build(load("space", recipe.space), recipe.space, recipe.options[recipe.space])
    plugins = {**build_terms(recipe.method, recipe.options), recipe.space: space}
    options = values["options"]  # those of an evaluator stay as they are
    values["options"] = {n: _without_later(plugins[n], v) if n in plugins else v for n, v in options.items()}
    values = _without_later(recipe, values)
    return digest({**values, "data": {**values["data"], "content": content_hash}})


def _without_later(model: BaseModel, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a model but for later ones (see LATER) at their default."""
    kept = {}
    for name, value in values.items():
        mine, field_ = getattr(model, name), type(model).model_fields[name]
        if field_.json_schema_extra != LATER or mine != field_.default:
            kept[name] = _without_later(mine, value) if isinstance(mine, BaseModel) else value
    return kept


def digest(values: dict[str, Any]) -> str:
    """Eight hex digits of plain values."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=4).hexdigest()


def folder_name(recipe: Recipe, key: str) -> str:
    """A readable name that is unique by its last eight digits, and short enough for a file system."""
    label = "".join(c if c.isalnum() or c in "+-=._" else "_" for c in recipe.method)[:120]
    return f"{label}-{recipe.space}-{recipe.dataset}-{recipe.preset}-s{recipe.seed}-{key}"


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two records are the same but for what was measured."""
    return {**a, "measured": None} == {**b, "measured": None}


def dumps(record: dict[str, Any]) -> str:
    """The record as JSON; NaN and infinity are refused."""
    return dump_json(record)


def read(path: Path) -> dict[str, Any]:
    """Read a record. Raises BadInput if it is unreadable, truncated or of another format."""
    try:
        record = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(
            f"The record {path} cannot be read ({error}); delete it, or run it again with --force."
        ) from None
    parts = {"id", "recipe", "dataset_hash", "results", "measured"}
    if not isinstance(record, dict) or record.get("format") != FORMAT or not parts <= set(record):
        raise BadInput(f"{path} is no nasbench record of format {FORMAT}.")
    return record


def recipe_of(record: dict[str, Any]) -> Recipe:
    """The recipe of a record, for a CPU, with the threads it ran on: sums over several may round otherwise."""
    recipe: Recipe = validated(Recipe, record["recipe"])
    engine = recipe.engine.model_copy(update={"threads": record["measured"].get("threads")})
    return recipe.model_copy(update={"engine": engine})


def find(folder: Path) -> Iterator[Path]:
    """Every record below a folder."""
    yield from sorted({*folder.rglob("record.json"), *folder.glob("records/*.json")})


def locate(runs: Path, text: str) -> Path:
    """The record that a path, a run's folder or the beginning of a run's name or id stands for."""
    path = Path(text)
    if path.is_dir() and (path / "record.json").is_file():
        return path / "record.json"
    if path.is_file():
        return path
    # A run's folder and its record in a folder of leaderboards have the same name.
    names = {p.parent.name if p.name == "record.json" else p.stem: p for p in find(runs)}
    found = [name for name in names if name.startswith(text) or name.rpartition("-")[2].startswith(text)]
    if not found:
        raise unknown("run", text, names)
    if len(found) > 1:
        raise BadInput(f"{text!r} stands for {len(found)} runs; say more of {found[0]} or {found[1]}.")
    return names[found[0]]


def metric(record: dict[str, Any], name: str, choice: int = 0) -> dict[str, Any] | None:
    """A metric of one result of a record, or None."""
    return next((m for m in record["results"][choice]["metrics"] if m["name"] == name), None)
