"""Channel spaces without training: text, exact costs, budgets, weight sharing, cutting down."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nasbench_backbones.channels import ChannelSpace, kept_channels
from nasbench_backbones.resnet import ResNet18
from nasbench_backbones.vgg import VGG16
from torchvision.models import resnet18, vgg16_bn

from nasbench import BadInput
from nasbench.budget import Budget
from nasbench.harness import prepare
from nasbench.recipe import preset_values, resolve
from nasbench.testing.spaces import count_costs
from tests.command import nasbench

RESNET, VGG = ResNet18(), VGG16()
either = st.sampled_from([RESNET, VGG])


@pytest.mark.invariant("resnet18", 1)
def test_resnet_has_twelve_gates_over_twenty_layers() -> None:
    streams = {f"layer{i}": 64 << (i - 1) for i in range(1, 5)}
    inner = {f"layer{i}.{j}": 64 << (i - 1) for i in range(1, 5) for j in range(2)}
    assert RESNET.channels == {**streams, **inner}
    assert {gate: len(of) for gate, of in RESNET.members.items()} == {
        **dict.fromkeys(streams, 3),
        **dict.fromkeys(inner, 1),
    }
    assert RESNET.members["layer1"] == ("conv1", "layer1.0.conv2", "layer1.1.conv2")
    assert RESNET.members["layer2"] == ("layer2.0.conv2", "layer2.0.downsample.0", "layer2.1.conv2")
    assert RESNET.size == 2**90


@pytest.mark.invariant("vgg16", 1)
def test_vgg_has_thirteen_gates_one_a_convolution() -> None:
    widths = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert list(VGG.channels.values()) == widths
    assert list(VGG.channels)[:3] == ["conv1_1", "conv1_2", "conv2_1"]
    assert all(len(of) == 1 for of in VGG.members.values())
    assert VGG.size == math.prod(widths)


# ---------------------------------------------------------------------- text


@given(either, st.randoms(use_true_random=False))
def test_text_and_number_go_there_and_back(space: ChannelSpace, rng: random.Random) -> None:
    arch = space.sample(rng)
    assert space.parse(space.format(arch)) == arch
    assert space.parse(str(space.number(arch))) == arch
    assert space.arch_of(space.widths(arch)) == arch


@pytest.mark.invariant("resnet18", 2)
def test_one_ratio_stands_for_all_widths() -> None:
    assert {r: kept_channels(r, 64) for r in (0.9, 0.8, 0.7, 0.6, 0.5)} == {0.9: 57, 0.8: 51, 0.7: 44, 0.6: 38, 0.5: 32}
    assert kept_channels(1 - 0.9, 10) == 1  # int() of the product is 0
    assert kept_channels(0.001, 64) == 1
    half = RESNET.parse("keep=0.5")
    assert RESNET.format(half) == (
        "layer1=32 layer1.0=32 layer1.1=32 layer2.0=64 layer2=64 layer2.1=64 "
        "layer3.0=128 layer3=128 layer3.1=128 layer4.0=256 layer4=256 layer4.1=256"
    )
    assert RESNET.parse("keep=1") == RESNET.uniform(1.0) == RESNET.arch_of(RESNET.channels)


@given(either, st.floats(0.001, 1))
def test_any_ratio_can_be_parsed(space: ChannelSpace, ratio: float) -> None:
    arch = space.parse(f"keep={ratio:.6f}")
    for (gate, channels), width in zip(space.channels.items(), space.widths(arch).values(), strict=True):
        assert width == max(1, math.floor(round(ratio, 6) * channels + 1e-9)), gate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keep=1.5", "expected 0 < keep <= 1"),
        ("keep=half", "write it like keep=0.4"),
        ("layer1=65", "expected one keep ratio, like 'keep=0.5'"),
        ("layer1=32 layer1.0=32", "a width for each layer"),
        ("-1", "expected one keep ratio"),
        ("madds=10", r"No resnet18 network fits the budget madds=10; the smallest has madds=\d"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        RESNET.parse(text)


def test_offered_ratios_are_the_only_widths() -> None:
    space = ResNet18(width=10, ratios=[0.25, 0.5, 1.0])
    assert space.choices["layer1"] == ("2", "5", "10")
    assert space.size == 3**12
    assert set(space.widths(space.uniform(0.9)).values()) == {5, 10, 20, 40}  # the next below


# ---------------------------------------------------------------------- costs


@pytest.mark.invariant("resnet18", 3)
@pytest.mark.parametrize(
    ("classes", "ratio", "params"),
    [
        (10, 1.0, 11_173_962),
        (10, 0.9, 9_018_358),
        (10, 0.8, 7_122_360),
        (10, 0.7, 5_459_866),
        (10, 0.5, 2_797_610),
        (100, 1.0, 11_220_132),
        (100, 0.5, 2_820_740),
    ],
)
def test_resnet_parameters(classes: int, ratio: float, params: int) -> None:
    space = RESNET.with_(classes=classes)
    assert space.cost(space.uniform(ratio))["params"] == params


@pytest.mark.invariant("resnet18", 4)
def test_the_imagenet_stem_is_torchvisions_network() -> None:
    space = ResNet18(classes=1000, image=(3, 224, 224), activation="relu")
    ours, theirs = space.backbone().eval(), resnet18().eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 80)
    assert torch.equal(ours(images), theirs(images))
    assert space.cost(space.uniform(1.0)) == {
        "params": 11_689_512,
        "conv_weights": 11_678_912,
        "madds": 1_814_073_344,
    }


@pytest.mark.invariant("vgg16", 2)
def test_vgg_parameters() -> None:
    assert VGG.cost(VGG.uniform(1.0))["params"] == 33_646_666
    imagenet = VGG.with_(classes=1000, image=(3, 224, 224))
    assert imagenet.cost(imagenet.uniform(1.0))["params"] == 37_702_696


@pytest.mark.invariant("vgg16", 3)
def test_vgg_features_are_torchvisions() -> None:
    space = VGG16(width=64, hidden=4096, image=(3, 64, 64), activation="relu", dropout=0.0)
    with torch.device("meta"):
        theirs, ours = vgg16_bn(), space.backbone()
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    shapes = {n: p.shape for n, p in theirs.named_parameters()}
    different = [n for n, p in ours.named_parameters() if p.shape != shapes[n]]
    assert different == ["classifier.0.weight", "classifier.6.weight", "classifier.6.bias"]
    narrow = VGG16(width=2, hidden=3, image=(3, 64, 64), activation="relu", dropout=0.0).backbone().eval()
    images = torch.randn(2, 3, 64, 64)
    features = narrow.features(images).mean((2, 3))
    assert torch.equal(narrow(images), narrow.classifier(features))


@pytest.mark.invariant("resnet18", 5)
@pytest.mark.invariant("vgg16", 4)
def test_costs_are_those_of_the_network(small: ChannelSpace) -> None:
    archs = [small.sample(random.Random(i)) for i in range(3)] + [small.uniform(1.0), small.uniform(0.01)]
    for arch in archs:
        cost = small.cost(arch)
        assert cost == count_costs(small, arch)
        for name, value in cost.items():
            low, high = small.cost_range(name)
            assert low <= value <= high
    extremes = [small.cost(small.uniform(r)) for r in (0.01, 1.0)]
    assert [small.cost_range(name) for name in extremes[0]] == [(extremes[0][n], extremes[1][n]) for n in extremes[0]]


@pytest.mark.invariant("resnet18", 6)
@given(st.sampled_from(["params", "madds"]), st.floats(0.01, 1))
def test_a_budget_is_met_by_the_largest_ratio_that_fits(name: str, share: float) -> None:
    limit = share * RESNET.cost(RESNET.uniform(1.0))[name]
    arch = RESNET.within(Budget(name, limit))
    assert RESNET.cost(arch)[name] <= limit
    fits = [i for i in range(1, 513) if RESNET.cost(RESNET.uniform(i / 512))[name] <= limit]
    assert arch == RESNET.uniform(max(fits) / 512)


# ---------------------------------------------------------------------- networks


def perturbed(space: ChannelSpace) -> torch.nn.Module:
    """A network at full width with batch norms that do something."""
    torch.manual_seed(0)
    net = space.backbone()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
    return net.double().eval()


@pytest.mark.invariant("resnet18", 7)
@pytest.mark.invariant("vgg16", 5)
def test_a_masked_network_equals_the_one_cut_down(small: ChannelSpace) -> None:
    net, images = perturbed(small), torch.randn(3, *small.image, dtype=torch.float64)
    widths = small.widths(small.sample(random.Random(3)))
    kept = {gate: torch.randperm(c)[: widths[gate]].sort().values for gate, c in small.channels.items()}
    masks = {gate: torch.zeros(c, dtype=torch.float64) for gate, c in small.channels.items()}
    for gate, rows in kept.items():
        masks[gate][rows] = 1
    home = {member: gate for gate, of in small.members.items() for member in of}
    seen = []

    def gate(name: str, x: torch.Tensor) -> torch.Tensor:
        seen.append(name)
        return x * masks[home[name]][:, None, None]

    masked = net(images, gate)
    assert sorted(seen) == sorted(home)  # each gated layer once
    cut = small.slice(net, kept).eval()
    assert torch.allclose(masked, cut(images), atol=1e-9)
    assert not torch.allclose(masked, net(images), rtol=1e-3, atol=0)
    arch = small.arch_of(widths)
    assert sum(p.numel() for p in cut.parameters()) == small.cost(arch)["params"]
    small.build(arch).load_state_dict(cut.state_dict())  # what build makes takes the weights


@pytest.mark.invariant("resnet18", 8)
@pytest.mark.invariant("vgg16", 6)
def test_a_subnet_of_the_supernet_is_the_first_channels(small: ChannelSpace) -> None:
    torch.manual_seed(0)
    net = small.supernet().double().eval()
    images = torch.randn(4, *small.image, dtype=torch.float64)
    for arch in (small.uniform(1.0), small.sample(random.Random(1))):
        widths = small.widths(arch)
        alone = small.slice(net.backbone, {gate: torch.arange(k) for gate, k in widths.items()})
        for module in alone.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.Dropout):
                module.train(isinstance(module, torch.nn.BatchNorm2d))
        assert torch.allclose(net(images, [arch])[0], alone(images), atol=1e-9)


def test_a_mixture_is_refused_in_a_sentence(small: ChannelSpace) -> None:
    mixture = [torch.ones(len(names)) for names in small.choices.values()]
    with pytest.raises(BadInput, match="trains single subnets"):
        small.supernet()(torch.randn(2, *small.image), [mixture])


# ---------------------------------------------------------------------- pretrained weights


def test_pretrained_weights_are_taken_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    known = resnet18()
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: known.state_dict())
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: known.state_dict())
    net = ResNet18(pretrained=True).backbone()  # CIFAR stem, ten classes
    own, theirs = net.state_dict(), known.state_dict()
    fresh = [name for name in own if own[name].shape != theirs[name].shape]
    assert fresh == ["conv1.weight", "fc.weight", "fc.bias"]
    assert all(torch.equal(own[name], theirs[name]) for name in own if name not in fresh)


def test_without_the_weights_it_is_said_where_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(
        BadInput, match=r"of resnet18 could not be downloaded .*no network.*resnet18.*\.pth.*checkpoints"
    ):
        ResNet18(pretrained=True).backbone()


@pytest.mark.parametrize(
    ("space", "sets", "message"),
    [
        ("resnet18", {"pretrained": True, "width": 8}, "pretrained needs resnet18.width=64"),
        ("resnet18", {"ratios": [0.5, 2.0]}, "resnet18.ratios"),
        ("vgg16", {}, "set data.size=32 or more"),
    ],
)
def test_what_cannot_run_is_refused(space: str, sets: dict[str, object], message: str, tmp_path: Path) -> None:
    recipe = resolve("spos", space, preset="test", sets={space: sets, "data": {"size": None}})
    with pytest.raises(BadInput, match=message):
        prepare(recipe, tmp_path)


def test_the_paper_preset_resizes_what_does_not_come_at_32_pixels() -> None:
    sizes = {
        dataset: preset_values(ResNet18, "resnet18", "paper", "resnet18", dataset)["data"].get("size")
        for dataset in ("cifar10", "cifar100", "food101", "stanford_cars", "cub200")
    }
    assert sizes == {"cifar10": None, "cifar100": None, "food101": 224, "stanford_cars": 224, "cub200": 224}


def test_query_answers_for_ten_classes_unless_told_otherwise(tmp_path: Path) -> None:
    done = nasbench("query", "--space", "resnet18", "keep=0.5", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert json.loads(done.out)["params"] == 2_797_610
    done = nasbench("query", "-s", "resnet18", "keep=0.5", "--set", "resnet18.classes=100", "--json", cwd=tmp_path)
    assert json.loads(done.out)["params"] == 2_820_740
    done = nasbench("query", "--space", "vgg16", "keep=0", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
