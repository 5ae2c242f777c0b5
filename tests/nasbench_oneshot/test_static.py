"""Whole runs with `engine.static`: the same subnets, as one pass."""

from __future__ import annotations

import pytest
import torch

from nasbench import BadInput
from tests.nasbench_oneshot.conftest import Train


@pytest.mark.parametrize(
    ("method", "static"),
    [
        ("fairnas", "eager"),
        ("fairnas", "compiled"),
        ("fairnas+calr+ms", "eager"),
        pytest.param("fairnas+calr+ms", "compiled", marks=pytest.mark.slow),  # five graphs are traced
    ],
)
def test_a_static_pass_trains_the_same_supernet(train: Train, method: str, static: str) -> None:
    plain, other = train(method, "nb201"), train(method, "nb201", engine={"static": static})
    assert [s.archs for s in plain.steps] == [s.archs for s in other.steps]
    assert all(a.grads.keys() == b.grads.keys() for a, b in zip(plain.steps, other.steps, strict=True))
    assert all(torch.allclose(w, other.weights[n], rtol=1e-10, atol=1e-10) for n, w in plain.weights.items())
    assert other.run.static is not None


def test_single_paths_run_as_without(train: Train) -> None:
    assert train("spos", "nb201", engine={"static": "eager"}).run.static is None


def test_a_space_without_a_static_pass_refuses(train: Train) -> None:
    with pytest.raises(
        BadInput, match=r"engine.static = eager needs a supernet with a static pass, and tiny's has none"
    ):
        train("fairnas", "tiny", engine={"static": "eager"})
