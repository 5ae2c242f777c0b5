"""A distribution of somebody else, built and installed with pip, is used, listed and checked like ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nasbench.testing import checks
from tests.third_party import pip_install, python

FILES = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "acme-nas"
version = "1.2"
dependencies = ["nasbench"]

[project.entry-points."nasbench.methods"]
acme-fair = "acme_nas:AcmeFair"

[project.entry-points."nasbench.modifiers"]
warmup = "acme_nas:Warmup"

[tool.setuptools]
py-modules = ["acme_nas"]
""",
    "acme_nas.py": '''
from collections.abc import Generator

from pydantic import Field

from nasbench import Arch, Method, Modifier, Run, hookimpl


class AcmeFair(Method):
    """Each step trains every option of every decision once."""

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        rng = run.rng("archs")
        return list(zip(*(rng.sample(options, len(options)) for options in run.space.options)))


class Warmup(Modifier):
    """The rates rise linearly over the first share of the training, whoever gives them."""

    share: float = Field(0.25, gt=0, le=1)
    """Share of the steps over which they rise."""

    @hookimpl(wrapper=True)
    def learning_rates(self, run: Run) -> Generator[None, list[float], list[float]]:
        rates = yield
        return [rate * min(1, (run.step + 1) / (self.share * run.total_steps)) for rate in rates]
''',
    "test_acme_nas.py": """
import pytest
from nasbench.testing import checks

@pytest.mark.parametrize("check", checks("method", "acme-fair"), ids=str)
def test_acme_fair(check):
    check()
""",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the distribution, with no network."""
    source = tmp_path_factory.mktemp("acme-nas")
    for name, content in FILES.items():
        (source / name).write_text(content)
    return pip_install(source, site=tmp_path_factory.mktemp("site"))


def test_it_is_listed_with_its_distribution(site: Path, tmp_path: Path) -> None:
    found = json.loads(python(site, "nasbench", "list", "--json", cwd=tmp_path))
    assert found["methods"]["acme-fair"] == found["modifiers"]["warmup"] == "acme-nas 1.2"


@pytest.mark.parametrize(
    ("label", "canonical"),
    [
        ("fairnas+calr+warmup", "fairnas+calr+warmup"),
        ("warmup[share=0.5]+acme-fair+ms", "acme-fair+ms+warmup[share=0.5]"),
    ],
)
def test_it_composes_with_ours(site: Path, tmp_path: Path, label: str, canonical: str) -> None:
    python(site, "nasbench", "run", "-m", label, "-s", "tiny", "--preset", "test", cwd=tmp_path)
    (path,) = tmp_path.glob("runs/*/record.json")
    record = json.loads(path.read_text())
    assert record["recipe"]["method"] == canonical
    assert record["recipe"]["options"]["warmup"] == {"share": 0.5 if "0.5" in label else 0.25}
    assert record["results"][0]["metrics"]


def test_it_passes_our_checks(site: Path, tmp_path: Path) -> None:
    out = python(site, "nasbench", "check", "warmup", cwd=tmp_path)
    assert out.splitlines() == [f"ok      {check}" for check in checks("modifier", "warmup")]


def test_its_author_tests_it_in_three_lines(site: Path, tmp_path: Path) -> None:
    (tmp_path / "test_acme_nas.py").write_text(FILES["test_acme_nas.py"])
    out = python(site, "pytest", "-p", "no:cacheprovider", "-v", cwd=tmp_path)
    for check in checks("method", "acme-fair"):
        assert f"test_acme_fair[{check}] PASSED" in out
