"""The pages of docs/ do what they say, and those that are made from code are not stale."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests import pages

DOCS = Path(__file__).parents[1] / "docs"
#: The pages whose blocks are executed; the cards of methods and spaces have commands that take hours.
FOLLOWED = sorted(p for p in DOCS.glob("*.md") if p.name not in ("performance.md", "hooks.md", "command-line.md"))


@pytest.fixture
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a reader has installed: nasbench, pip and pytest."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("needs pip in this environment")
    return pages.environment(tmp_path_factory.mktemp("environment"))


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda p: p.stem)
def test_a_page_followed_word_for_word_does_what_it_says(
    page: Path, env: dict[str, str], tmp_path: Path, home: Path
) -> None:
    pages.follow(page, tmp_path, {**env, "NASBENCH_HOME": str(home)})


def test_a_method_takes_as_many_lines_as_its_page_says() -> None:
    page = DOCS / "writing-a-method.md"
    (method,) = [b.text for b in pages.blocks(page) if b.title == "fair_sampler.py"]
    (said,) = re.findall(r"has (\d+) lines", page.read_text())
    assert int(said) == len(method.splitlines()) <= 25
    format_ = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"]
    assert subprocess.run(format_, input=method, capture_output=True, text=True, check=True).stdout == method
    imported = [node for node in ast.walk(ast.parse(method)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {node.module for node in imported if isinstance(node, ast.ImportFrom)} == {"__future__", "nasbench"}
    assert all(isinstance(node, ast.ImportFrom) for node in imported)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["hooks.md", "command-line.md", "methods/README.md", "spaces/README.md"])
def test_what_is_made_from_code_is_not_stale(page: str, generate: ModuleType) -> None:
    assert (DOCS / page).read_text() == generate.PAGES[page](), "run `python docs/generate.py`"


@pytest.mark.parametrize("folder", ["methods", "spaces"])
def test_the_index_leads_to_every_card(folder: str, generate: ModuleType) -> None:
    rows = re.findall(r"^\| `(.+?)` \| .+\. \| \[.+\]\((.+)\) \|$", (DOCS / folder / "README.md").read_text(), re.M)
    assert {card for _, card in rows} == {p.name for p in (DOCS / folder).glob("*.md")} - {"README.md"}
    for name, card in rows:  # what shares a card is named there
        assert f"{name}.md" == card or re.search(rf"\b{name}\b", (DOCS / folder / card).read_text()), name


def test_every_page_is_in_the_navigation_and_every_block_is_marked() -> None:
    listed = re.findall(r": (\S+\.md)", (DOCS.parent / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(str(p.relative_to(DOCS)) for p in DOCS.glob("*.md"))
    for page in FOLLOWED:
        assert page.read_text().count("\n```") % 2 == 0
        for block in pages.blocks(page):
            assert block.title or block.language in {"python", "console", *pages.SHOWN}, (page.name, block.line)


def test_the_tour_names_every_module_and_folder_once() -> None:
    (tree,) = [b.text for b in pages.blocks(DOCS / "tour.md") if b.language == "text"]
    inside = [*DOCS.parent.glob("nasbench/*.py"), *(p for p in DOCS.parent.glob("nasbench/[a-z]*") if p.is_dir())]
    for path in inside:
        name = path.name if path.suffix else f"{path.name}/"
        count = len(re.findall(rf"(?<!\w){re.escape(name)}", tree))
        assert name.startswith("__") or count == 1, f"docs/tour.md names {name} {count} times"
    for name in ("plugins", "search_spaces", "examples", "leaderboards", "docs", "tests", "benchmarks"):
        assert f"\n{name}/" in tree


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs mkdocs-material: pip install -e '.[docs]'")
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(mkdocs, cwd=DOCS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "writing-a-method" / "index.html").exists()
