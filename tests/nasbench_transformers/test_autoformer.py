"""AutoFormer's space: counts, exact costs, text, and a supernet whose subnets are slices of one weight."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nasbench_transformers.autoformer import LAYERS, AutoFormerTiny
from nasbench_transformers.autoformer_networks import Nested, Network, Norm, Relative, Supernet
from torch import Tensor, nn

from nasbench import Arch, BadInput
from nasbench.harness import prepare
from nasbench.recipe import resolve
from nasbench.testing.spaces import count_costs

SPACE = AutoFormerTiny()
SMALL = AutoFormerTiny(width=0.1, image=(2, 6, 9), patch=3, classes=5)
SIZE = 1_056_964_608
ARCHS = st.tuples(st.integers(0, 2), st.integers(0, 2), *[st.integers(0, 1)] * (2 * LAYERS))


def arch_of(embed: int, depth: int, ratio: int, heads: int) -> Arch:
    """The same option in every layer."""
    return SPACE.canonical((embed, depth, *[ratio] * LAYERS, *[heads] * LAYERS))


def some(count: int, seed: int = 0) -> list[Arch]:
    rng = random.Random(seed)
    return [SPACE.sample(rng) for _ in range(count)]


@pytest.fixture
def net() -> Supernet:
    torch.manual_seed(0)
    net = Supernet(SMALL).double()
    with torch.no_grad():  # away from biases of zero and scales of one, which would hide a wrong slice
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, dtype=p.dtype))
    return net


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 2, 6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# ---------------------------------------------------------------------- counts, text and costs


@pytest.mark.invariant("autoformer-tiny", 1)
def test_three_widths_three_depths_and_four_kinds_of_each_layer() -> None:
    assert SPACE.decisions[:3] == ("embed", "depth", "ratio1")
    assert list(map(len, SPACE.options)) == [3, 3] + [2] * 28
    assert SPACE.size == 3 * (4**12 + 4**13 + 4**14) == SIZE
    part = SPACE.restrict({"embed": [1], "depth": [0, 2], **{f"heads{i}": [1] for i in range(1, 15)}})
    assert part.size == 2**12 + 2**14 == len({part.number(a) for a in part.architectures()})


@pytest.mark.invariant("autoformer-tiny", 2)
@given(st.integers(0, SIZE - 1))
def test_number_text_and_architecture_go_there_and_back(number: int) -> None:
    arch = SPACE.from_number(number)
    assert arch in SPACE
    assert SPACE.number(arch) == number
    assert SPACE.parse(SPACE.format(arch)) == SPACE.parse(str(number)) == SPACE.canonical(arch) == arch


@pytest.mark.invariant("autoformer-tiny", 2)
@given(ARCHS)
def test_what_layers_that_are_not_there_decide_has_no_effect(arch: Arch) -> None:
    same = SPACE.canonical(arch)
    assert SPACE.format(arch) == SPACE.format(same)
    assert SPACE.number(arch) == SPACE.number(same)
    assert SPACE.cost(arch) == SPACE.cost(same)
    assert SPACE.from_number(SPACE.number(arch)) == same


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("embed=200 depth=12 ratio=4 heads=3", "embed=200 does not fit; expected 192, 216, 240"),
        ("embed=192 depth=12 ratio=4,4 heads=3", "ratio of .* has 2 values; expected 12, or one for all"),
        ("embed=192 depth=12 ratio=4", "expected a number below 1056964608 or a form like"),
        ("embed=192,216 depth=12 ratio=4 heads=3", "embed of .* has 2 values; expected 1"),
        ("1056964608", "expected"),
    ],
)
def test_a_wrong_text_is_named(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        SPACE.parse(text)


@pytest.mark.invariant("autoformer-tiny", 3)
def test_parameters_are_those_of_deit_with_relative_positions() -> None:
    """DeiT-Ti, as published, has 5,717,416: 12 layers of 192, 3 heads, MLP ratio 4."""
    deit = arch_of(0, 0, 1, 0)
    assert SPACE.format(deit) == "embed=192 depth=12 ratio=4 heads=3"
    assert SPACE.cost(deit)["params"] == 5_717_416 + 12 * 4 * 30 * 64 == 5_809_576
    assert SPACE.cost_range("params") == (5_366_056, 10_517_272)


@pytest.mark.invariant("autoformer-tiny", 4)
@pytest.mark.parametrize(
    "space",
    [
        AutoFormerTiny(image=(3, 64, 64), classes=10),
        AutoFormerTiny(image=(3, 32, 32), classes=100, patch=4, width=0.25),
        AutoFormerTiny(image=(1, 6, 10), classes=4, patch=2, width=0.11, pool="token"),
    ],
    ids=["patches of 16", "32x32", "odd"],
)
def test_costs_are_those_counted_on_the_network(space: AutoFormerTiny) -> None:
    for arch in [arch_of(0, 0, 0, 0), arch_of(2, 2, 1, 1), *some(2)]:
        assert space.cost(arch) == count_costs(space, arch)
    low, high = space.cost_range("madds")
    assert (low, high) == tuple(space.cost(arch_of(e, d, o, o))["madds"] for e, d, o in [(0, 0, 0), (2, 2, 1)])


# ---------------------------------------------------------------------- networks


def copied(net: Supernet, arch: Arch) -> Network:
    """The plain network of an architecture with a copy of the first rows and columns of the supernet's weights."""
    network = Network(SMALL, arch).double()
    theirs = dict(net.named_parameters())
    with torch.no_grad():
        for name, mine in network.named_parameters():
            mine.copy_(theirs[name][tuple(slice(n) for n in mine.shape)])
    return network


@pytest.mark.invariant("autoformer-tiny", 5)
def test_a_subnet_is_the_plain_network_with_its_weights(net: Supernet, images: Tensor) -> None:
    archs = [arch_of(0, 0, 0, 0), arch_of(2, 2, 1, 1), *some(4)]
    for arch, logits in zip(archs, net(images, archs), strict=True):
        assert torch.allclose(logits, copied(net, arch)(images), rtol=0, atol=1e-10)


@pytest.mark.invariant("autoformer-tiny", 6)
def test_subnets_share_the_storage_of_one_weight(
    net: Supernet, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every linear layer that runs is handed a view of the supernet's weight that begins where it begins."""
    linear, seen = F.linear, list[Tensor]()
    monkeypatch.setattr(F, "linear", lambda x, weight, bias: seen.append(weight) or linear(x, weight, bias))
    wholes = [m.weight for m in net.modules() if isinstance(m, nn.Linear)]
    for arch in [arch_of(0, 0, 0, 0), arch_of(1, 1, 1, 0), arch_of(2, 2, 1, 1)]:
        seen.clear()
        net(images, [arch])
        assert len(seen) == 6 * len(SMALL.layers(arch)) + 1
        starts = {whole.data_ptr(): whole for whole in wholes}
        assert {w.data_ptr() for w in seen} <= set(starts)
        assert all(w.stride() == starts[w.data_ptr()].stride() for w in seen)
    largest = SMALL.cost(arch_of(2, 2, 1, 1))["params"]
    assert sum(p.numel() for p in net.parameters()) == largest
    assert not net.state_dict().keys() - dict(net.named_parameters()).keys()


@pytest.mark.invariant("autoformer-tiny", 7)
def test_gradient_reaches_leading_slices_alone(net: Supernet, images: Tensor) -> None:
    net(images, [arch_of(0, 0, 0, 0)]).square().sum().backward()
    embed, head = SMALL.embeds[0], SMALL.head
    grad = net.layers[0].query.weight.grad
    assert grad[: 3 * head, :embed].abs().min() > 0
    assert not grad[3 * head :].any()
    assert not grad[:, embed:].any()
    assert all(p.grad is None for layer in net.layers[12:] for p in layer.parameters())


@pytest.mark.invariant("autoformer-tiny", 8)
def test_a_token_knows_where_others_stand() -> None:
    near = Relative(4, (2, 3))
    with torch.no_grad():
        near.down.copy_(torch.arange(30.0)[:, None].expand(30, 4))
        near.across.copy_(100 * torch.arange(30.0)[:, None].expand(30, 4))
    found = near()[..., 0]
    assert found.shape == (7, 7)
    assert not found[0].any()  # the class token is nowhere
    assert not found[:, 0].any()
    assert found[1, 1] == 15 + 1500
    assert found[1, 6] == 16 + 1700  # from the first patch one down and two across
    assert found[6, 1] == 14 + 1300
    far = Relative(4, (1, 40))
    with torch.no_grad():
        far.down.zero_()
        far.across.copy_(torch.arange(30.0)[:, None].expand(30, 4))
    assert far()[1, 1:, 0].tolist() == [*range(15, 29), *[29] * 26]  # 14 and more are alike


@pytest.mark.invariant("autoformer-tiny", 9)
def test_attention_is_that_of_torch_where_positions_count_nothing(net: Supernet, images: Tensor) -> None:
    layer = net.layers[0]
    with torch.no_grad():
        for near in (layer.near_key, layer.near_value):
            near.down.zero_()
            near.across.zero_()
    x = torch.randn(2, 7, SMALL.embeds[-1], dtype=torch.float64)
    q, k, v = (m(x).unflatten(-1, (4, -1)).transpose(1, 2) for m in (layer.query, layer.key, layer.value))
    wanted = layer.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    assert torch.allclose(layer.attention(x, 4), wanted, rtol=0, atol=1e-10)


def one_hot(arch: Arch) -> Nested:
    return Nested(
        F.one_hot(torch.tensor(o), len(options)).double() for o, options in zip(arch, SPACE.options, strict=True)
    )


@pytest.mark.invariant("autoformer-tiny", 10)
def test_a_one_hot_mixture_of_weights_is_the_subnet(net: Supernet, images: Tensor) -> None:
    for arch in [arch_of(0, 0, 0, 0), arch_of(1, 1, 1, 0), arch_of(2, 2, 1, 1), *some(2)]:
        assert torch.allclose(net(images, [one_hot(arch)])[0], net(images, [arch])[0], rtol=0, atol=1e-10)


@pytest.mark.invariant("autoformer-tiny", 10)
def test_an_entry_weighs_as_much_as_the_options_that_have_it(net: Supernet, images: Tensor) -> None:
    mixture = one_hot(arch_of(0, 2, 0, 0))
    mixture[0] = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).requires_grad_()
    mixture[2] = torch.tensor([0.6, 0.4], dtype=torch.float64).requires_grad_()
    weights = net.weighted(mixture)["layers.0.up.weight"] / net.layers[0].up.weight
    e, h = SMALL.embeds, [[int(e * r) for r in (3.5, 4.0)] for e in SMALL.embeds]
    assert float(weights.detach()[0, 0]) == pytest.approx(1)
    assert float(weights.detach()[h[0][0], 0]) == pytest.approx(0.5 * 0.4 + 0.5)  # 192 needs ratio 4 for it, others any
    assert float(weights.detach()[0, e[1]]) == pytest.approx(0.2)
    assert float(weights.detach()[h[2][0], e[1]]) == pytest.approx(0.2 * 0.4)
    net(images, [mixture]).square().sum().backward()
    assert mixture[0].grad.abs().min() > 0
    assert mixture[2].grad.abs().min() > 0


@pytest.mark.invariant("autoformer-tiny", 10)
def test_shares_of_a_norm_are_those_of_its_moments() -> None:
    norm, x = Norm(6).double(), torch.randn(2, 6, dtype=torch.float64)
    share = torch.tensor([1, 1, 0.5, 0.5, 0, 0], dtype=torch.float64)
    mean = (x[0] * share).sum() / 3
    deviation = (((x[0] - mean) ** 2 * share).sum() / 3 + 1e-5).sqrt()
    assert torch.allclose(norm(x, share)[0], (x[0] - mean) / deviation)


# ---------------------------------------------------------------------- runs


@pytest.mark.invariant("autoformer-tiny", 11)
def test_the_papers_setting() -> None:
    recipe = resolve("spos", "autoformer-tiny", preset="paper", dataset="digits")
    train = recipe.train
    assert (train.optimizer, train.lr, train.weight_decay, train.schedule) == ("adamw", 1e-3, 0.05, "cosine")
    assert (train.epochs, train.batch_size, train.warmup_epochs, train.label_smoothing) == (500, 1024, 20, 0.1)
    assert train.clip is None
    assert recipe.options["autoformer-tiny"]["patch"] == 16
    assert resolve("spos+ms", "autoformer-tiny", preset="paper", dataset="digits").options["ms"]["edge"] == "first"


def test_a_patch_that_does_not_divide_the_image_is_refused(tmp_path: Path) -> None:
    recipe = resolve("spos", "autoformer-tiny", preset="test", sets={"autoformer-tiny": {"patch": 3}})
    with pytest.raises(BadInput, match="patch = 3 does not divide images of 8x8"):
        prepare(recipe, tmp_path, [])


@pytest.mark.parametrize("method", ["fairnas+calr+ms", "fsnas+calr", "spos+evolution"])
def test_supernet_methods_run_here(method: str, tmp_path: Path) -> None:
    within = "params=30K" if "evolution" in method else []
    sets = {
        "train": {"epochs": 1, "optimizer": "adamw", "lr": 0.002, "warmup_epochs": 0.5},
        "select": {"within": within},
    }
    run, _ = prepare(resolve(method, "autoformer-tiny", preset="test", sets=sets), tmp_path, [])
    (choice,) = run.hook.search(run=run)
    assert choice.arch in run.space
    if within:
        assert run.space.cost(choice.arch)["params"] <= 30_000
