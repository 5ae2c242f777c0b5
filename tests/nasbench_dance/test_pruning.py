"""Whole runs: three stages, a network for every budget, what the baselines share, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nasbench_dance.fitting import Best, fit
from nasbench_dance.masks import Masked, Masks, recalibrate
from safetensors.torch import load_file

from nasbench import BadInput, Run, hookimpl
from nasbench.harness import execute, prepare
from nasbench.networks import load_network
from nasbench.recipe import preset_values, resolve
from nasbench.results.specialize import specialize
from tests.command import nasbench
from tests.nasbench_dance.conftest import Start

METHODS = ["dance", "score-pruning", "random-channels", "uniform-widths"]
Record = dict[str, Any]


def names(run: Run) -> list[list[str]]:
    """The optimizer's groups by parameter name."""
    assert run.optimizer is not None
    known = {id(p): name for name, p in run.net.named_parameters()}
    return [[known[id(p)] for p in group["params"]] for group in run.optimizer.param_groups]


class Stages:
    """Sees the first step of every stage."""

    def __init__(self) -> None:
        self.groups: dict[str, list[list[str]]] = {}
        self.settings: dict[str, list[tuple[float, float]]] = {}
        self.rates: dict[str, list[float]] = {}

    @hookimpl
    def progress(self, run: Run, stage: str) -> None:
        assert run.optimizer is not None
        self.groups.setdefault(stage, names(run))
        self.settings.setdefault(stage, [(g["max_lr"], g["weight_decay"]) for g in run.optimizer.param_groups])
        self.rates.setdefault(stage, []).append(float(run.info["lr"]))


# ---------------------------------------------------------------------- stages


@pytest.mark.invariant("dance", 4)
def test_the_first_stage_knows_no_gate_and_leaves_them_as_the_seed_made_them(start: Start) -> None:
    stages = Stages()
    run = start("dance", "resnet18", stages)
    run.hook.train(run=run)
    backbone = sorted(n for n, _ in run.space.build(run.space.parse("keep=1")).named_parameters())
    assert sorted(n for group in stages.groups["backbone"] for n in group) == backbone
    twice = [start("dance", runs="other", train={"epochs": epochs}) for epochs in (1, 3)]
    before = []
    for each in twice:
        method: Any = each.plugins["dance"]
        method.stage2_epochs = 1
        each.hook.progress = lambda **_: None
        seen: list[Any] = []
        original = method.masked_loss

        def first(run: Run, batch: Any, seen: list[Any] = seen, original: Any = original) -> Any:
            seen.append(seen or [p.detach().clone() for p in run.net["gates"].parameters()])
            return original(run, batch)

        object.__setattr__(method, "masked_loss", first)
        each.hook.train(run=each)
        before.append(seen[0])
    assert all(torch.equal(a, b) for a, b in zip(*before, strict=True))  # however long the first stage was


@pytest.mark.invariant("dance", 5)
def test_groups_of_the_second_stage(start: Start) -> None:
    stages = Stages()
    run = start("dance", "resnet18", stages, train={"lr": 1e-3})
    run.hook.train(run=run)
    parts = [{name.rsplit(".", 1)[0].split(".")[0:2][-1] for name in group} for group in stages.groups["masks"]]
    assert parts[:2] == [{"all"}, {"embed"}]
    assert stages.settings["masks"] == [(1e-3, 1e-2), (5e-4, 1e-2), (1e-4, 5e-4)]
    assert stages.settings["backbone"] == [(1e-3, 5e-4)]
    assert sum(len(g) for g in stages.groups["masks"]) == len(list(run.net.parameters()))


def test_the_paper_preset_is_the_papers(tmp_path: Path) -> None:
    recipe = resolve("dance", "resnet18", preset="paper")
    t, d = recipe.train, recipe.options["dance"]
    assert (t.epochs, t.batch_size, t.lr, t.weight_decay, t.clip) == (100, 128, 1e-3, 5e-4, 1.0)
    assert (d["stage2_epochs"], d["finetune_epochs"], d["backbone_lr"], d["finetune_lr"]) == (None,) * 4  # as the first
    assert (d["gate_lr"], d["embedding_lr"], d["gate_decay"], d["patience"]) == (1e-3, 5e-4, 1e-2, 15)
    assert (d["tau"], d["alpha"], d["keep"], d["score_weights"]) == (0.5, 0.1, [0.5], [0.3, 0.3, 0.2, 0.2])
    assert recipe.data.valid_share == 0.1
    assert recipe.data.augment == ["flip", "crop"]


@pytest.mark.invariant("dance", 14)
def test_a_stage_follows_onecycle_and_ends_without_a_better_epoch(start: Start) -> None:
    run = start("dance")
    run.net = run.to_device(run.space.build(run.space.parse("keep=0.5")))
    seen, weights, rates = iter([30.0, 50.0, 40.0, 50.0, 45.0, 99.0]), [], []

    def top1() -> float:
        weights.append({n: v.clone() for n, v in run.net.state_dict().items()})
        return next(seen)

    def loss(batch: Any) -> torch.Tensor:
        rates.append(run.optimizer.param_groups[0]["lr"])  # type: ignore[union-attr]
        return run.predict(run.net, batch.images).square().mean()

    groups = [{"params": [*run.net.parameters()], "lr": 0.01, "weight_decay": 0.0}]
    best = run.stage("alone", lambda: fit(run, run.net, groups, 10, loss, top1, patience=3))
    assert best == 50.0
    assert len(weights) == 5  # the second was best; three after it were not better
    assert all(torch.equal(v, weights[1][n]) for n, v in run.net.state_dict().items())
    reference = torch.optim.AdamW([torch.zeros(1)], lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(reference, 0.01, total_steps=20, pct_start=0.3)
    for rate in rates:
        assert rate == pytest.approx(reference.param_groups[0]["lr"])
        reference.step()
        schedule.step()


def test_best_counts_from_the_best_epoch() -> None:
    best, net = Best(), torch.nn.Linear(1, 1)
    for top1, waited in ((10.0, 0), (10.0, 1), (9.0, 2), (11.0, 0)):
        best.see(top1, net)
        assert best.waited == waited
    other = Best()
    other.load_state_dict(best.state_dict())
    assert vars(other) == vars(best)


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_clipping_over_all_or_each(start: Start, scope: str) -> None:
    run = start("dance", train={"clip": 0.01})
    run.net = torch.nn.Linear(3, 2).double()
    norms = list[list[float]]()

    class Watch(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            norms.append([float(p.grad.norm()) for p in run.net.parameters()])
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.optim.AdamW", Watch)
        groups = [{"params": [*run.net.parameters()], "lr": 0.01}]
        ask = lambda batch: 100 * run.net(torch.ones(4, 3).double()).square().sum() + run.net.bias.sum()  # noqa: E731
        run.stage("alone", lambda: fit(run, run.net, groups, 1, ask, lambda: 0.0, patience=9, clip_scope=scope))
    for both in norms:
        if scope == "tensor":
            assert both == pytest.approx([0.01, 0.01], rel=1e-3)
        else:
            assert sum(n**2 for n in both) ** 0.5 == pytest.approx(0.01, rel=1e-3)


# ---------------------------------------------------------------------- a network for every budget


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., tuple[Record, Path]]:
    def run(label: str, space: str = "resnet18", seed: int = 0, **sets: Any) -> tuple[Record, Path]:
        return execute(resolve(label, space, preset="test", seed=seed, sets=sets), tmp_path / "runs")

    return run


def value(result: Record, name: str) -> float:
    found = next(m["value"] for m in result["metrics"] if m["name"] == name)
    assert isinstance(found, int | float)
    return found


@pytest.mark.invariant("dance", 15)
@pytest.mark.parametrize("method", METHODS)
def test_one_training_many_networks(method: str, record: Callable[..., tuple[Record, Path]]) -> None:
    found, path = record(method, **{method: {"budgets": ["keep=0.5", "params=20K", "madds=50K"]}})
    scenarios = [(r["scenario"]["budget"], r["phase"]) for r in found["results"]]
    assert scenarios[0] == ("keep=1", "backbone")
    assert scenarios[1:] == [(b, p) for b in ("keep=0.5", "params=20K", "madds=50K") for p in ("sampled", "fine-tuned")]
    run, _ = prepare(resolve(method, "resnet18", preset="test", sets={method: {"budgets": ["keep=0.5"]}}), path.parent)
    whole = value(found["results"][0], "top1")
    for result in found["results"]:
        arch = run.space.parse(result["arch"])
        network = load_network(run.space, arch, path.parent / result["network"])
        params = sum(p.numel() for p in network.parameters())
        assert value(result, "params") == params
        assert value(result, "retention") == pytest.approx(100 * value(result, "top1") / whole)
        assert value(result, "accuracy_density") == pytest.approx(value(result, "top1") / (params / 1e6))
    assert value(found["results"][3], "params") <= 20_000
    assert value(found["results"][5], "madds") <= 50_000
    for sampled, tuned in zip(found["results"][1::2], found["results"][2::2], strict=True):
        kept = [json.loads((path.parent / r["arch_file"]).read_text())["kept_channels"] for r in (sampled, tuned)]
        assert kept[0] == kept[1]
        widths = {gate: len(rows) for gate, rows in kept[0].items()}
        assert " ".join(f"{g}={w}" for g, w in widths.items()) == sampled["arch"]
        a, b = ((path.parent / r["network"]).read_bytes() for r in (sampled, tuned))
        assert a != b


def test_vgg_is_pruned_down_to_its_first_linear_layer(record: Callable[..., tuple[Record, Path]]) -> None:
    found, path = record("dance", "vgg16", dance={"budgets": ["keep=0.5"], "stage2_epochs": 1, "finetune_epochs": 1})
    kept = json.loads((path.parent / found["results"][1]["arch_file"]).read_text())["kept_channels"]
    state = load_file(path.parent / found["results"][1]["network"])
    assert len(kept) == 13
    assert state["classifier.0.weight"].shape == (8, len(kept["conv5_3"])) == (8, 8)


def test_gate_statistics_and_what_gates_cost(record: Callable[..., tuple[Record, Path]]) -> None:
    found, path = record("dance")
    sampled = found["results"][1]
    each = json.loads((path.parent / sampled["arch_file"]).read_text())["gates"]
    assert list(each) == list(prepare(resolve("dance", "resnet18", preset="test"), path)[0].space.choices)
    assert value(sampled, "gate_mean") == pytest.approx(sum(g["mean"] for g in each.values()) / 12)
    assert 0 < value(sampled, "gate_entropy") <= 0.6932
    assert value(found["results"][0], "overhead_params") > 0


@pytest.mark.invariant("dance", 16)
def test_specialize_gives_the_network_that_the_run_would_have(record: Callable[..., tuple[Record, Path]]) -> None:
    _, path = record("dance", dance={"budgets": ["keep=0.5"]})
    both, other = record("dance", dance={"budgets": ["keep=0.4", "keep=0.5"]})
    answer, folder = specialize(path, {"budget": "keep=0.4"})
    expected = both["results"][1]
    assert answer["arch"] == expected["arch"]
    a, b = load_file(folder / answer["network"]), load_file(other.parent / expected["network"])
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)  # with other threads other rounding
    assert value(answer, "top1") == pytest.approx(value(expected, "top1"), abs=0.5)
    with pytest.raises(BadInput, match="knows budgets alone"):
        specialize(path, {"budget": "keep=0.4", "superclass": "animals"})


@pytest.mark.invariant("dance", 17)
def test_the_backbone_is_trained_once_for_all_methods(
    record: Callable[..., tuple[Record, Path]], tmp_path: Path
) -> None:
    found = {method: record(method) for method in METHODS}
    weights = {(path.parent / r["results"][0]["network"]).read_bytes() for r, path in found.values()}
    assert len(weights) == 1
    assert all(r["measured"]["shared"] == ["backbone"] for r, _ in found.values())
    assert len(list((tmp_path / "runs" / "shared").iterdir())) == 1
    record("dance", seed=1)
    record("dance", train={"lr": 0.004})
    record("dance", train={"label_smoothing": 0.1})
    record("dance+superclass-dropout")
    assert len([p for p in (tmp_path / "runs" / "shared").iterdir() if p.is_dir()]) == 5


@pytest.mark.invariant("dance", 18)
@pytest.mark.parametrize("method", METHODS)
def test_a_network_is_the_trained_one_under_its_masks(start: Start, method: str) -> None:
    run = start(method, **{method: {"recalibrate": False}})
    run.hook.train(run=run)
    choice = run.hook.specialize(run=run, scenario={"budget": "keep=0.3"})
    masks = {g: torch.zeros(c, dtype=torch.float64) for g, c in run.space.channels.items()}  # type: ignore[attr-defined]
    for gate, rows in choice.artefact["kept_channels"].items():
        masks[gate][rows] = 1
    whole = Masked(run.net["backbone"], Masks(run.space, masks)).eval()  # type: ignore[arg-type]
    images = run.data.batches("valid", 8)[0].images.double()
    assert torch.allclose(whole(images), choice.network.eval()(images), atol=1e-9)


def test_recalibrated_statistics_are_averages_over_training_batches(start: Start) -> None:
    run = start("dance", score={"batch_size": 10}, data={"train_images": 30})
    net = run.to_device(run.space.build(run.space.parse("keep=0.5")))
    recalibrate(run, net)
    from nasbench.batch_norm import recalibration_batches

    inputs = [net.conv1(batch.images.double()) for batch in recalibration_batches(run)]  # type: ignore[operator]
    assert len(inputs) == 3
    mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    assert torch.allclose(net.bn1.running_mean, mean)  # type: ignore[arg-type, union-attr]
    assert not net.training


def test_a_budget_given_twice_is_one() -> None:
    recipe = resolve("dance", "resnet18", preset="test", sets={"dance": {"budgets": ["keep=.50", "keep=0.5"]}})
    assert recipe.options["dance"]["budgets"] == ["keep=0.5"]


def test_random_budgets_are_the_same_for_every_method(record: Callable[..., tuple[Record, Path]]) -> None:
    options = {"budgets": ["random:3"], "finetune_epochs": 0}
    archs = [[r["arch"] for r in record(m, **{m: options})[0]["results"]] for m in ("dance", "random-channels")]
    assert archs[0] == archs[1]
    assert len(set(archs[0])) == 4


# ---------------------------------------------------------------------- switches


@pytest.mark.parametrize(
    "options",
    [
        {"eval_gate": "sample"},
        {"eval_gate": "random"},
        {"gate_scope": "sample", "relaxation": "sigmoid_code", "sampler": "topk", "clip_scope": "tensor"},
        {"gate_scope": "sample", "eval_gate": "sample"},
        {"gate_combine": "paper_literal", "gate_activation": "relu", "lambda2_ramp": True},
        {"gate_combine": "logit_add", "samples": 2, "keep": [0.3, 0.5], "cycle_momentum": False},
    ],
    ids=str,
)
def test_every_reading_of_the_paper_runs(options: dict[str, Any], record: Callable[..., tuple[Record, Path]]) -> None:
    found, path = record("dance", dance={"budgets": ["keep=0.3"], "stage2_epochs": 1, "finetune_epochs": 0, **options})
    kept = json.loads((path.parent / found["results"][1]["arch_file"]).read_text())["kept_channels"]
    assert {gate: len(rows) for gate, rows in kept.items()} == {
        gate: max(1, int(0.3 * c)) for gate, c in zip(kept, [4] * 3 + [8] * 3 + [16] * 3 + [32] * 3, strict=True)
    }


def test_untied_streams_are_masked_and_measured_but_not_cut_out(record: Callable[..., tuple[Record, Path]]) -> None:
    found, path = record("dance", dance={"tie_residual": False, "budgets": ["keep=0.5"]})
    (backbone, sampled) = found["results"]
    assert "network" in backbone
    assert "network" not in sampled
    assert 0 <= value(sampled, "masked_top1") <= 100
    kept = json.loads((path.parent / sampled["arch_file"]).read_text())["kept_channels"]
    assert len(kept) == 20
    assert kept["conv1"] != kept["layer1.0.conv2"]


def test_lambda2_grows_over_the_second_stage(start: Start) -> None:
    seen = []
    run = start("dance", dance={"lambda2_ramp": True, "lambda2": 2.0, "stage2_epochs": 2})
    method: Any = run.plugins["dance"]
    original = method.masks
    object.__setattr__(method, "masks", lambda *a: seen.append(original(*a)) or seen[-1])
    run.hook.train(run=run)
    assert [gate.lambda2 for gate in seen] == pytest.approx([0.2, 0.65, 1.1, 1.55])


def test_score_pruning_draws_nothing(start: Start) -> None:
    run = start("score-pruning")
    run.hook.train(run=run)
    method: Any = run.plugins["score-pruning"]
    arch = run.space.parse("keep=0.5")
    first, second = (method.ask(run, text, arch) for text in ("a", "b"))
    assert all(first.masks[gate].equal(second.masks[gate]) for gate in first.masks)
    assert all(first.masks[gate].equal(mask) for gate, mask in method.keep_for(run, "", arch).items())


# ---------------------------------------------------------------------- refusals


@pytest.mark.invariant("dance", 19)
@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("dance+calr", "calr changes learning_rates, which dance never calls"),
        ("dance+ms", "ms changes sample_archs, update, which dance never calls"),
        ("score-pruning+calr+ms", "which score-pruning never calls"),
    ],
)
def test_modifiers_of_supernet_training_are_refused(label: str, message: str, tmp_path: Path) -> None:
    done = nasbench("run", "--method", label, "--space", "resnet18", "--preset", "test", cwd=tmp_path)
    assert done.code == 2
    assert message in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("space", "sets", "message"),
    [
        ("tiny", {}, "dance keeps some channels of each layer, and tiny is no channel space"),
        ("resnet18", {"dance": {"budgets": ["keep=2"]}}, "expected 0 < keep <= 1"),
        ("resnet18", {"dance": {"budgets": ["latency=3"]}}, "Unknown budget 'latency'; known: keep"),
        ("resnet18", {"dance": {"budgets": ["madds=7"]}}, "No resnet18 network fits the budget madds=7"),
        ("resnet18", {"dance": {"budgets": []}}, "at least 1 item"),
        ("resnet18", {"dance": {"keep": [0.0]}}, r"keep = \[0.0\] does not fit"),
        ("resnet18", {"resnet18": {"ratios": [0.5, 0.25]}}, "at full width, which resnet18 does not offer"),
        ("resnet18", {"train": {"batch_size": 39}}, "The last batch of an epoch would have one image"),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence(
    space: str, sets: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        prepare(resolve("dance", space, preset="test", sets=sets), tmp_path)


def test_methods_agree_on_all_but_their_names() -> None:
    """Their presets differ in nothing, so that they can be compared."""
    from nasbench.plugins import load

    for preset in ("quick", "cpu", "paper"):
        found = [preset_values(load("method", m), m, preset, "resnet18") for m in METHODS]
        assert found[0]
        assert all(one == found[0] for one in found)
