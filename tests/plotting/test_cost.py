"""Accuracy against cost: which points, which curves, the same bytes, what cannot be drawn."""

from __future__ import annotations

import builtins
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from nasbench import BadInput
from nasbench.plotting import Found, Options, cost, plot, styled
from nasbench.plotting.cost import Curve, curves
from nasbench.results.leaderboard import read_all, tables
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


def test_superclasses_are_points_that_no_line_joins_unless_they_share_the_value(tmp_path: Path) -> None:
    record = made()
    record["results"] = [
        result({"budget": b, "superclass": s}, top1=top1, madds=madds, average_top1=m, average_madds=madds)
        for b, madds, m in (("madds=1M", 1e6, 40.0), ("madds=2M", 2e6, 50.0))
        for s, top1 in (("animals", m - 1), ("vehicles", m + 1))
    ]
    ((_, rows),) = tables(read_all(written(tmp_path, record))).items()
    ((each,), (mean,)) = curves(rows), curves(rows, "average_madds", "average_top1")
    assert (len(each.x), each.connected) == (4, False)
    assert (mean.y, mean.connected) == ([40.0, 50.0], True)


def test_the_command_writes_the_same_picture_each_time(tmp_path: Path) -> None:
    written(tmp_path / "runs", pruned(0), pruned(1), pruned(0, "fairnas"))
    done = nasbench("plot", "--out", "here", cwd=tmp_path)
    assert done.code == 0, done.err
    path = tmp_path / "here" / "tiny-digits-digits-test-table-madds-top1.svg"
    assert done.out.strip() == f"wrote here/{path.name}"
    text = path.read_text()
    words = "".join(ET.fromstring(text).itertext())
    for label in ("spos", "fairnas", "fine-tuned", "sampled", "multiply-adds (M)", "top-1 (%)", "tiny on digits"):
        assert label in words
    plot("cost", tmp_path / "runs", tmp_path / "again")
    assert (tmp_path / "again" / path.name).read_text() == text


@pytest.mark.parametrize(("format", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_other_formats_are_the_same_each_time_too(format: str, start: bytes, tmp_path: Path) -> None:
    runs = written(tmp_path / "runs", pruned(0))
    found = [plot("cost", runs, tmp_path / name, format=format)[0].read_bytes() for name in ("a", "b")]
    assert found[0] == found[1]
    assert found[0].startswith(start)


def test_the_front_is_drawn_and_told(tmp_path: Path) -> None:
    found = Found(written(tmp_path, pruned(0), pruned(0, "fairnas", 10.0)))
    with styled():
        (picture,) = cost.pictures(found, Options())
    (front,) = (line for line in picture.figure.axes[0].lines if line.get_label() == "Pareto front")
    assert [tuple(point) for point in front.get_xydata().tolist()] == [(3.0, 73.0), (9.0, 79.0)]
    assert "The Pareto front has 2 of 8 points and ends at 9, 79." in picture.text
    assert "fairnas, fine-tuned: from 73 at 3 to 79 at 9." in picture.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "mads"}, "Unknown metric 'mads'; did you mean 'madds'"),
        ({"y": "top2"}, "Unknown metric 'top2'; did you mean 'top1'"),
        ({"width": 0.5}, "A picture of 0.5 inches cannot be read; expected a --width from 2 to 20"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        plot("cost", written(tmp_path / "runs", pruned(0)), tmp_path, Options(**options))


def test_an_axis_may_begin_at_nothing(tmp_path: Path) -> None:
    runs = written(tmp_path / "runs", *(pruned(seed) for seed in range(2)))
    for path in runs.rglob("record.json"):
        record = json.loads(path.read_text())
        for i, one in enumerate(record["results"]):
            one["metrics"].append({**one["metrics"][0], "name": "nothing_first", "value": 3.0 * i})
        path.write_text(json.dumps(record))
    assert plot("cost", runs, tmp_path / "plots", Options(x="nothing_first"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["costs"], "Unknown kind of picture 'costs'; did you mean 'cost'?"),
        (["--format", "svgz"], "Unknown format 'svgz'; did you mean 'svg'?"),
        (["ranking", "--top", "0"], "There are no 0 best architectures; expected a --top of 1 or more."),
        (["ranking"], "There is nothing to draw below runs: ranking takes a run's folder with its scores.json"),
        (["training"], "There is nothing to draw below runs: training takes a run's folder with rows.jsonl: run with"),
        (["anytime"], "There is nothing to draw below runs: anytime takes a record with the metric anytime_test"),
        (["intervals", "--against", "sposs"], "Unknown method among these records 'sposs'; did you mean 'spos'?"),
    ],
)
def test_the_command_says_what_would_do(arguments: list[str], message: str, tmp_path: Path) -> None:
    written(tmp_path / "runs", pruned(0))
    done = nasbench("plot", *arguments, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not (tmp_path / "plots").exists()


def test_one_point_is_no_curve(tmp_path: Path) -> None:
    record = made()
    record["results"] = [result(madds=1e6, top1=50.0)]
    with pytest.raises(BadInput, match="cost takes a table with top1 and madds at two points"):
        plot("cost", written(tmp_path / "runs", record), tmp_path / "out")
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
        plot("cost", folder, tmp_path / "out")
