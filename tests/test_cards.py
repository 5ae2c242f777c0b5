"""Every numbered invariant of a method's or a space's card has a test, and every such mark a card."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

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
