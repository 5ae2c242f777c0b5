"""Which method runs on which space: what is shipped is what the plugins answer, and a yes is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nasbench import matrix
from tests.command import nasbench
from tests.conftest import RunTiny

PAIRS = [(method, space) for method, row in matrix.shipped().items() for space, why in row.items() if not why]


def test_what_is_shipped_is_what_the_plugins_answer() -> None:
    assert matrix.shipped() == matrix.ask(*matrix.ours()), "run `python -m nasbench.matrix`"


@pytest.mark.slow
@pytest.mark.parametrize(("method", "space"), PAIRS)
def test_a_pair_that_is_not_refused_runs(run_tiny: RunTiny, method: str, space: str) -> None:
    (*_, result) = run_tiny(method, space=space)["results"]
    assert result["arch"]


def test_the_list_shows_it(tmp_path: Path) -> None:
    found = json.loads(nasbench("list", "methods", "--json", cwd=tmp_path).out)["spaces_of"]
    assert {(method, space) for method, spaces in found.items() for space in spaces} == set(PAIRS)
    lines = nasbench("list", "methods", cwd=tmp_path).out.splitlines()
    (at,) = [at for at, line in enumerate(lines) if line.split()[0] == "random-search"]
    assert lines[at + 1].split() == ["on", "nb201", "tiny"]
