"""The rules for every kind of plugin, and how a plugin is tried out."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from nasbench.errors import BadInput
from nasbench.plugins import Plugin, build, discover, load
from nasbench.testing.check import Failure, require
from nasbench.testing.observers import Witness, is_finite


class Suite:
    """The rules for every kind of plugin."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        self.registered = name if kind in ("method", "modifier") else f"{kind} {name}"

    @cached_property
    def cls(self) -> type[Plugin]:
        """The plugin's class."""
        return load(self.kind, self.name)

    def labels(self) -> list[str]:
        """Compositions to try the plugin in."""
        if self.kind == "method":
            return [self.name]
        return [f"{m}+{self.name}" if self.kind == "modifier" else m for m in discover("method")]

    def spaces(self) -> list[str]:
        """Spaces to try the plugin on, the smallest first."""
        sizes = {}
        for name in [self.name] if self.kind == "space" else discover("space"):
            with contextlib.suppress(*([] if self.kind == "space" else [Exception])):  # somebody else's may be broken
                sizes[name] = build(load("space", name), name, {}).size
        return sorted(sizes, key=lambda name: (sizes[name], name))

    def tries(self) -> list[tuple[str, str]]:
        """Spaces with compositions, in the order to try them: an evaluator may be about methods of its own package."""
        package = f"{self.cls.__module__.partition('.')[0]}."
        own = {name for name, entry in discover("method").items() if entry.value.startswith(package)}
        return sorted(itertools.product(self.spaces(), self.labels()), key=lambda place: place[1] not in own)

    @cached_property
    def first(self) -> Witness:
        """The first composition and space that do not refuse, and what a run there left."""
        build(self.cls, self.name, {})
        reasons: list[str] = []
        ran: set[str] = set()
        for space, label in self.tries():
            if {space, label} <= ran:  # an evaluator with nothing to say is not asked of all pairs
                continue
            try:
                witness = self.trial(label, space)
            except BadInput as error:
                reasons.append(f"{label} on {space}: {error}")
                continue
            if self.kind != "evaluator" or witness.own:
                return witness
            ran |= {space, label}
            reasons.append(f"{label} on {space}: it reports no metric.")
        raise Failure(
            f"Let {self.name} run on at least one installed space at the preset test; a space needs presets/NAME.yaml "
            f"with `test:` beside its module. Tried: {' '.join(reasons[:4]) or 'nothing, there is no method or space.'}"
        )

    @property
    def place(self) -> tuple[str, str]:
        """The composition and the space of the first run."""
        return self.first.label, self.first.space

    def trial(
        self, label: str, space: str, *observers: Any, seed: int = 0, noise: int = 0, folder: str = "", **engine: Any
    ) -> Witness:
        """One run; `noise` seeds every global generator before it."""
        import numpy as np
        import torch

        from nasbench.harness import execute
        from nasbench.recipe import resolve

        witness = Witness(self.registered, label, space)
        recipe = resolve(label, space, preset="test", seed=seed, sets={"engine": engine})
        for seed_globally in (random.seed, np.random.seed, torch.manual_seed):
            seed_globally(noise)
        with contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory() as runs, witness.looking():
            witness.record, _ = execute(recipe, Path(runs), observers=[witness, *observers])
        return witness

    def same(self, other: Witness, instruction: str) -> None:
        """Require the record of the first run."""
        from nasbench import records

        def flat(record: dict[str, Any]) -> dict[str, Any]:
            results = list(enumerate(record["results"]))
            return {f"result {i}": {**r, "metrics": None} for i, r in results} | {
                f"{m['name']} of result {i}": m for i, r in results for m in r["metrics"]
            }

        a, b = flat(self.first.record), flat(other.record)
        names = ", ".join(n for n in a | b if a.get(n) != b.get(n))
        require(records.equal(self.first.record, other.record), f"{instruction} Different: {names or 'the recipe'}.")

    # ------------------------------------------------------------------ rules

    def check_runs_at_the_preset_test(self) -> None:
        first = self.first
        require(first.choices, "Return at least one Choice from search or select.")
        for choice in first.choices:
            require(
                choice.arch in first.run.space,
                f"Choose architectures of run.space, as tuples; {choice.arch!r} is none.",
            )

    def check_options_are_described_and_their_defaults_valid(self) -> None:
        for name, field in self.cls.model_fields.items():
            require(field.description, f"Write a docstring below the option {name}; `nasbench config` shows it.")
        made = build(self.cls, self.name, {})
        build(self.cls, self.name, made.model_dump(warnings=False))  # pydantic takes defaults unseen

    def check_same_seed_same_record(self) -> None:
        from nasbench import records

        elsewhere = self.trial(*self.place, noise=1)
        if not records.equal(self.first.record, elsewhere.record):  # which of two reasons is it?
            again = self.trial(*self.place)
            self.same(again, "Keep no state outside the instance: a second run gave another record.")
            self.same(
                elsewhere,
                "Draw from run.rng(purpose) or run.generator(purpose), never from random, numpy or torch themselves.",
            )

    def check_record_survives_json(self) -> None:
        from nasbench import records

        record = self.first.record
        require(
            json.loads(records.dumps(record)) == record,
            "Put only strings, numbers, lists and dictionaries into scenarios and metrics: JSON changed the record.",
        )

    def check_metrics_are_defined_and_finite(self) -> None:
        for metric in self.first.own:
            about = f"the metric {metric.name!r}"
            require(metric.name.strip() and metric.definition.strip(), f"Give {about} a name and a definition.")
            for value in (metric.value, metric.low, metric.high):
                require(is_finite(value), f"Report None where {about} is undefined; it was {value}.")
