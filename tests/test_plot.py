"""Pictures of records: which points, which curves, the same bytes, what cannot be drawn."""

from __future__ import annotations

import builtins
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from nasbench import BadInput
from nasbench.leaderboard import read_all, tables
from nasbench.plot import Curve, curves, plot
from tests.boards import made, result, written
from tests.command import nasbench
from tests.conftest import Record

pytest.importorskip("matplotlib")


def pruned(seed: int, method: str = "spos", shift: float = 0.0) -> Record:
    """A record with two budgets and two phases; accuracy rises with the seed."""
    record = made(method, seed=seed)
    record["results"] = [
        result({"budget": budget}, phase, madds=madds, params=madds / 10, top1=top1 + 2 * seed + shift)
        for budget, madds in (("keep=0.5", 3e6), ("keep=0.9", 9e6))
        for phase, top1 in (("sampled", madds / 1e6), ("fine-tuned", 60.0 + madds / 1e6))
    ]
    return record


def test_a_curve_for_each_method_and_phase_with_means_over_seeds(tmp_path: Path) -> None:
    folder = written(tmp_path, pruned(0), pruned(1), pruned(0, "fairnas", 10.0))
    ((_, rows),) = tables(read_all(folder)).items()
    assert curves(rows) == [
        Curve("fairnas", "fine-tuned", [3e6, 9e6], [73.0, 79.0], [0.0, 0.0]),
        Curve("fairnas", "sampled", [3e6, 9e6], [13.0, 19.0], [0.0, 0.0]),
        Curve("spos", "fine-tuned", [3e6, 9e6], [64.0, 70.0], pytest.approx([2**0.5] * 2)),
        Curve("spos", "sampled", [3e6, 9e6], [4.0, 10.0], pytest.approx([2**0.5] * 2)),
    ]
    assert [c.x for c in curves(rows, x="params")] == [[3e5, 9e5]] * 4
    assert curves(rows, y="nothing") == []


def test_the_command_writes_the_same_picture_each_time(tmp_path: Path) -> None:
    written(tmp_path / "runs", pruned(0), pruned(1), pruned(0, "fairnas"))
    done = nasbench("plot", "--out", "here", cwd=tmp_path)
    assert done.code == 0, done.err
    path = tmp_path / "here" / "tiny-digits-digits-test-table-madds-top1.svg"
    assert done.out.strip() == f"wrote here/{path.name}"
    text = path.read_text()
    words = "".join(ET.fromstring(text).itertext())
    for label in ("spos, sampled", "fairnas, fine-tuned", "multiply-adds (M)", "top-1 (%)", "tiny on digits"):
        assert label in words
    plot(tmp_path / "runs", tmp_path / "again")
    assert (tmp_path / "again" / path.name).read_text() == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "mads"}, "Unknown metric 'mads'; did you mean 'madds'"),
        ({"y": "top2"}, "Unknown metric 'top2'; did you mean 'top1'"),
    ],
)
def test_a_metric_that_no_record_has(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        plot(written(tmp_path / "runs", pruned(0)), tmp_path, **options)


def test_one_scenario_is_no_curve(tmp_path: Path) -> None:
    record = made()
    record["results"] = [result(madds=1e6, top1=50.0)]
    with pytest.raises(BadInput, match="has a top1 at two scenarios"):
        plot(written(tmp_path / "runs", record), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    folder = written(tmp_path / "runs", pruned(0))
    monkeypatch.setattr("builtins.__import__", missing)
    with pytest.raises(BadInput, match=r"pip install 'nasbench\[plot\]'"):
        plot(folder, tmp_path / "out")
