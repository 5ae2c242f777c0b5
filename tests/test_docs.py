"""Documents that can rot: links, quoted code, quoted tables, the leaderboards."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nasbench.plugins import discover
from tests.command import nasbench

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


def test_the_page_on_performance_names_every_script_of_it() -> None:
    text = (ROOT / "docs/performance.md").read_text()
    scripts = [path.name for path in (ROOT / "benchmarks").glob("*.py")]
    assert "bench.py" in scripts
    assert [name for name in scripts if f"benchmarks/{name}" not in text] == []


def test_the_leaderboards_are_what_their_records_give() -> None:
    checked = nasbench("leaderboard", "--check", "--out", str(ROOT / "leaderboards"), cwd=ROOT)
    assert (checked.code, checked.out, checked.err) == (0, "", "")


def test_every_page_made_from_records_is_what_they_give(tmp_path: Path) -> None:
    """Tables, papers' tables and the README's rows, each word of them; and none is missing or left over."""
    theirs, ours = tmp_path / "leaderboards", ROOT / "leaderboards"
    theirs.mkdir()
    (theirs / "records").symlink_to(ours / "records")
    shutil.copy(ROOT / "README.md", tmp_path)
    subprocess.run([sys.executable, str(ours / "generate.py"), str(tmp_path)], check=True)
    made = {path.relative_to(tmp_path) for path in theirs.rglob("*.*") if path.suffix in (".md", ".csv")}
    here = {path.relative_to(ROOT) for path in ours.rglob("*.*") if path.suffix in (".md", ".csv")}
    assert made == here - {Path("leaderboards/README.md")}, "run `make pages`"
    for path in [Path("README.md"), *sorted(made)]:
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), f"{path}: run `make pages`"
