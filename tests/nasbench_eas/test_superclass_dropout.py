"""Superclass dropout: which classes take part, and what that does to the loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from nasbench_eas.superclass_dropout import superclass_mask
from torch import Tensor

from nasbench.data import Batch
from tests.nasbench_eas.conftest import Prepare

of_classes = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 3, 3])  # 10 classes, 4 superclasses


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masks(q: float, alike: bool = False, count: int = 4000) -> tuple[Tensor, Tensor]:
    labels = torch.randint(10, (count,), generator=rng(1))
    return labels, superclass_mask(of_classes, labels, q, rng(), alike)


@pytest.mark.invariant("superclass-dropout", 1)
@pytest.mark.parametrize("q", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("alike", [False, True])
def test_an_image_keeps_its_superclass_and_groups_go_as_a_whole(q: float, alike: bool) -> None:
    labels, mask = masks(q, alike)
    for t in range(4):
        group = mask[:, of_classes == t]
        assert (group.all(1) | ~group.any(1)).all()
        assert group[of_classes[labels] == t].all()


@pytest.mark.invariant("superclass-dropout", 2)
@pytest.mark.parametrize("q", [0.1, 0.15, 0.6])
def test_others_are_dropped_with_probability_q_each_by_itself(q: float) -> None:
    labels, mask = masks(q)
    first = torch.stack([mask[:, c] for c in (0, 2, 5, 7)], 1)  # one class of each superclass
    others = first[F.one_hot(of_classes[labels], 4) == 0].view(-1, 3)
    dropped = (~others).float().mean().item()
    assert abs(dropped - q) < 4 * (q * (1 - q) / others.numel()) ** 0.5
    both = (~others[:, 0] & ~others[:, 1]).float().mean().item()
    assert abs(both - q * q) < 4 * (q * q * (1 - q * q) / len(others)) ** 0.5


@pytest.mark.invariant("superclass-dropout", 3)
@pytest.mark.parametrize("method", ["ofa", "spos"])
def test_q_0_is_no_dropout_and_q_1_leaves_the_own_superclass(prepared: Prepare, method: str) -> None:
    logits = torch.randn(2, 30, 10, generator=rng(2))
    batch = Batch(torch.zeros(30, 1, 8, 8), torch.randint(10, (30,), generator=rng(3)))
    smooth = {"ofa": {"label_smoothing": 0.0}} if method == "ofa" else {}
    losses = {}
    for q in (0.0, 1.0):
        run = prepared(f"{method}+superclass-dropout[q={q}]", **smooth)
        prepared_batch = run.hook.prepare_batch(run=run, batch=batch)
        losses[q] = run.hook.compute_loss(run=run, logits=logits, batch=prepared_batch, archs=[])
    plain = torch.stack([F.cross_entropy(each, batch.labels) for each in logits])
    assert torch.allclose(losses[0.0], plain, atol=1e-6)
    groups = [[0, 6, 8, 9], [1, 4, 7], [2, 3, 5]]  # of digits
    alone = []
    for each in logits:
        parts = []
        for row, label in zip(each, batch.labels.tolist(), strict=True):
            group = next(g for g in groups if label in g)
            parts.append(F.cross_entropy(row[group], torch.tensor(group.index(label))))
        alone.append(torch.stack(parts).mean())
    assert torch.allclose(losses[1.0], torch.stack(alone), atol=1e-6)


@pytest.mark.invariant("superclass-dropout", 4)
@pytest.mark.parametrize("method", ["ofa", "spos"])
def test_dropped_classes_have_no_probability_and_no_gradient(prepared: Prepare, method: str) -> None:
    run = prepared(f"{method}+superclass-dropout")
    batch = run.hook.prepare_batch(run=run, batch=run.hook.next_batch(run=run))
    assert batch.class_mask is not None
    assert not batch.class_mask.all()
    logits = torch.randn(3, len(batch.labels), 10, generator=rng(4)).requires_grad_()
    run.hook.compute_loss(run=run, logits=logits, batch=batch, archs=[]).sum().backward()
    assert logits.grad is not None
    assert logits.grad[:, ~batch.class_mask].eq(0).all()
    assert logits.grad[:, batch.class_mask].ne(0).all()
    # A softmax over what is left: its gradient sums to 0 for each image.
    assert logits.grad.sum(-1).abs().max() < 1e-6


@pytest.mark.invariant("superclass-dropout", 5)
def test_a_batch_may_draw_once() -> None:
    labels, mask = masks(0.5, alike=True)
    for t in range(4):
        strangers = mask[of_classes[labels] != t][:, of_classes == t]
        assert strangers.all() or not strangers.any()


@pytest.mark.invariant("superclass-dropout", 6)
def test_each_step_and_each_seed_draws_anew_and_a_step_is_repeatable(prepared: Prepare) -> None:
    drawn = []
    for seed, step in ((0, 0), (0, 1), (1, 0), (0, 0)):
        run = prepared("ofa+superclass-dropout", seed=seed)
        run.step = step
        batch = Batch(torch.zeros(50, 1, 8, 8), torch.arange(50) % 10)
        drawn.append(run.hook.prepare_batch(run=run, batch=batch).class_mask)
    assert torch.equal(drawn[0], drawn[3])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
