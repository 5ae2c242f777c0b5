"""Once-for-all: phases, distillation, and a supernet that methods share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_eas.ofa import PHASES

from nasbench import Arch, BadInput, Run, hookimpl
from nasbench.data import Batch
from tests.conftest import RunTiny
from tests.nasbench_eas.conftest import Prepare

STARTS = [0, 4, 6, 10, 12]  # of 16 steps: a quarter, an eighth, a quarter, an eighth, a quarter
LARGEST = (2,) * 45


class Watch:
    """Sees each training step of the teacher and of the supernet."""

    def __init__(self) -> None:
        self.archs: dict[str, list[list[Arch]]] = {"teacher": [], "supernet": []}
        self.rates: dict[str, list[float]] = {"teacher": [], "supernet": []}
        self.masked: dict[str, int] = {"teacher": 0, "supernet": 0}
        self.optimizers: list[Any] = []

    @hookimpl(wrapper=True)
    def sample_archs(self, run: Run) -> Generator[None, list[Arch], list[Arch]]:
        archs = yield
        self.archs[run._stage].append(archs)
        return archs

    @hookimpl
    def progress(self, run: Run, stage: str) -> None:
        if stage in self.archs:
            assert run.optimizer is not None
            self.rates[stage].append(run.optimizer.param_groups[0]["lr"])
            self.optimizers.append(run.optimizer)

    @hookimpl(wrapper=True)
    def train_step(self, run: Run, batch: Batch) -> Generator[None, bool, bool]:
        self.masked[run._stage] += batch.class_mask is not None
        return (yield)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Watch]:
    """The supernet of 16 steps, and what was seen."""
    from nasbench.harness import prepare
    from nasbench.recipe import resolve

    watch = Watch()
    sets = {"train": {"epochs": 8}, "superclass-dropout": {"q": 1.0}}
    recipe = resolve("ofa+superclass-dropout", "mobilenetv3", preset="test", sets=sets)
    run, _ = prepare(recipe, tmp_path_factory.mktemp("runs"), [watch])
    run.hook.train(run=run)
    return run, watch


@pytest.mark.invariant("ofa", 1)
def test_the_largest_network_is_trained_first_without_dropped_superclasses(trained: tuple[Run, Watch]) -> None:
    _, watch = trained
    assert watch.archs["teacher"] == [[LARGEST]] * 16
    assert watch.masked == {"teacher": 0, "supernet": 16}


@pytest.mark.invariant("ofa", 2)
def test_kernels_then_depths_then_widths_become_elastic(trained: tuple[Run, Watch]) -> None:
    _, watch = trained
    kinds = {"kernel": range(20), "width": range(20, 40), "depth": range(40, 45)}
    open_: dict[str, int] = dict.fromkeys(kinds, 1)
    for phase, (first, end) in enumerate(pairwise([*STARTS, 16])):
        kind, count = PHASES[phase]
        open_[kind] = count
        steps = watch.archs["supernet"][first:end]
        assert [len(archs) for archs in steps] == [(1, 2, 2, 4, 4)[phase]] * (end - first)
        for name, decisions in kinds.items():
            seen = {arch[i] for archs in steps for arch in archs for i in decisions}
            assert seen == set(range(3 - open_[name], 3))


@pytest.mark.invariant("ofa", 2)
def test_each_decision_is_drawn_by_itself_and_evenly(prepared: Prepare) -> None:
    run = prepared("ofa")
    (method,) = run.plugins.values()
    method._teacher, method._starts = torch.nn.Identity(), [0, 0, 0, 0, 0]
    counts: Counter[tuple[int, int]] = Counter()
    for run.step in range(300):
        for arch in run.hook.sample_archs(run=run):
            counts.update(enumerate(arch))
    assert len(counts) == 45 * 3
    # 1,200 draws a decision; 4.5 standard deviations over 135 counts.
    assert all(abs(n - 400) < 4.5 * math.sqrt(1200 * 2 / 9) for n in counts.values())


@pytest.mark.invariant("ofa", 3)
def test_one_cosine_over_all_phases_each_with_a_fresh_optimizer(trained: tuple[Run, Watch]) -> None:
    _, watch = trained
    cosine = [0.02 * (1 + math.cos(math.pi * step / 16)) / 2 for step in range(16)]
    assert watch.rates["supernet"] == pytest.approx(cosine)
    assert watch.rates["teacher"] == pytest.approx([10 * rate for rate in cosine])
    teacher, supernet = watch.optimizers[:16], watch.optimizers[16:]
    assert len({id(o) for o in teacher}) == 1
    assert [i for i, (a, b) in enumerate(pairwise(supernet), start=1) if a is not b] == STARTS[1:]


@pytest.mark.invariant("ofa", 4)
def test_batch_norms_and_biases_do_not_decay(trained: tuple[Run, Watch]) -> None:
    run, watch = trained
    decayed, spared = watch.optimizers[-1].param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (run.recipe.train.weight_decay, 0.0)
    assert {p.ndim for p in spared["params"]} == {1}
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(run.net.parameters()))


def by_hand(logits: torch.Tensor, batch: Batch, answers: torch.Tensor | None, smoothing: float) -> torch.Tensor:
    """The loss of each subnet, image by image over the classes that are left."""
    losses = []
    for each in logits:
        total = torch.zeros(())
        for i, label in enumerate(batch.labels.tolist()):
            left = [c for c in range(10) if batch.class_mask is None or batch.class_mask[i, c]]
            target = F.one_hot(torch.tensor(left.index(label)), len(left)).float()
            total = total + F.cross_entropy(each[i, left], target, label_smoothing=smoothing)
            if answers is not None:
                total = total + F.cross_entropy(each[i, left], answers[i, left].softmax(0))
        losses.append(total / len(batch.labels))
    return torch.stack(losses)


@pytest.mark.invariant("ofa", 5)
@pytest.mark.parametrize("q", [0.0, 0.7])
def test_labels_and_teacher_are_matched_over_the_same_classes(prepared: Prepare, q: float) -> None:
    run = prepared(f"ofa+superclass-dropout[q={q}]")
    logits = torch.randn(3, 20, 10, generator=torch.Generator().manual_seed(0))
    batch = run.hook.prepare_batch(run=run, batch=run.hook.next_batch(run=run))
    alone = run.hook.compute_loss(run=run, logits=logits, batch=batch, archs=[])
    assert torch.allclose(alone, by_hand(logits, batch, None, 0.1), atol=1e-5)
    method = run.plugins["ofa"]
    method._teacher = run.hook.build_supernet(run=run).eval()
    answers = method._teacher(batch.images, [LARGEST])[0].detach()
    taught = run.hook.compute_loss(run=run, logits=logits, batch=batch, archs=[])
    assert torch.allclose(taught, by_hand(logits, batch, answers, 0.1), atol=1e-5)
    assert (taught > alone).all()


@pytest.mark.invariant("ofa", 6)
def test_a_step_sums_the_gradients_of_its_subnets(prepared: Prepare) -> None:
    run = prepared("ofa", engine={"precision": "float64"})
    method = run.plugins["ofa"]
    run.net = run.hook.build_supernet(run=run)
    run.optimizer = run.hook.make_optimizer(run=run)
    method._teacher, method._starts = run.hook.build_supernet(run=run).eval(), [0] * 5
    run.total_steps, before = 1, {n: p.detach().clone() for n, p in run.net.named_parameters()}
    batch, archs = run.hook.next_batch(run=run), run.hook.sample_archs(run=run)
    answers = method._teacher(batch.images.double(), [LARGEST])[0].detach()
    total: dict[str, Any] = {}
    for arch in archs:
        run.net.zero_grad()
        by_hand(run.net(batch.images.double(), [arch]), batch, answers, 0.1).sum().backward()
        for name, p in run.net.named_parameters():
            total[name] = total.get(name, 0) + (p.grad if p.grad is not None else 0)
    run.hook.train_step(run=run, batch=batch)
    for name, p in run.net.named_parameters():
        if p.ndim == 1 and torch.is_tensor(total[name]):
            assert torch.allclose(before[name] - 0.02 * total[name], p, rtol=1e-8, atol=1e-10), name


@pytest.mark.invariant("ofa", 7)
def test_channels_are_sorted_before_each_phase_of_width(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    from nasbench_mobile.mobilenet_v3_supernet import Supernet

    run, kept = prepared("ofa", train={"epochs": 8}), []
    sort: Callable[..., None] = Supernet.sort_channels
    monkeypatch.setattr(Supernet, "sort_channels", lambda net, k: (kept.append((run.step, list(k))), sort(net, k)))
    run.hook.train(run=run)
    assert kept == [(10, [2]), (12, [1, 2])]


@pytest.mark.invariant("ofa", 8)
def test_methods_that_agree_on_the_training_share_it(run_tiny: RunTiny) -> None:
    def steps(method: str) -> tuple[dict[str, int], dict[str, Any]]:
        counts: Counter[str] = Counter()

        class Counts:
            @hookimpl
            def progress(self, stage: str) -> None:
                counts[stage] += 1

        record = run_tiny(method, space="mobilenetv3", observers=[Counts()])
        assert {"teacher", "supernet"} <= set(record["measured"]["shared"])
        return {name: counts[name] for name in ("teacher", "supernet")}, record

    assert steps("eas[q=0.5]")[0] == {"teacher": 4, "supernet": 4}
    assert steps("eas-v[q=0.5]")[0] == {"teacher": 0, "supernet": 0}
    assert steps("random-in-budget+superclass-dropout[q=0.5]")[0] == {"teacher": 0, "supernet": 0}
    assert steps("random-in-budget")[0] == {"teacher": 0, "supernet": 4}  # without dropout: another supernet
    assert steps("ofa[distillation=0]")[0] == {"teacher": 0, "supernet": 4}
    seconds = [steps(m)[1]["measured"]["seconds"]["supernet"] for m in ("eas[q=0.5]", "eas-v[q=0.5]")]
    assert seconds[0] == seconds[1]  # charged to each


def test_other_spaces_are_refused(run_tiny: RunTiny) -> None:
    with pytest.raises(BadInput, match="tiny has no such decisions"):
        run_tiny("ofa")
