"""Whose mean and variance normalise a subnet while it is scored, by hand on a net whose numbers are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nasbench_tiny.tiny_networks import Supernet
from torch import nn
from torch.optim.swa_utils import update_bn

from nasbench import Arch, BadInput, Method, Run, hookimpl
from nasbench.batch_norm import Tracked, recalibration_batches, subnets
from nasbench.harness import prepare
from nasbench.recipe import resolve
from tests.conftest import Install, RunTiny


class Normalised(Supernet):
    """The supernet of tiny with a batch norm behind its stem that keeps running averages, and one that keeps none."""

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.stem = nn.Sequential(self.stem, nn.BatchNorm1d(space.width))  # type: ignore[assignment]
        self.head = nn.Sequential(self.last(space.width), self.head)  # type: ignore[assignment]

    @staticmethod
    def last(width: int) -> nn.Module:
        return nn.BatchNorm1d(width, affine=False, track_running_stats=False)


class Keeping(Normalised):
    """Both keep them."""

    @staticmethod
    def last(width: int) -> nn.Module:
        return nn.BatchNorm1d(width, affine=False)


class WithBatchNorm(Method):
    """Trains a supernet that has batch norms."""

    net: str = "Normalised"
    """Which of the two."""

    @hookimpl
    def build_supernet(self, run: Run) -> nn.Module:
        with run.seeded("init"):
            return run.to_device({"Normalised": Normalised, "Keeping": Keeping}[self.net](run.space))

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]


Start = Callable[..., Run]
SOME = [(0, 1, 2), (1, 1, 0), (2, 0, 2)]


@pytest.fixture
def start(install: Install, tmp_path: Path) -> Start:
    """`start("with-bn", "tiny", batch_norm="tracked")` is a trained run in float64."""
    install("bn", methods={"with-bn": "tests.test_batch_norm:WithBatchNorm"})

    def start_(method: str, space: str = "tiny", **score: Any) -> Run:
        sets = {"score": score, "engine": {"precision": "float64"}, "train": {"clip": None}}
        target = "digits" if space == "tiny" else "cifar10"
        run, _ = prepare(resolve(method, space, preset="test", target=target, sets=sets), tmp_path)
        run.hook.train(run=run)
        return run

    return start_


def top1(run: Run, logits: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Top-1 (%) on the validation images."""
    right = [
        (logits(b.images).argmax(-1) == b.labels).sum() for b in run.data.batches("valid", run.recipe.score.batch_size)
    ]
    return 100 * int(sum(right)) / len(run.data.valid)


def answers(run: Run, archs: list[Arch]) -> torch.Tensor:
    """Logits [n,B,K] of the first validation batch."""
    with torch.inference_mode():
        return subnets(run, archs)(run.data.batches("valid", run.recipe.score.batch_size)[0].images)


def calibrated(run: Run, arch: Arch, net: nn.Module) -> nn.Module:
    """The net with torch's own recalibration for one subnet: cumulative averages over the same batches."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.track_running_stats = True
            module.register_buffer("running_mean", torch.zeros(16, dtype=torch.float64))
            module.register_buffer("running_var", torch.zeros(16, dtype=torch.float64))
            module.register_buffer("num_batches_tracked", torch.tensor(0))

    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return net(images, [arch])[0]

    alone = Alone().double()
    update_bn((batch.images.double() for batch in recalibration_batches(run)), alone)
    return alone.eval()


@pytest.mark.invariant("spos", 7)
def test_recalibrated_is_what_torch_recalibrates_subnet_by_subnet(start: Start) -> None:
    run = start("with-bn", batch_norm="recalibrated", batch_size=32)
    images = run.data.batches("valid", 32)[0].images.double()
    found = answers(run, SOME)
    for i, arch in enumerate(SOME):
        net = Normalised(run.space).double()
        net.load_state_dict(run.net.state_dict())
        alone = calibrated(run, arch, net)
        with torch.inference_mode():
            torch.testing.assert_close(found[i], alone(images), rtol=1e-10, atol=1e-12)
            assert run.hook.score(run=run, archs=[arch]) == [top1(run, lambda x, alone=alone: alone(x.double()))]  # type: ignore[misc]


@pytest.mark.invariant("spos", 7)
def test_recalibrated_subnets_do_not_depend_on_who_is_scored_with_them_or_on_the_batch(start: Start) -> None:
    run = start("with-bn", batch_norm="recalibrated", batch_size=32)
    together, alone = answers(run, SOME), torch.cat([answers(run, [arch]) for arch in SOME])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)
    images = run.data.batches("valid", 32)[0].images
    with torch.inference_mode():
        part = subnets(run, SOME)(images[:7])
    torch.testing.assert_close(part, together[:, :7], rtol=1e-12, atol=1e-14)
    by_batch = start("with-bn", batch_size=32, subset="random:9")
    assert not torch.allclose(answers(by_batch, SOME), together)


def test_recalibration_takes_so_many_training_images(start: Start) -> None:
    count = lambda run: [len(b.labels) for b in recalibration_batches(run)]  # noqa: E731
    run = start("with-bn", batch_norm="recalibrated", batch_size=64)
    assert count(run) == [64, 64, 64]  # of 200 the last 8 would count as much as the others
    assert count(start("with-bn", batch_norm="recalibrated", recalibration_images=100)) == [100]
    one, two = (torch.cat([b.images for b in recalibration_batches(run)]) for _ in range(2))
    assert one.equal(two)
    assert len(one.flatten(1).unique(dim=0)) > 180  # hardly an image twice: digits has a few that are alike


@pytest.mark.invariant("spos", 7)
def test_tracked_takes_the_averages_of_training(start: Start) -> None:
    run = start("with-bn[net=Keeping]", batch_norm="tracked")
    kept = run.net.stem[1].running_mean.clone()
    assert kept.abs().sum() > 0
    images = run.data.batches("valid", 256)[0].images
    found = answers(run, SOME)
    with torch.inference_mode():
        torch.testing.assert_close(found, run.net.eval()(images.double(), SOME), rtol=0, atol=0)
    assert run.net.stem[1].running_mean.equal(kept)  # scoring is no training


def test_a_network_that_forgets_cannot_be_tracked(start: Start) -> None:
    for method, space in (("with-bn", "tiny"), ("spos", "nb201"), ("fsnas", "nb201")):
        with pytest.raises(BadInput, match=r"needs running averages, .* keeps none; use recalibrated or batch"):
            start(method, space, batch_norm="tracked")


def test_without_batch_norm_there_is_nothing_to_treat(start: Start) -> None:
    for kind in ("recalibrated", "tracked"):
        with pytest.raises(BadInput, match="the supernet of tiny has none; leave it at batch"):
            start("spos", batch_norm=kind)


def test_more_images_than_there_are_cannot_recalibrate(start: Start) -> None:
    with pytest.raises(BadInput, match="recalibration_images = 201 is more than the 200 training images"):
        start("with-bn", batch_norm="recalibrated", recalibration_images=201)


def test_every_batch_norm_of_nb201_is_treated(start: Start) -> None:
    """With fixed statistics, and only then, the logits of an image do not depend on its batch."""
    run = start("spos", "nb201", batch_norm="recalibrated", batch_size=20)
    images = torch.randn(9, *run.space.image, dtype=torch.float64)
    archs = [run.space.from_number(n) for n in (11718, 3854, 9011, 2)]
    with torch.inference_mode():
        forward = subnets(run, archs)
        torch.testing.assert_close(forward(images)[:, :3], forward(images[:3]), rtol=1e-10, atol=1e-12)
        by_batch = run.forward(images, archs)
        assert not torch.allclose(by_batch[:, :3], run.forward(images[:3], archs))


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_no_batch_norm_of_nb201_goes_unseen(tmp_path: Path, precision: str) -> None:
    """The stem's, the last one's, two in each residual block, one for each convolution of each cell."""
    recipe = resolve("spos", "nb201", preset="test", target="cifar10", sets={"engine": {"precision": precision}})
    run, _ = prepare(recipe, tmp_path)
    run.net, seen = run.hook.build_supernet(run=run), Tracked()
    for arch, convolutions in (((3,) * 6, 6), ((0,) * 6, 0), ((2, 1, 3, 4, 0, 2), 3)):
        with seen, torch.no_grad():
            run.forward(torch.randn(4, *run.space.image), [arch])
        assert (seen.calls, seen.without) == (6 + 3 * convolutions,) * 2


@pytest.mark.parametrize("method", ["with-bn", "fsnas"])
def test_the_record_says_it_and_a_seed_gives_it_again(run_tiny: RunTiny, start: Start, method: str) -> None:
    where: dict[str, Any] = {"space": "nb201"} if method == "fsnas" else {}
    sets = ("score.batch_norm=recalibrated", "score.recalibration_images=40")
    one, two = (run_tiny(method, *sets, runs=runs, **where) for runs in "ab")
    assert one["results"] == two["results"]
    assert one["recipe"]["score"]["batch_norm"] == "recalibrated"
    plain = run_tiny(method, **where)
    assert plain["recipe"]["score"]["batch_norm"] == "batch"
    assert plain["id"] != one["id"]


def test_bfloat16_recalibrates_in_float32(run_tiny: RunTiny, start: Start) -> None:
    record = run_tiny("with-bn", "score.batch_norm=recalibrated", "engine.precision=bfloat16")
    assert record["recipe"]["engine"]["precision"] == "bfloat16"
    assert record["results"][0]["metrics"]
