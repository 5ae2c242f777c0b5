"""Whole runs: the stages of Algorithm 2, what is reported, what is refused."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from nasbench_mgdarts import history
from nasbench_mgdarts.final import from_genes
from nasbench_mgdarts.layers import Kernel
from nasbench_mgdarts.mg_darts import MGDARTS
from nasbench_mgdarts.network import SearchNet
from safetensors.torch import load_file

from nasbench import BadInput, Run, hookimpl
from nasbench.harness import execute
from nasbench.metrics import accuracy_density
from nasbench.networks import load_network, top1
from nasbench.recipe import preset_values, resolve
from nasbench.records import metric
from tests.nasbench_mgdarts.conftest import Start

#: As small as a run of all stages can be.
SMALL: dict[str, Any] = {"darts": {"channels": 2}, "mg-darts": {"warmup_epochs": 0, "max_epochs": 2}}


class Watch:
    """Sees every step: groups of parameters that moved, how many cells there are."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []
        self.cells: dict[str, int] = {}
        self.held: dict[str, dict[str, torch.Tensor]] = {}

    @hookimpl
    def progress(self, run: Run, stage: str) -> None:
        self.cells[stage] = len(run.net.cells)
        if stage != "stage-1":
            return
        assert run.optimizer is not None
        now = {
            group["part"]: torch.cat([p.detach().flatten() for p in group["params"]])
            for group in run.optimizer.param_groups
        }
        if self.held:
            self.moved.append(
                {
                    part
                    for part in now
                    if now[part].shape == self.held[part].shape and not torch.equal(now[part], self.held[part])
                }
            )
        self.held = now


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Watch]:
    """A record, its folder, and what was seen."""
    watch = Watch()
    recipe = resolve("mg-darts", "darts", preset="test", sets={"darts": {"channels": 2}})
    record, path = execute(recipe, tmp_path_factory.mktemp("runs"), observers=[watch])
    return record, path.parent, watch


@pytest.mark.invariant("mg-darts", 18)
def test_a_run_has_three_stages_on_growing_nets_then_fine_tunes_the_whole(finished: Any) -> None:
    record, _, watch = finished
    assert watch.cells == {"stage-1": 1, "stage-2": 2, "stage-3": 3, "fine-tune": 3, "retrain": 3}
    assert list(record["measured"]["seconds"]) == ["stage-1", "stage-2", "stage-3", "fine-tune", "retrain"]
    assert [result["phase"] for result in record["results"]] == ["search", "retrain"]


@pytest.mark.invariant("mg-darts", 18)
def test_the_history_tells_thresholds_and_what_is_left_epoch_by_epoch(finished: Any) -> None:
    record, folder, _ = finished
    rows_ = json.loads((folder / record["results"][0]["arch_file"]).read_text())["history"]
    for stage in ("stage-1", "stage-2", "stage-3", "fine-tune"):
        rows = [row for row in rows_ if row["stage"] == stage]
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        assert rows[0]["lambda"] == 0
        for a, b in pairwise(rows):  # nothing comes back inside a stage
            assert b["retention"]["op"] <= a["retention"]["op"]
            assert b["size"] <= a["size"]
        assert set(rows[0]["thresholds"]) == {"op", "filter", "weight"}
    assert rows_[0]["retention"] == {"op": 1.0, "filter": 1.0, "weight": 1.0}


@pytest.mark.invariant("mg-darts", 16)
def test_the_record_counts_what_masks_leave_and_files_rebuild_the_network(finished: Any, start: Start) -> None:
    record, folder, _ = finished
    search, retrained = record["results"]
    run = start(darts={"channels": 2})
    found = json.loads((folder / retrained["arch_file"]).read_text())
    network: Any = from_genes(run.space, found["genes"])  # type: ignore[arg-type]
    network.load_state_dict(load_file(folder / retrained["network"]))
    dense, nonzero = network.sizes()
    for i in (0, 1):
        assert metric(record, "params", i)["value"] == nonzero  # type: ignore[index]
        assert metric(record, "params_dense", i)["value"] == dense  # type: ignore[index]
    zeros = sum(int((m.mask == 0).sum()) for m in network.modules() if isinstance(m, Kernel))
    assert nonzero == dense - zeros
    reached = top1(run, network, "test")
    assert metric(record, "top1", 1)["value"] == reached  # type: ignore[index]
    density = metric(record, "accuracy_density", 1)
    assert density is not None
    assert density["value"] == pytest.approx(accuracy_density(reached, nonzero))
    assert search["arch"] == retrained["arch"]


def test_a_network_with_widths_of_its_own_is_no_plain_network_of_the_space(finished: Any, start: Start) -> None:
    record, folder, _ = finished
    space = start(darts={"channels": 2}).space
    with pytest.raises(BadInput, match=r"widths of its own, which 1\.json"):
        load_network(space, space.parse(record["results"][1]["arch"]), folder / record["results"][1]["network"])


def test_the_history_is_drawn(finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder, _ = finished
    out = tmp_path / "history.svg"
    assert history.main([str(folder / "choices/0.json"), str(out)]) == 0
    assert out.read_text().count("<path") > 6
    assert history.main([str(folder / "choices/1.json"), str(out)]) == 2
    assert "choices/0.json of a run of mg-darts" in capsys.readouterr().err


@pytest.mark.invariant("mg-darts", 19)
def test_accuracy_density_of_the_papers_large_network() -> None:
    assert round(accuracy_density(97.47, 2.2e6), 2) == 44.30


@pytest.mark.invariant("mg-darts", 20)
def test_only_weights_are_trained_while_it_warms_up(finished: Any) -> None:
    record, _, watch = finished
    steps = 2
    assert record["recipe"]["options"]["mg-darts"]["warmup_epochs"] == 1
    assert watch.moved[: steps - 1] == [{"weights"}]
    assert watch.moved[steps - 1] >= {"weights", "alpha", "beta", "t", "t_omega"}


@pytest.mark.invariant("mg-darts", 20)
@pytest.mark.parametrize("optimization", ["iter_half_epoch", "iter_full_epoch"])
def test_in_turns_the_part_at_rest_keeps_every_bit(start: Start, optimization: str) -> None:
    watch = Watch()
    sets = {**SMALL, "mg-darts": {"warmup_epochs": 0, "max_epochs": 4, "prune_every": 4, "optimization": optimization}}
    sets["train"] = {"batch_size": 10}
    run = start("mg-darts", watch, **sets)
    method: Any = run.plugins["mg-darts"]
    run.net = method.supernet(run.space, 1)
    run.stage("stage-1", lambda: method.adapt(run, "stage-1", 1.0, lambda: True))
    units, thresholds = {"weights", "alpha", "beta"}, {"t", "t_omega"}
    assert run.steps_per_epoch == 4
    first = 2 if optimization == "iter_half_epoch" else 4
    expected = [units if (i + 1) // first % 2 == 0 else thresholds for i in range(12)]
    assert watch.moved[:12] == expected


@pytest.mark.invariant("mg-darts", 21)
def test_three_stages_hold_less_memory_than_one(start: Start) -> None:
    peak = {}
    for stages in (1, 3):
        run = start(darts={"channels": 4, "cells": 6}, runs=str(stages), **{"mg-darts": {"stages": stages}})
        method: Any = run.plugins["mg-darts"]
        net = run.net = method.supernet(run.space, 6 if stages == 1 else 2)
        method.max_epochs, method.warmup_epochs = 1, 0
        run.stage("stage-1", lambda run=run, method=method: method.adapt(run, "stage-1", 1.0, lambda: True))
        peak[stages] = method._memory["stage-1"]
        weights = sum(p.numel() for p in net.parameters()) * 4
        assert peak[stages] > weights
    assert peak[3] < 0.6 * peak[1]


@pytest.mark.invariant("mg-darts", 17)
@pytest.mark.parametrize("variant", ["SS1", "SS2", "SS3"])
def test_it_runs_on_the_variants_of_table_6(start: Start, tmp_path: Path, variant: str) -> None:
    sets = {**SMALL, "darts": {"channels": 2, "variant": variant, "final_cells": 3}}
    sets["mg-darts"] = {"warmup_epochs": 0, "max_epochs": 2, "granularity": ["op"], "retrain_epochs": 0}
    record, _ = execute(resolve("mg-darts", "darts", preset="test", sets=sets), tmp_path)
    (result,) = record["results"]
    assert start(darts=sets["darts"]).space.parse(result["arch"])
    assert metric(record, "retention_weight")["value"] == 1.0  # type: ignore[index]


def test_single_stage_and_fixed_rates(tmp_path: Path) -> None:
    method = {"stages": 1, "pruning": "fixed", "rates": {"op": 30, "filter": 0.1}, "max_epochs": 3, "warmup_epochs": 0}
    sets = {"darts": {"channels": 2}, "mg-darts": {**method, "retrain_epochs": 0, "retain": {"filter": 0.85}}}
    record, path = execute(resolve("mg-darts", "darts", preset="test", sets=sets), tmp_path)
    assert list(record["measured"]["seconds"]) == ["stage-1", "fine-tune"]
    rows = json.loads((path.parent / "choices/0.json").read_text())["history"]
    assert [round(98 * 3 * (1 - row["retention"]["op"])) for row in rows] == [30, 60, 90, 120, 150, 180]
    assert rows[0]["retention"]["filter"] < 1


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ({"train": {"schedule": "cosine"}}, "constant rate"),
        ({"mg-darts": {"target": "madds=3M"}}, "params=2.2M"),
        ({"mg-darts": {"granularity": []}}, "granularity"),
        ({"train": {"batch_size": 39}}, "train.batch_size"),
    ],
)
def test_refusals(start: Start, sets: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        start(**sets)


def test_other_spaces_and_another_retraining_are_refused(start: Start) -> None:
    with pytest.raises(BadInput, match="nb201 has others"):
        start(space="nb201", train={"schedule": "constant"})
    with pytest.raises(BadInput, match="leave retrain out"):
        start("mg-darts+retrain")


@pytest.mark.invariant("mg-darts", 22)
def test_the_paper_preset() -> None:
    values = preset_values(MGDARTS, "mg-darts", "paper", "darts")
    made: Any = MGDARTS(**values.get("mg-darts", {}))
    assert (values["darts"]["channels"], values["darts"]["cells"]) == (44, 14)
    train = values["train"]
    assert (train["batch_size"], train["lr"], train["momentum"], train["weight_decay"]) == (96, 0.01, 0.9, 3e-4)
    assert (train["clip"], train["nesterov"]) == (5.0, False)
    assert (made.alpha_lr, made.beta_lr, made.threshold_lr, made.weight_threshold_lr) == (1, 1, 0.1, 0.001)
    assert (made.stages, made.regrow_ratio, made.prune_every, made.warmup_epochs) == (3, 0.2, 2, 5)
    assert (made.stage_share, made.lambda0, made.lambda_factor, made.few, made.many) == (0.3, 1e-5, 2, 24, 48)
    assert (made.retrain_epochs, made.retrain_batch_size, made.retrain_lr, made.retrain_drop_path) == (
        600,
        96,
        0.025,
        0.2,
    )
    assert (made.retrain_auxiliary, made.retrain_weight_decay, made.retrain_clip) == (0.4, 3e-4, 5.0)
    assert values["data"]["augment"] == ["flip", "crop", "autoaugment", "cutout"]


def test_the_net_that_a_checkpoint_describes_is_rebuilt(start: Start) -> None:
    run = start()
    method: Any = run.plugins["mg-darts"]
    net: SearchNet = method.supernet(run.space, 2)
    net.drop(1, 0, 4)
    again = net.rebuild(net.structure())
    assert again.structure() == net.structure()
    again.load_state_dict(net.state_dict())
