"""The other kinds of picture: what is drawn where, what they say in words, and that nothing is cut off or covered."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasbench import BadInput
from nasbench.files import dump_json
from nasbench.metrics import mean_interval
from nasbench.plotting import KINDS, Found, Options, architecture, intervals, progress, ranking, styled
from nasbench.plotting.architecture import HEIGHT, STEP, Arc, arranged
from nasbench.plotting.style import Picture
from nasbench.plugins import build, load
from nasbench.results.leaderboard import everywhere, tables
from tests.boards import made, result, written
from tests.command import nasbench
from tests.conftest import Record

matplotlib = pytest.importorskip("matplotlib")
SCORES = {"arch": list("abcd"), "score": [1.0, 2.0, 3.0, None], "true": [10.0, 30.0, 20.0, 40.0]}


def ranked(method: str = "spos", seed: int = 0, tau: float = 0.5) -> Record:
    """A record as a run on `tiny` leaves it, with a choice that can be drawn and the curve of a search."""
    record = made(method, tau, seed=seed, madds=1000.0 + seed)
    record["results"][0]["arch"] = "layer0=skip layer1=linear layer2=bottleneck"
    curve = {"queries": [1, 3], "value": [50.0 + seed, 60.0 + seed]}
    record["results"][0]["metrics"].append({"name": "anytime_test", "value": 60.0, "n": 9, "curve": curve})
    return record


def runs(folder: Path, *records: Record) -> Found:
    """Folders of runs, with all that may lie beside a record."""
    for i in range(len(records)):
        there = written(folder, *records) / f"run{i}" if not i else folder / f"run{i}"
        (there / "scores.json").write_text(dump_json(SCORES))
        rows = [{"stage": "train", "step": step, "loss": 3.0 - step / 100, "lr": 0.1} for step in range(10, 101, 10)]
        rows.append({"stage": "part/train", "step": 10, "loss": None})
        (there / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, {"results": {}}]))
    return Found(folder)


@pytest.fixture
def draw() -> Iterator[Callable[..., list[Picture]]]:
    """`draw(ranking, found, top=2)`: the pictures, drawn and ready to be looked into."""
    with styled():
        yield lambda make, found, **options: list(make(found, Options(**options)))


# ---------------------------------------------------------------------- predicted against true


def test_the_best_by_score_and_in_truth_are_marked(tmp_path: Path, draw: Any) -> None:
    (picture,) = draw(ranking.pictures, runs(tmp_path, ranked()), top=2)
    whole, near = picture.figure.axes
    at = {
        axes: {c.get_label(): [tuple(p) for p in c.get_offsets().tolist()] for c in axes.collections}
        for axes in (whole, near)
    }
    marked = {"best by both": [(2.0, 30.0), (3.0, 20.0)], "best by score": [], "best in truth": []}
    assert at == {whole: marked | {"the others": [(1.0, 10.0)]}, near: marked}  # a score of null is left out
    assert whole.get_title() == "all 3: tau 0.500"
    assert "Kendall's tau is 0.500." in picture.text
    assert "Of the 2 best by score 100% are among the 2 truly best; the best of them is number 1" in picture.text
    assert picture.name == "run0-ranking"


def test_failures_far_below_do_not_squeeze_the_rest_and_are_counted(draw: Any) -> None:
    score, true = [float(i) for i in range(40)], [90.0 + i / 40 for i in range(40)]
    score[0], true[0] = -1000.0, 10.0
    picture = ranking.draw("x", "spos", ranked(), score, true, Options())
    whole, _ = picture.figure.axes
    assert [text.get_text() for text in whole.texts] == ["1 lower"]
    assert whole.get_ylim()[0] > 80
    assert whole.get_xlim()[0] > -200


@pytest.mark.parametrize("text", ["{", '{"score": [1]}x', '{"true": [1]}', '{"score": [1, 2], "true": [1]}'])
def test_broken_scores_are_named(text: str, tmp_path: Path, draw: Any) -> None:
    found = runs(tmp_path, ranked())
    (tmp_path / "run0" / "scores.json").write_text(text)
    with pytest.raises(BadInput, match=r"scores.json holds no scores .*; run its command again with --force"):
        draw(ranking.pictures, found)


# ---------------------------------------------------------------------- methods with intervals


def test_means_and_intervals_are_those_of_the_leaderboard(tmp_path: Path, draw: Any) -> None:
    found = runs(tmp_path, *(ranked("spos", s, t) for s, t in enumerate((0.4, 0.5, 0.6))), ranked("fairnas", 0, 0.8))
    (picture,) = draw(intervals.pictures, found)
    (axes,) = picture.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fairnas (n = 1)", "spos (n = 3)"]
    (bar,) = axes.containers  # one seed has no interval
    (segment,) = bar.lines[2][0].get_segments()
    assert segment[:, 0].tolist() == pytest.approx(mean_interval([0.4, 0.5, 0.6]))
    assert "spos: 0.5, 95 % interval 0.2516 to 0.7484, 3 seeds." in picture.text
    assert "The parameter count, which costs no training, is at 0.4." in picture.text
    (picture,) = draw(intervals.pictures, found, y="madds")
    assert "madds-intervals" in picture.name


def test_differences_are_paired_by_seed(tmp_path: Path, draw: Any) -> None:
    every = [*(ranked("spos", s, 0.4) for s in (0, 1)), *(ranked("fairnas", s, 0.6 + s / 10) for s in (1, 2))]
    for record in every:
        record["results"][0]["metrics"].append({"name": "kendall_tau.elsewhere", "value": 0.9})
    found = runs(tmp_path, *every)
    picture, other = draw(intervals.pictures, found, against="spos")
    assert "fairnas: 0.3, 1 seeds." in picture.text  # seed 1 alone is a pair
    assert picture.text.count("fairnas") == 1  # what the scores say of another dataset is another table's
    assert ("tiny on digits (elsewhere)" in other.text, "fairnas: 0, 1 seeds." in other.text) == (True, True)
    assert list(found.tables) == list(tables(everywhere(found.records)))
    assert len(draw(progress.training, found)) == 1  # the training is one, however many tables its scores stand in
    assert picture.figure.axes[0].get_xlabel() == "Kendall's tau, minus spos"


# ---------------------------------------------------------------------- curves


def test_the_best_so_far_is_a_staircase_to_the_last_query(tmp_path: Path, draw: Any) -> None:
    (picture,) = draw(progress.anytime, runs(tmp_path, ranked(seed=0), ranked(seed=2)))
    stairs = picture.figure.axes[0].lines[0]
    assert stairs.get_drawstyle() == "steps-post"
    assert stairs.get_xydata().tolist() == [[1.0, 51.0], [3.0, 61.0], [9.0, 61.0]]


def test_the_loss_of_each_run_is_a_line(tmp_path: Path, draw: Any) -> None:
    (picture,) = draw(progress.training, runs(tmp_path, ranked(seed=0), ranked(seed=1), ranked("fairnas")))
    lines = picture.figure.axes[0].lines
    assert [line.get_xydata()[-1].tolist() for line in lines] == [[100.0, 2.0]] * 3
    assert len({line.get_color() for line in lines}) == 2
    assert len({line.get_linestyle() for line in lines}) == 2
    assert "spos: from 2.9 to 2 in 100 steps." in picture.text


def test_broken_rows_are_named(tmp_path: Path, draw: Any) -> None:
    found = runs(tmp_path, ranked())
    (tmp_path / "run0" / "rows.jsonl").write_text('{"stage": ')
    with pytest.raises(BadInput, match=r"rows.jsonl cannot be read as JSON lines"):
        draw(progress.training, found)


def test_a_run_leaves_what_the_pictures_take(tmp_path: Path) -> None:
    run = ("run", "-m", "spos", "-s", "tiny", "--preset", "test", "--observe", "jsonl")
    assert nasbench(*run, cwd=tmp_path).code == 0
    for kind in ("ranking", "training", "anytime", "networks"):
        done = nasbench("plot", kind, cwd=tmp_path)
        assert (done.code, done.err) == (0, ""), kind
    (scores,) = (tmp_path / "runs").glob("*/scores.json")
    columns = json.loads(scores.read_text())
    assert {name: len(column) for name, column in columns.items()} == {"arch": 27, "score": 27, "true": 27}


# ---------------------------------------------------------------------- drawings


@pytest.mark.parametrize(("space", "options"), [("nb201", {}), ("darts", {}), ("darts", {"variant": "SS2"})])
@given(number=st.integers(0, 10**9))
@settings(max_examples=20, deadline=None)
def test_in_a_cell_no_label_covers_another(space: str, options: dict[str, Any], number: int) -> None:
    made_ = build(load("space", space), space, options)
    for graph in made_.graphs(made_.sample(random.Random(number))):
        arcs = arranged(graph)
        assert sorted((graph.nodes[a.start], graph.nodes[a.end], a.label) for a in arcs) == sorted(graph.edges)
        for i, a in enumerate(arcs):
            assert not any(covers(a, b) for b in arcs[:i]), (a, arcs[:i])


def covers(a: Arc, b: Arc) -> bool:
    """Whether two labels meet, each as wide as its letters at 7 points."""
    width = 0.055 * (len(a.label) + len(b.label)) / 2
    height = abs(a.start + a.end - b.start - b.end) / 2 * STEP
    return abs(a.out - b.out) < width and height < HEIGHT - 0.02


def test_a_cell_is_drawn_without_what_computes_nothing(draw: Any) -> None:
    space = build(load("space", "nb201"), "nb201", {})
    picture = architecture.draw(
        "x", space, space.parse("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"), 3.4
    )
    words = [text.get_text() for text in picture.figure.axes[0].texts]
    assert sorted(words) == ["1", "2", "input", "nor_conv_1x1", "nor_conv_3x3", "output", "skip_connect"]
    assert "cell: input to 1 nor_conv_3x3, 1 to 2 skip_connect, 2 to output nor_conv_1x1." in picture.text


def test_layers_show_widths_and_only_blocks_that_there_are(draw: Any) -> None:
    resnet = build(load("space", "resnet18"), "resnet18", {})
    layers = resnet.chain(resnet.sample(random.Random(0)))
    assert len(layers) == len(resnet.choices)
    assert all(layer.size == int(layer.label) / len(resnet.choices[layer.name]) for layer in layers)
    mobile = build(load("space", "mobilenetv3"), "mobilenetv3", {})
    layers = mobile.chain(mobile.parse("ks=7 e=3 d=2,3,4,2,2"))
    assert [layer.name for layer in layers[:5]] == ["1.1", "1.2", "2.1", "2.2", "2.3"]
    assert {layer.label for layer in layers} == {"k7 e3"}
    assert len(layers) == 13


def test_an_architecture_is_drawn_once_however_often_it_was_chosen(tmp_path: Path, draw: Any) -> None:
    record = ranked()
    first = record["results"][0]["arch"]
    record["results"] = [
        {**result({"budget": budget}, top1=1.0), "arch": arch}
        for budget, arch in (("keep=1", first), ("keep=0.5", first), ("keep=0.1", first.replace("linear", "skip")))
    ]
    pictures = draw(architecture.pictures, runs(tmp_path, record))
    assert [picture.name for picture in pictures] == ["run0-0-network", "run0-1-network"]
    assert pictures[1].text.startswith("spos, seed 0, keep=0.1. layer0 skip, layer1 skip, layer2 bottleneck.")


# ---------------------------------------------------------------------- all of them


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_off_and_all_can_be_read(kind: str, tmp_path: Path, draw: Any) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    method = "spos+calr[gamma_prime=3,matched=true]+ms"
    records = [ranked(m, s, 0.4 + s / 10) for m in (method, "fairnas") for s in (0, 1)]
    for picture in draw(KINDS[kind][0], runs(tmp_path, *records))[:2]:
        FigureCanvasAgg(picture.figure).draw()
        ticks = {
            id(text) for axes in picture.figure.axes for text in (*axes.get_xticklabels(), *axes.get_yticklabels())
        }
        for text in picture.figure.findobj(matplotlib.text.Text):
            box, whole = text.get_window_extent(), picture.figure.bbox
            if text.get_text() and text.get_visible() and id(text) not in ticks:  # ticks may lie outside the limits
                assert text.get_fontsize() >= 6, text
                assert box.x0 >= -1, text
                assert box.x1 <= whole.x1 + 1, text
                assert box.y0 >= -1, text
                assert box.y1 <= whole.y1 + 1, text
        assert picture.title
        assert picture.text.endswith(".")
