"""DASS: Mousavi et al., Differentiable Architecture Search for Sparse Neural Networks, ACM TECS 2023, under the search
configuration in which MG-DARTS is compared with it (Tables I and VII)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, cast

import torch
from nasbench_cells.darts import DARTS, EDGES
from nasbench_differentiable.relaxation import validation_batch
from pydantic import Field
from torch import Tensor, nn

from nasbench import Choice, Method, Run, hookimpl
from nasbench.data import Batch
from nasbench_mgdarts.final import architecture, final_network, one_operation_an_edge
from nasbench_mgdarts.layers import Kernel, kernels
from nasbench_mgdarts.network import SearchNet, full_shapes
from nasbench_mgdarts.report import Reported
from nasbench_mgdarts.units import retention


class TopShare(torch.autograd.Function):
    """The mask of the largest scores, a fixed share of them; the gradient passes straight through to the scores."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, share: float) -> Tensor:
        mask = torch.zeros_like(scores)
        mask.view(-1)[scores.flatten().argsort(descending=True, stable=True)[: math.ceil(share * scores.numel())]] = 1.0
        return mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Scores(nn.Module):
    """A score for every weight of the searched convolutions; at first its size in relation to the largest."""

    def __init__(self, kernels: list[Kernel]) -> None:
        super().__init__()
        sizes = [k.weight.detach().abs() for k in kernels]
        self.values = nn.ParameterList(nn.Parameter(size / size.max()) for size in sizes)


class DASS(Reported, Method):
    """Operations by gradient on validation images, then weights by learned scores at a fixed ratio."""

    calls: ClassVar[frozenset[str]] = frozenset({"next_batch", "prepare_batch", "compute_loss"})

    weight_ratio: float = Field(0.9, gt=0, le=1)
    """Share of the weights of each searched convolution that is left."""
    prune_epochs: int = Field(20, ge=0)
    """Epochs in which scores are learned and the weights rest; train.epochs train the weights before."""
    eval_mode: Literal["scratch", "finetune"] = "scratch"
    """The found network is trained from fresh weights, or goes on with its own, as DASS itself does."""
    arch_lr: float = Field(3e-4, gt=0)
    """Adam's rate for alpha."""
    arch_weight_decay: float = Field(1e-3, ge=0)
    """L2 decay of alpha."""
    score_lr: float = Field(0.1, gt=0)
    """SGD's initial rate for the scores; it falls to 0 along a cosine, like that of the weights."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        return self.refuse_space(run)

    @hookimpl
    def train(self, run: Run) -> bool:
        space, t = run.space, run.recipe.train
        assert isinstance(space, DARTS)
        with run.seeded("init"):
            net = run.net = run.to_device(SearchNet(space, full_shapes(space), frozenset({"op"}), "medium", False))
            for s in cast(SearchNet, net).structures_():
                s.alpha.data.normal_(0, 1e-3)

        def weights() -> None:
            own = [p for name, p in net.named_parameters() if not name.startswith("structures.")]
            sgd = torch.optim.SGD(own, t.lr, t.momentum, nesterov=t.nesterov, weight_decay=t.weight_decay, foreach=True)
            self.alternate(run, t.epochs, t.lr, sgd, own)

        def masks() -> None:
            sparse = kernels(net)
            scores = Scores(sparse).to(run.device)
            run.track("scores", scores)

            def put() -> None:
                for kernel, values in zip(sparse, scores.values, strict=True):
                    kernel.mask = TopShare.apply(values, self.weight_ratio)

            sgd = torch.optim.SGD(scores.parameters(), self.score_lr, t.momentum, foreach=True)
            self.alternate(run, self.prune_epochs, self.score_lr, sgd, list(scores.parameters()), put)
            put()
            for kernel in sparse:
                kernel.mask = kernel.mask.detach()

        run.stage("weights", weights)
        run.stage("masks", masks)
        return True

    def alternate(
        self,
        run: Run,
        epochs: int,
        lr: float,
        optimizer: torch.optim.Optimizer,
        trained: list[nn.Parameter],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """DARTS's first-order turns: alpha on a validation batch, `trained` on a training batch; inside a stage."""
        net: SearchNet = run.net
        alphas = [s.alpha for s in net.structures_()]
        adam = torch.optim.Adam(alphas, self.arch_lr, (0.5, 0.999), weight_decay=self.arch_weight_decay)
        run.track("architecture", adam)
        run.track("optimizer", optimizer)
        for step in run.steps(epochs * run.steps_per_epoch):
            net.train()
            before()
            loss = self.loss(run, validation_batch(run))
            for alpha, slope in zip(alphas, torch.autograd.grad(loss, alphas), strict=True):
                alpha.grad = slope
            adam.step()
            before()
            batch = run.hook.prepare_batch(run=run, batch=run.hook.next_batch(run=run))
            loss = self.loss(run, batch)
            epoch = step // run.steps_per_epoch
            rate = lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            for parameter, slope in zip(trained, torch.autograd.grad(loss, trained), strict=True):
                parameter.grad = slope
            if run.recipe.train.clip is not None:
                nn.utils.clip_grad_norm_(trained, run.recipe.train.clip, foreach=True)
            optimizer.step()
            for kernel in kernels(net):
                kernel.mask = kernel.mask.detach()
            run.info = {"loss": loss.detach(), "lr": rate}

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """The task's loss of the mixture, a scalar."""
        gates = [s.alpha.softmax(1) for s in run.net.structures_()]
        logits = run.predict(run.net, batch.images, gates)
        losses: Tensor = run.hook.compute_loss(run=run, logits=logits[None], batch=batch, archs=[()])
        return losses[0]

    # ------------------------------------------------------------------ what was found

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        """The heaviest operations, as many as the target size allows; every node keeps one."""
        net: SearchNet = run.net
        whole, size = final_network(net, architecture(net)).sizes()
        most = self.most_parameters(whole)
        for _, k, e, op in sorted(weights_of_operations(net)):
            if size <= most and one_operation_an_edge(net):
                break
            node = [i for i, (_, target) in enumerate(EDGES) if target == EDGES[e][1]]
            if int(net.structures_()[k].alive[node].sum()) > 1:
                size -= parameters_of(net, k, e, op)
                net.drop(k, e, op)
        arch = architecture(net)
        with run.seeded("final"):
            auxiliary = self.retrain_auxiliary > 0
            network = final_network(net, arch, auxiliary=auxiliary, inherit=self.eval_mode == "finetune")
        small = network.sizes()[1] <= most
        how = "alpha on validation images"
        return self.choices(run, arch, network, how, retention=retention(net), small_enough=small)


def weights_of_operations(net: SearchNet) -> list[tuple[float, int, int, int]]:
    """(softmax weight, structure, edge, operation) of every operation that is left."""
    found = []
    for k, s in enumerate(net.structures_()):
        weights = s.alpha.detach().softmax(1)
        found += [(float(weights[e, o]), k, e, o + 1) for e, o in s.alive.nonzero().tolist()]
    return found


def parameters_of(net: SearchNet, structure: int, edge: int, op: int) -> int:
    """Parameters of an operation, in all cells that have it, which no mask sets to zero."""
    modules = [c.operations[f"{edge}_{op}"] for c in net.cells_() if net.kind_of(c) == structure]
    zeros = sum(int((k.mask == 0).sum()) for m in modules for k in kernels(m))
    return sum(p.numel() for m in modules for p in m.parameters()) - zeros
