"""Costs, slices and ground truth, and the rules that every space of nasbench keeps."""

import csv
from pathlib import Path

import pytest
import slim_mlp
import torch
from slim_mlp import SlimMLP

from nasbench.testing import Check, checks


@pytest.mark.parametrize("check", checks("space", "slim-mlp"), ids=str)
def test_conformance(check: Check) -> None:
    check()


def test_costs_by_hand() -> None:
    space = SlimMLP(image=(1, 8, 8))
    # 64 inputs, 4, 8 and 32 units, 10 classes.
    weights = 64 * 4 + 4 * 8 + 8 * 32 + 32 * 10
    assert space.cost((0, 1, 3)) == {
        "params": weights + 4 + 8 + 32 + 10,
        "conv_weights": weights,
        "madds": weights,
    }


def test_a_subnet_is_a_slice_of_the_widest_network() -> None:
    space, images = SlimMLP(image=(1, 8, 8)), torch.randn(5, 1, 8, 8)
    net = space.supernet()
    for arch in ((0, 1, 3), (3, 3, 3)):
        alone = space.build(arch)
        linear = [layer for layer in alone.children() if isinstance(layer, torch.nn.Linear)]
        with torch.no_grad():
            for mine, shared in zip(linear, net.layers, strict=True):
                mine.weight.copy_(shared.weight[: mine.out_features, : mine.in_features])
                mine.bias.copy_(shared.bias[: mine.out_features])
        torch.testing.assert_close(net(images, [arch])[0], alone(images))


def test_the_truth_is_the_mean_over_seeds_of_its_file() -> None:
    table = SlimMLP().ground_truth("digits")
    assert table is not None
    assert len(table) == SlimMLP().size == 64
    with (Path(slim_mlp.__file__).parent / "slim-mlp-digits.csv").open() as file:
        row = list(csv.DictReader(file))[27]
    arch = table.space.parse(row["arch"])
    assert table.space.number(arch) == 27
    seeds = [float(row[f"test_{seed}"]) for seed in range(3)]
    assert table.query([arch], "test", "digits") == pytest.approx([sum(seeds) / 3])
    assert SlimMLP().ground_truth("cifar10") is None
