"""Train a random part of NAS-Bench-201 on scikit-learn's digits, each architecture alone: nb201-digits.csv.

Many networks train side by side as groups of convolutions, with activations [B,H,W,G,C]; on each edge of a
cell they are divided by operation, so that an operation runs once for all networks that use it there.
A stopped run goes on when the same command is given again; another setting needs another --out.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from nasbench_cells.nb201 import CONV1, CONV3, NB201, NONE, POOL
from scipy.stats import kendalltau, spearmanr
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn

SPACE = NB201(channels=8, cells=1, classes=10, image=(1, 8, 8))
BATCH, LR, WEIGHT_DECAY, TOGETHER = 50, 0.1, 5e-4, 50
KERNELS = {CONV1: 1, CONV3: 3}
Sources = list[Generator]  # of the initial weights, one for each network


def digits_split() -> list[tuple[np.ndarray, np.ndarray]]:
    """Train, validation and test: uint8 images [N,1,8,8] and labels; 60, 40 and the rest of every class."""
    digits, parts = load_digits(), []
    images = np.round(digits.images * 255 / 16).astype(np.uint8)[:, None]
    for label in range(10):
        rows = np.random.default_rng(20_190_000 + label).permutation(np.flatnonzero(digits.target == label))
        parts.append(np.split(rows, (60, 100)))
    return [(images[rows], digits.target[rows]) for rows in map(np.concatenate, zip(*parts, strict=True))]


def draw(source: Generator, *shape: int) -> Tensor:
    """Normal weights: a convolution's of variance 2 / fan-in (He), the head's of 1/3 / fan-in."""
    weight = torch.randn(shape, generator=source) * math.sqrt(2 / math.prod(shape[1:]))
    return weight if len(shape) == 4 else weight / 6**0.5


class Divide(torch.autograd.Function):
    """[B,H,W,G,C] -> for each operation, the groups that use it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, users: list[Tensor], inverse: Tensor) -> tuple[Tensor, ...]:
        ctx.inverse = inverse
        return tuple(x.index_select(3, groups) for groups in users)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return torch.cat(grads, 3).index_select(3, ctx.inverse), None, None


class Unite(torch.autograd.Function):
    """The inverse of Divide."""

    @staticmethod
    def forward(ctx: Any, users: list[Tensor], inverse: Tensor, *parts: Tensor) -> Tensor:
        ctx.users = users
        return torch.cat(parts, 3).index_select(3, inverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, None, *(grad.index_select(3, groups) for groups in ctx.users)


def pool(x: Tensor, kernel: int, stride: int) -> Tensor:
    y = F.avg_pool2d(x.flatten(3).permute(0, 3, 1, 2), kernel, stride, kernel - 2, count_include_pad=False)
    return y.permute(0, 2, 3, 1).unflatten(3, x.shape[3:])


class Conv(nn.Module):
    def __init__(self, sources: Sources, c: int, out: int, k: int, stride: int = 1, norm: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([draw(source, out, c, k, k) for source in sources]))
        self.norm = nn.BatchNorm2d(len(sources) * out) if norm else nn.Identity()
        self.stride, self.shape = stride, (len(sources), out)

    def forward(self, x: Tensor) -> Tensor:  # one group in x: shared by all networks
        x, (_, c, k, _) = x.flatten(3).permute(0, 3, 1, 2), self.weight.shape
        y = self.norm(F.conv2d(x, self.weight, None, self.stride, k // 2, groups=x.shape[1] // c))
        return cast(Tensor, y.permute(0, 2, 3, 1).unflatten(3, self.shape))


class Edge(nn.Module):
    def __init__(self, ops: tuple[int, ...], sources: Sources, c: int) -> None:
        super().__init__()
        users = {op: [g for g, other in enumerate(ops) if other == op] for op in sorted(set(ops))}
        self.ops, self.users = list(users), [torch.tensor(groups) for groups in users.values()]
        self.inverse = torch.cat(self.users).argsort()
        convs = {op: [sources[g] for g in groups] for op, groups in users.items() if op in KERNELS}
        self.convs = nn.ModuleDict({str(op): Conv(s, c, c, KERNELS[op]) for op, s in convs.items()})

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.ops, Divide.apply(x, self.users, self.inverse), strict=True)
        return cast(Tensor, Unite.apply(self.users, self.inverse, *(self.compute(op, part) for op, part in parts)))

    def compute(self, op: int, x: Tensor) -> Tensor:
        if op in KERNELS:
            return cast(Tensor, self.convs[str(op)](F.relu(x)))
        return torch.zeros_like(x) if op == NONE else pool(x, 3, 1) if op == POOL else x


class Cell(nn.ModuleList):
    def forward(self, x: Tensor) -> Tensor:
        a = self[0](x)
        b = self[1](x) + self[2](a)
        return cast(Tensor, self[3](x) + self[4](a) + self[5](b))


class Residual(nn.ModuleList):
    def forward(self, x: Tensor) -> Tensor:
        y = self[1](F.relu(self[0](F.relu(x))))
        return cast(Tensor, y + self[2](pool(x, 2, 2)))


class Stack(nn.Module):
    """The networks of several architectures side by side: images [B,1,H,W] -> logits [B,G,classes]."""

    def __init__(self, indices: list[int], seed: int) -> None:
        super().__init__()
        sources = [Generator().manual_seed(1000 * index + seed) for index in indices]  # and on nothing else
        edges, c = list(zip(*map(SPACE.from_number, indices), strict=True)), SPACE.channels
        layers: list[nn.Module] = [Conv(sources, 1, c, 3)]
        for w in (c, 2 * c, 4 * c):
            if w > c:
                shapes: list[tuple[Any, ...]] = [(w // 2, w, 3, 2), (w, w, 3), (w // 2, w, 1, 1, False)]
                layers.append(Residual(Conv(sources, *shape) for shape in shapes))
            layers.append(Cell(Edge(ops, sources, w) for ops in edges))
        self.body, self.norm = nn.Sequential(*layers), nn.BatchNorm2d(len(indices) * 4 * c)
        self.weight = nn.Parameter(torch.stack([draw(source, SPACE.classes, 4 * c) for source in sources]))
        self.bias = nn.Parameter(torch.zeros(len(indices), SPACE.classes))

    def forward(self, images: Tensor) -> Tensor:
        x = self.body(images.permute(0, 2, 3, 1)[..., None, :]).flatten(3).permute(0, 3, 1, 2)
        x = F.relu(self.norm(x)).mean((2, 3)).unflatten(1, (len(self.bias), -1))
        return torch.einsum("bgc,gkc->bgk", x, self.weight) + self.bias


def train(indices: list[int], seed: int, epochs: int) -> np.ndarray:
    """Validation and test accuracy (%) [2,G]. The seed sets the order of the images, the same for all."""
    splits = [(torch.from_numpy(x) / 255, torch.from_numpy(y)) for x, y in digits_split()]
    mean, std = splits[0][0].mean(), splits[0][0].std(correction=0)
    (images, labels), *held_out = [((x - mean) / std, y) for x, y in splits]
    net, order = Stack(indices, seed), Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), LR, 0.9, weight_decay=WEIGHT_DECAY, nesterov=True, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(labels) // BATCH)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=order).split(BATCH):
            optimizer.zero_grad()
            logits, target = net(images[rows]), labels[rows, None].expand(-1, len(indices))
            (F.cross_entropy(logits.transpose(1, 2), target, reduction="sum") / len(rows)).backward()
            optimizer.step()
            schedule.step()
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over one pass through the training images
    with torch.inference_mode():
        for rows in torch.randperm(len(labels), generator=order).split(2 * BATCH):
            net(images[rows])
        net.eval()
        right = [torch.cat([net(x) for x in xs.split(2 * BATCH)]).argmax(2) == y[:, None] for xs, y in held_out]
    return np.stack([100 * r.double().mean(0).numpy() for r in right])


def self_test(indices: list[int]) -> str:
    """Compare logits and a gradient with those of the plain networks that have the same weights."""
    stack, images, worst = Stack(indices, 0), torch.from_numpy(digits_split()[0][0][::12]) / 255, 0.0
    logits, stem = stack(images), cast(Tensor, stack.body[0].weight)
    logits.square().mean((0, 2)).sum().backward()
    for g, (index, grad) in enumerate(zip(indices, cast(Tensor, stem.grad).chunk(len(indices)), strict=True)):
        plain, source = SPACE.build(SPACE.from_number(index)), Generator().manual_seed(1000 * index)
        layers = [m for m in plain.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for layer in layers:
            layer.weight.data = draw(source, *layer.weight.shape)
        nn.init.zeros_(cast(Tensor, layers[-1].bias))
        expected = plain(images)
        expected.square().mean().backward()
        for a, b in ((logits[:, g], expected), (grad, cast(Tensor, layers[0].weight.grad))):
            worst = max(worst, ((a - b).abs().max() / b.abs().max().clamp(min=1e-6)).item())
    return f"largest relative difference from plain networks {worst:.1e}: {'ok' if worst < 1e-4 else 'FAILED'}"


def reliability(test: np.ndarray) -> str:
    """Agreement of the means [R] of two disjoint halves of the seeds of [R,seeds], over 200 random splits."""
    rng, halves = np.random.default_rng(0), []
    for _ in range(200):
        a, b = (test[:, half].mean(1) for half in np.array_split(rng.permutation(test.shape[1]), 2))
        halves.append((kendalltau(a, b)[0], spearmanr(a, b)[0]))
    tau, rho = (f"{x.mean():.3f} ({x.min():.3f} to {x.max():.3f})" for x in np.transpose(halves))
    return f"split-half reliability over {len(test)} architectures: tau-b {tau}, Spearman {rho}"


def report(rows: list[dict[str, str]]) -> str:
    """The numbers of the table's card."""
    valid, test = (np.array([[float(r[k]) for k in r if k.startswith(s)] for r in rows]) for s in ("valid", "test"))
    sizes = [SPACE.cost(SPACE.from_number(int(r["index"])))["params"] for r in rows]
    mean, learn = test.mean(1), test.mean(1) > 15
    return f"""{len(rows)} architectures, {test.shape[1]} seeds; {(~learn).sum()} architectures stay at chance
{reliability(test)}
without those at chance: {reliability(test[learn])}
mean test accuracy, min, quartiles, max: {np.percentile(mean, [0, 25, 50, 75, 100]).round(2)}
standard deviation without those at chance: {mean[learn].std():.2f} of architectures, \
{test[learn].std(1, ddof=1).mean():.2f} of the seeds of one
tau-b with the mean test accuracy: parameter count {kendalltau(sizes, mean)[0]:.3f}, \
mean validation accuracy {kendalltau(valid.mean(1), mean)[0]:.3f}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, default=350, help="how many, in a fixed random order (350)")
    parser.add_argument("--seeds", type=int, default=16, help="networks trained of each architecture (16)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each network (3)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("nb201-digits.csv"), help="the CSV")
    parser.add_argument("--self-test", action="store_true", help="compare with plain networks, train nothing")
    parser.add_argument("--report", action="store_true", help="print the card's numbers from the CSV, train nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sample = random.Random(0).sample(range(SPACE.root.size), args.architectures)
    names = ["arch", "index", *(f"{s}_{i}" for s in ("valid", "test") for i in range(args.seeds))]
    rows: list[dict[str, str]] = []
    if args.out.exists():
        with args.out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    if args.self_test or args.report:
        return print(self_test(sample[:40]) if args.self_test else report(rows))
    if rows and list(rows[0]) != names:
        parser.error(f"{args.out} has other columns; choose another --out")
    table, start = {int(row["index"]): list(row.values()) for row in rows}, time.perf_counter()
    stacks = [sample[i : i + TOGETHER] for i in range(0, len(sample), TOGETHER)]
    todo = [indices for indices in stacks if not table.keys() >= set(indices)]
    for number, indices in enumerate(todo, 1):
        accuracy = np.stack([train(indices, seed, args.epochs) for seed in range(args.seeds)])  # [seeds,2,G]
        for g, index in enumerate(indices):
            arch = SPACE.format(SPACE.from_number(index))
            table[index] = [arch, str(index), *(f"{v:.4f}" for v in accuracy[:, :, g].T.flat)]
        partial = args.out.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([names, *(table[index] for index in sorted(table))])
        partial.replace(args.out)
        left = (time.perf_counter() - start) / number * (len(todo) - number) / 60
        print(f"{len(table)} of {len(sample)} architectures, about {left:.0f} minutes left", flush=True)


if __name__ == "__main__":
    main()
