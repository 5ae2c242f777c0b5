"""Gates alone: their sizes, the Score they keep, and what they do to a backbone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from nasbench_backbones.networks import keep_all
from nasbench_backbones.resnet import ResNet18
from nasbench_dance import losses, scores
from nasbench_dance.dance import DANCE
from nasbench_dance.gate import BatchRepr, Gates, Gating
from nasbench_dance.masks import Masks

SPACE = ResNet18(width=16, image=(3, 8, 8))


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def gates(space: ResNet18 = SPACE, **options: object) -> Gates:
    torch.manual_seed(0)
    method = DANCE.model_validate(options)
    made = method.gates(space)
    assert isinstance(made, Gates)
    return made


def gating(made: Gates, images: torch.Tensor, ratio: float = 0.5, seed: int = 0) -> Gating:
    space = SPACE
    rng = torch.Generator().manual_seed(seed)
    return Gating(made, images, space.widths(space.uniform(ratio)), rng, ratio)


@pytest.mark.invariant("dance", 8)
def test_sizes_of_the_official_modules() -> None:
    space = ResNet18()
    untied = gates(space, tie_residual=False, gate_scope="sample")
    assert len(untied.all) == 20
    assert count(untied.all) == 4_036_100
    assert count(BatchRepr(3)) == 36_416
    assert count(untied) + count(space.backbone()) == 15_246_478
    tied = gates(space)
    assert len(tied.all) == 12
    assert count(tied.all) == 13_196 * 3 + 43_800 * 3 + 157_232 * 3 + 592_992 * 3 == 2_421_660


# ---------------------------------------------------------------------- Score


@pytest.mark.invariant("dance", 3)
def test_the_static_term_alone_ranks_by_theta() -> None:
    made = gates(score_weights=[1.0, 0.0, 0.0, 0.0])
    for name, width in SPACE.channels.items():
        order = made[name].score([1.0, 0.0, 0.0, 0.0]).argsort()
        assert torch.equal(order, made[name].theta.argsort())
        best = made.best(dict.fromkeys(SPACE.channels, 5))[name]
        assert set(best.nonzero()[:, 0].tolist()) == set(made[name].theta.argsort()[-5:].tolist())
        assert len(best) == width


@pytest.mark.invariant("dance", 3)
def test_terms_are_scaled_before_they_are_added() -> None:
    assert scores.min_max(torch.full((7,), 3.0)).tolist() == [0.0] * 7
    terms = [torch.tensor(t) for t in ([0.0, 10.0], [5.0, 5.0], [2.0, 1.0], [0.0, 0.1])]
    assert scores.score(terms, [0.3, 0.3, 0.2, 0.2]).allclose(torch.tensor([0.2, 0.5]))


@pytest.mark.invariant("dance", 9)
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_moving_averages_start_at_one(alpha: float) -> None:
    gate, value = gates().__getitem__("layer2"), torch.rand(32)
    for n in range(1, 8):
        gate.remember(1, "feature", value, alpha)
        expected = (1 - alpha) ** n + value * (1 - (1 - alpha) ** n)
        assert gate.feature[1].allclose(expected)  # type: ignore[index]
    assert gate.feature[0].tolist() == gate.feature[2].tolist() == [1.0] * 32  # type: ignore[index]


@pytest.mark.invariant("dance", 11)
def test_the_correlation_term_is_that_of_numpy() -> None:
    activations = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    activations[:, 3] = activations[:, 1] * -2 + 1
    r = np.abs(np.corrcoef(activations.numpy().T))
    expected = 1 - 0.7 * (r.sum(1) - 1) / 5
    assert scores.correlation_importance(activations, 0.7).numpy() == pytest.approx(expected)
    dead = torch.cat([activations, torch.ones(20, 1)], 1)
    assert scores.correlation_importance(dead)[6] == 1


@pytest.mark.invariant("dance", 11)
def test_what_a_gate_remembers_of_a_batch() -> None:
    """All four terms by hand, for one gate behind one layer."""
    made = gates(dynamic_noise=0.0, alpha=1.0).double()
    images, x = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.randn(6, 16, 4, 4, dtype=torch.float64)
    torch.manual_seed(0)
    passed = gating(made, images)
    passed("layer1.0.conv1", x)
    gate, pooled = made["layer1.0"], x.mean((2, 3))
    each = gate.features(pooled)  # batch norms in training mode: the batch's statistics, as in the pass
    embedding = made.embed(images).mean(0)
    logits = gate.fusion(torch.cat([embedding, each.mean(0)])) + gate.theta
    assert gate.dynamic[0].allclose(torch.sigmoid(logits))  # type: ignore[index]
    assert gate.feature[0].allclose(torch.softmax(each.mean(0), 0))  # type: ignore[index]
    assert gate.correlation[0].allclose(scores.correlation_importance(pooled))  # type: ignore[index]


@pytest.mark.invariant("dance", 12)
def test_a_stream_has_one_mask_and_the_mean_score_of_its_layers() -> None:
    made, images = gates(), torch.randn(6, 3, 8, 8)
    backbone, seen = SPACE.backbone(), dict[str, torch.Tensor]()
    passed = gating(made, images)

    def watch(name: str, x: torch.Tensor) -> torch.Tensor:
        masked = passed(name, x)
        seen[name] = masked.detach().abs().sum((0, 2, 3)) > 0
        return masked

    backbone(images, watch)
    for gate, of in SPACE.members.items():
        assert len({tuple(seen[m].tolist()) for m in of}) == 1, gate
        assert int(seen[of[0]].sum()) == SPACE.channels[gate] // 2
    gate, terms = made["layer1"], ("dynamic", "feature", "correlation")
    assert not gate.dynamic[0].equal(gate.dynamic[1])  # type: ignore[index]
    weights = [0.3, 0.3, 0.2, 0.2]
    alone = [
        scores.score([torch.sigmoid(gate.theta), *(getattr(gate, t)[i] for t in terms)], weights) for i in range(3)
    ]
    assert gate.score(weights).allclose(torch.stack(alone).mean(0))


# ---------------------------------------------------------------------- what it does to a backbone


@pytest.mark.invariant("dance", 2)
@pytest.mark.parametrize("options", [{}, {"relaxation": "sigmoid_code"}, {"gate_scope": "sample"}], ids=str)
def test_keeping_everything_changes_no_bit(options: dict[str, object]) -> None:
    backbone, images = SPACE.backbone(), torch.randn(6, 3, 8, 8)
    made = gates(**options)
    gated = backbone(images, gating(made, images, ratio=1.0))
    assert torch.equal(gated, backbone(images))
    assert torch.equal(backbone(images, Masks(SPACE, made.best(SPACE.channels))), gated)


@pytest.mark.invariant("dance", 2)
def test_without_gates_a_layer_goes_on_as_the_same_object() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert keep_all("conv1", x) is x


@pytest.mark.invariant("dance", 1)
@pytest.mark.parametrize(
    "options",
    [{}, {"relaxation": "sigmoid_code"}, {"sampler": "topk"}, {"sampler": "bernoulli_fix"}, {"tie_residual": False}],
    ids=str,
)
@pytest.mark.parametrize("scope", ["batch", "sample"])
def test_every_layer_keeps_exactly_k(options: dict[str, object], scope: str) -> None:
    made, images = gates(**options, gate_scope=scope), torch.randn(6, 3, 8, 8)
    for ratio in (0.9, 0.3):
        passed = gating(made, images, ratio)
        SPACE.backbone()(images, passed)
        widths = SPACE.widths(SPACE.uniform(ratio))
        assert len(passed.masks) == (12 if made.method.tie_residual else 20)  # type: ignore[attr-defined]
        for gate, mask in passed.masks.items():
            assert mask.shape == ((6,) if scope == "sample" else ()) + (SPACE.channels[made.home[gate]],)
            assert set(mask.sum(-1).flatten().tolist()) == {widths[made.home[gate]]}


@pytest.mark.invariant("dance", 6)
def test_masks_are_a_function_of_seed_and_batch() -> None:
    made, backbone = gates().eval(), SPACE.backbone().eval()
    dark = torch.randn(6, 3, 8, 8)
    bright = dark + torch.tensor([9.0, -3.0, 3.0])[:, None, None]

    def masks(seed: int, images: torch.Tensor) -> torch.Tensor:
        passed = gating(made, images, seed=seed)
        backbone(images, passed)
        return torch.cat([*passed.masks.values()])

    first = masks(0, dark)
    assert torch.equal(first, masks(0, dark))
    assert not torch.equal(first, masks(1, dark))
    assert not torch.equal(first, masks(0, bright))


def test_gradient_reaches_every_part_of_a_gate() -> None:
    made, images = gates(), torch.randn(6, 3, 8, 8)
    passed = gating(made, images)
    (SPACE.backbone()(images, passed).square().sum() + passed.penalty).backward()
    silent = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias before a batch norm has no effect.
    assert not [
        n for n in silent if not n.endswith(("embed.0.bias", "embed.3.bias", "embed.8.bias", "features.0.bias"))
    ]


# ---------------------------------------------------------------------- the second stage's loss


@pytest.mark.invariant("dance", 13)
def test_the_terms_by_hand() -> None:
    assert float(losses.sparsity(torch.tensor([1.0, 0.0, 1.0, 1.0]), 0.5)) == 0.25
    soft = torch.tensor([0.25, 0.5])
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / 2 + np.log(2) / 2
    assert float(losses.diversity(soft)) == pytest.approx(-entropy, abs=1e-5)
    assert float(losses.diversity(torch.tensor([0.0, 1.0]))) == pytest.approx(0, abs=2e-5)  # hard gates say nothing
    features = torch.tensor([[3.0, 4.0], [4.0, 3.0]])
    assert float(losses.correlation(features)) == pytest.approx(2 * 0.96 / 4)  # the diagonal is 1
    assert float(losses.distance(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]))) == 0.25


@pytest.mark.invariant("dance", 13)
def test_they_are_weighted_and_remember_what_masks_were() -> None:
    gate, ratio = gates()["layer1"], 0.5
    masks = [torch.tensor([1.0] * 8 + [0.0] * 8), torch.tensor([0.0] * 8 + [1.0] * 8), torch.ones(16)]
    soft, usual, past = torch.full((16,), 0.5), torch.full((16,), 0.7), list[torch.Tensor]()
    for mask in masks:
        expected = abs(float(mask.mean()) - ratio) - 0.1 * np.log(2) + 0.1 * float((mask - usual).square().mean())
        if past:
            expected += 0.1 * float((mask - torch.stack(past).mean(0)).square().mean())
        assert float(gate.penalty(mask, soft, ratio)) == pytest.approx(expected, abs=1e-6)
        usual = 0.9 * usual + 0.1 * mask
        past.append(mask)
    for mask in itertools.islice(itertools.cycle(masks), 120):
        gate.penalty(mask, soft, ratio)
    assert int(gate.count) == 123  # type: ignore[arg-type]
    assert len(gate.past) == 100  # type: ignore[arg-type]
