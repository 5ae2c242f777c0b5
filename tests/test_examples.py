"""The worked examples are distributions of somebody else: pip installs them, and they pass their own tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.third_party import pip_install, python

EXAMPLES = {
    "warmup": ("modifiers", "warmup"),
    "successive-halving": ("methods", "successive-halving"),
    "slim-mlp": ("spaces", "slim-mlp"),
}
FOLDER = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed them, with no network."""
    return pip_install(*(FOLDER / name for name in EXAMPLES), site=tmp_path_factory.mktemp("site"))


def test_every_example_is_tested_here() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == {*EXAMPLES}


def test_they_are_listed_with_their_distributions(site: Path, tmp_path: Path) -> None:
    found = json.loads(python(site, "nasbench", "list", "plugins", "--json", cwd=tmp_path))
    assert found["problems"] == []
    for example, (kind, name) in EXAMPLES.items():
        assert found["plugins"][f"nasbench-example-{example} 0.1.0"] == {kind: [name]}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_passes_its_own_tests(site: Path, tmp_path: Path, example: str) -> None:
    (test,) = (FOLDER / example).glob("test_*.py")
    (tmp_path / test.name).write_text(test.read_text())
    out = python(site, "pytest", "-p", "no:cacheprovider", "-q", cwd=tmp_path)
    assert " passed" in out


@pytest.mark.parametrize("label", ["fairnas+calr+warmup", "successive-halving"])
def test_they_go_together_and_with_ours(site: Path, tmp_path: Path, label: str) -> None:
    python(site, "nasbench", "run", "-m", label, "-s", "slim-mlp", "--preset", "test", cwd=tmp_path)
    (path,) = tmp_path.glob("runs/*/record.json")
    metrics = {m["name"]: m["value"] for m in json.loads(path.read_text())["results"][0]["metrics"]}
    assert metrics["top1"] is not None
    assert ("kendall_tau" in metrics) == (label != "successive-halving")  # it ranks nothing
