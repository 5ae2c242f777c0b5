"""Every numbered invariant of a method's or a space's card has a test, and every such mark a card."""

from __future__ import annotations

import ast
import re
import shlex
from collections import defaultdict
from pathlib import Path

import pytest
import typer

from nasbench.cli import app
from nasbench.recipe import parse_set, resolve

ROOT = Path(__file__).parents[1]


def promised() -> set[tuple[str, int]]:
    """The numbered items below `## Invariants` of each card."""
    found = set()
    for card in (ROOT / "docs").glob("*/*.md"):
        _, _, after = card.read_text().partition("\n## Invariants\n")
        section = after.partition("\n## ")[0]
        found |= {(card.stem, int(number)) for number in re.findall(r"^(\d+)\. ", section, re.MULTILINE)}
    return found


def proved() -> dict[tuple[str, int], list[str]]:
    """Where each `@pytest.mark.invariant(name, number)` stands."""
    found = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.invariant":
                name, number = map(ast.literal_eval, node.args)
                found[name, number].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_every_invariant_is_proved() -> None:
    assert not sorted(promised() - set(proved()))


def test_every_proof_has_its_invariant() -> None:
    cards = promised()
    assert not {mark: where for mark, where in proved().items() if mark not in cards}


def test_invariants_are_numbered_without_gaps() -> None:
    numbers = defaultdict(list)
    for name, number in sorted(promised()):
        numbers[name].append(number)
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values()), dict(numbers)


def commands(card: Path) -> list[str]:
    """What the code blocks of a card tell to run, without `nasbench` in front."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", card.read_text(), re.MULTILINE | re.DOTALL)
    return re.findall(r"^nasbench (.*)", re.sub(r"\\\n\s*", " ", "\n".join(blocks)), re.MULTILINE)


@pytest.mark.parametrize("card", sorted((ROOT / "docs").glob("*/*.md")), ids=lambda path: path.stem)
def test_the_commands_of_a_card_can_be_read(card: Path) -> None:
    """They take hours, so each is parsed, and the recipe of a run resolved."""
    for line in commands(card):
        # A reader adds the JPEG copy of CIFAR-10 first.
        args = shlex.split(line.replace("cifar10-jpeg", "cifar10"), comments=True)
        verb = typer.main.get_command(app)
        while nested := getattr(verb, "commands", None):
            verb = nested[args.pop(0)]
        given = verb.make_context("nasbench", args).params
        if verb.name == "run":
            names = ("method", "space", "dataset", "target", "preset")
            resolve(**{name: given[name] for name in names}, sets=parse_set(given["sets"] or []))
