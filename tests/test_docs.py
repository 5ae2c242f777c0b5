"""Documents that can rot: links, quoted code, quoted tables, the leaderboards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nasbench import leaderboard
from nasbench.plugins import discover

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in ROOT.rglob("*.md") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_shows_fairnas_as_it_is() -> None:
    block, _ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block in (ROOT / "plugins/nasbench_oneshot/fairnas.py").read_text()


def test_the_readme_names_every_method_modifier_and_space() -> None:
    text = (ROOT / "README.md").read_text()
    for kind in ("method", "modifier", "space"):
        for name, entry in discover(kind).items():
            if entry.dist and entry.dist.name == "nasbench":
                assert f"`{name}`" in text, f"README.md does not name the {kind} {name}"


def test_the_readme_quotes_a_leaderboard() -> None:
    (quoted,) = re.findall(
        r"<!-- leaderboard -->\n(.*)<!-- /leaderboard -->", (ROOT / "README.md").read_text(), re.DOTALL
    )
    rows = [line for line in quoted.splitlines() if line.startswith("| ") and "---" not in line]
    cells = [{cell.strip() for cell in row.strip("|").split("|")} for row in rows[1:]]
    tables = [p.read_text() for p in sorted((ROOT / "leaderboards").glob("*.md")) if p.name != "README.md"]
    full = [{cell.strip() for cell in line.strip("|").split("|")} for text in tables for line in text.splitlines()]
    assert cells
    for row in cells:
        assert any(row <= other for other in full), f"README.md quotes {row}, which no leaderboard has"


def test_the_leaderboards_are_what_their_records_give() -> None:
    assert leaderboard.stale(ROOT / "leaderboards") == []
