"""The paper's ablations as sweeps: every row can run, and no two rows are the same run."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasbench.sweeps.sweep import plan, read

SWEEPS = Path(__file__).parents[2] / "plugins" / "nasbench_dance" / "sweeps"


@pytest.mark.parametrize(("name", "runs"), [("table2", 15), ("fig3", 3), ("fig4", 6), ("fig5", 21)])
def test_a_sweep_can_run(name: str, runs: int, tmp_path: Path) -> None:
    jobs = plan(read(SWEEPS / f"{name}.yaml"), tmp_path)
    assert [job.why for job in jobs if job.state != "waiting"] == []
    assert len({job.folder for job in jobs}) == len(jobs) == runs


def test_table_1_is_the_papers_setting() -> None:
    matrix = read(SWEEPS / "table1.yaml")
    assert matrix.presets == ["paper"]
    assert {"dance", "uniform-widths", "spos+retrain"} <= set(matrix.methods)
