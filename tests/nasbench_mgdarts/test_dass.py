"""DASS: masks by score, operations by alpha, one run from scratch and one that goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from nasbench_mgdarts.dass import DASS, TopShare
from nasbench_mgdarts.final import from_genes, nodes_with_input
from nasbench_mgdarts.layers import Kernel, Plain, kernels
from safetensors.torch import load_file

from nasbench.harness import execute
from nasbench.recipe import preset_values, resolve
from nasbench.records import metric
from tests.nasbench_mgdarts.conftest import Start

SMALL: dict[str, Any] = {"channels": 2}


@pytest.mark.invariant("dass", 1)
@pytest.mark.parametrize(("share", "left"), [(0.3, 3), (0.5, 5), (0.9, 9), (0.91, 10), (1.0, 10)])
def test_the_largest_scores_stay_and_the_gradient_passes_straight_through(share: float, left: int) -> None:
    scores = torch.arange(10.0).view(2, 5).requires_grad_()
    mask = TopShare.apply(scores, share)
    assert mask.flatten().tolist() == [0.0] * (10 - left) + [1.0] * left
    (slope,) = torch.autograd.grad((mask * 3).sum(), scores)
    assert slope.eq(3).all()


@pytest.mark.invariant("dass", 2)
def test_weights_rest_while_masks_are_learned(start: Start) -> None:
    run = start("dass", darts=SMALL, dass={"weight_ratio": 0.5})
    run.hook.train(run=run)
    sparse = kernels(run.net)
    assert all(int(k.mask.sum()) == math.ceil(0.5 * k.mask.numel()) for k in sparse)
    other = start("dass", runs="other", darts=SMALL, dass={"weight_ratio": 0.5, "prune_epochs": 0})
    other.hook.train(run=other)
    for a, b in zip(sparse, kernels(other.net), strict=True):
        assert torch.equal(a.weight, b.weight)
        top = b.weight.abs().flatten().argsort(descending=True)[: math.ceil(0.5 * b.weight.numel())]
        assert b.mask.flatten()[top].all()  # untrained scores are the weights' sizes


@pytest.mark.invariant("dass", 3)
@pytest.mark.parametrize("mode", ["scratch", "finetune"])
def test_it_finds_a_network_of_the_size_with_its_masks(tmp_path: Path, mode: str) -> None:
    sets = {"darts": SMALL, "dass": {"eval_mode": mode, "weight_ratio": 0.7}}
    record, path = execute(resolve("dass", "darts", preset="test", sets=sets), tmp_path)
    assert metric(record, "target_reached")["value"] == 1  # type: ignore[index]
    assert metric(record, "retention_op")["value"] < 1  # type: ignore[index]
    found = json.loads((path.parent / "choices/1.json").read_text())
    network = from_genes(start_space(sets), found["genes"])
    network.load_state_dict(load_file(path.parent / "choices/1.safetensors"))
    assert network.sizes() == (found["params_dense"], found["params_nonzero"])
    for kernel in network.modules():
        if isinstance(kernel, Kernel):
            assert int(kernel.mask.sum()) == math.ceil(0.7 * kernel.mask.numel())


def start_space(sets: dict[str, Any]) -> Any:
    from nasbench_cells.darts import DARTS

    return DARTS(**{"variant": "free", "cells": 3, "image": (1, 8, 8), **sets["darts"]})


@pytest.mark.invariant("dass", 3)
def test_fine_tuning_goes_on_with_the_weights_that_were_searched(start: Start) -> None:
    run = start("dass", darts=SMALL, dass={"eval_mode": "finetune", "retrain_epochs": 0})
    run.hook.train(run=run)
    method: Any = run.plugins["dass"]
    taken = {}
    object.__setattr__(method, "choices", lambda run, arch, network, how, **more: taken.update(net=network) or [])
    method.select(run)
    assert nodes_with_input(run.net)
    own, searched_ = taken["net"].state_dict(), run.net.state_dict()
    poolings = {f"{name}.norm" for name, m in taken["net"].named_modules() if isinstance(m, Plain) and m.norm}
    fresh = {n for n in own if n not in searched_}
    assert {n.rpartition(".")[0] for n in fresh} == poolings  # the search net has no norm behind a pooling
    assert any(n.endswith("point.weight") for n in own)
    assert all(torch.equal(own[n], searched_[n]) for n in own.keys() - fresh)


@pytest.mark.invariant("dass", 4)
def test_the_paper_preset() -> None:
    values = preset_values(DASS, "dass", "paper", "darts")
    made: Any = DASS(**values["dass"])
    assert (values["darts"]["channels"], values["darts"]["cells"], values["train"]["epochs"]) == (24, 8, 50)
    assert (made.prune_epochs, made.weight_ratio, made.target) == (20, 0.9, "params=710K")
