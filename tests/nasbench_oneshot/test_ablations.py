"""Every command of the CaLR card's table of ablations can be run, and each asks for something of its own."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from nasbench_cells.nb201 import NB201

from nasbench.harness import prepare
from nasbench.recipe import Recipe, parse_set, resolve
from nasbench.tables import Column, Table, stored_path
from tests.command import nasbench

CARD = Path(__file__).parents[2] / "docs" / "methods" / "calr.md"


def rows() -> dict[str, list[str]]:
    """Artefact -> its commands."""
    section = CARD.read_text().partition("## Ablations and their switches")[2].partition("\n## ")[0]
    lines = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    return {cells[0].strip(): re.findall(r"`(-m [^`]*)`", cells[2]) for cells in lines}


def recipe(command: str) -> Recipe:
    words = shlex.split(command)
    named = {flag: [b for a, b in pairwise(words) if a == flag] for flag in ("--target", "--set")}
    target = named["--target"][0] if named["--target"] else None
    return resolve(words[1], "nb201", target=target, sets=parse_set(named["--set"]))


@pytest.fixture(autouse=True)
def benchmark(home: Path) -> None:
    """A table of every architecture on every dataset; what it says does not matter here."""
    columns = {Column(d, "test", 200, "mean"): np.zeros(15_625) for d in ("cifar10", "cifar100", "imagenet16-120")}
    Table("nb201", NB201(), np.arange(15_625), columns).save(stored_path("nb201"))


def test_the_table_is_the_papers() -> None:
    found = rows()
    assert {"Table A, Fig. A", "Tables K, L", "Table M", "Fig. B", "Figs. E-G"} <= set(found)
    assert {f"Table {letter}" for letter in "ADEFGHIJM"} <= {name.partition(",")[0] for name in found}
    assert all(found.values())


@pytest.mark.parametrize(("artefact", "commands"), rows().items(), ids=rows())
def test_every_command_composes(artefact: str, commands: list[str], tmp_path: Path) -> None:
    for command in commands:
        for method in ("spos", "fairnas", "fsnas"):
            prepare(recipe(command.replace("-m M", f"-m {method}")), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("artefact", "commands"), rows().items(), ids=rows())
def test_every_command_is_understood(artefact: str, commands: list[str], tmp_path: Path) -> None:
    for command in commands:
        words = shlex.split(command.replace("-m M", "-m spos"))
        code, out, err = nasbench("run", "--space", "nb201", *words, "--dry-run", cwd=tmp_path)
        assert (code, err) == (0, ""), command
        assert "training steps" in out


def test_the_commands_of_a_row_differ() -> None:
    for commands in rows().values():
        recipes = [recipe(command.replace("-m M", "-m spos")).model_dump_json() for command in commands]
        assert len(set(recipes)) == len(recipes), commands
