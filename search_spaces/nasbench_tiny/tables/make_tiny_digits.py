"""Train the 27 tiny networks alone on digits, five seeds each, and write tiny-digits.csv: half a minute.

python search_spaces/nasbench_tiny/tables/make_tiny_digits.py
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from nasbench_tiny.tiny import Tiny

from nasbench.data import load_images

SEEDS, EPOCHS, BATCH, LR = 5, 10, 60, 0.05


def main() -> None:
    space = Tiny(image=(1, 8, 8))
    splits = {k: (s.images.float() / 255, s.labels) for k, s in load_images("digits").splits.items()}
    rows = [[space.format(arch), space.number(arch)] for arch in space.architectures()]
    results = [[train(space, arch, seed, splits) for seed in range(SEEDS)] for arch in space.architectures()]
    for row, result in zip(rows, results, strict=True):
        row += [f"{r[split]:.4f}" for split in ("valid", "test") for r in result]
    with Path(__file__).with_name("tiny-digits.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arch", "index", *(f"{s}_{i}" for s in ("valid", "test") for i in range(SEEDS))])
        writer.writerows(rows)


def train(
    space: Tiny, arch: tuple[int, ...], seed: int, splits: dict[str, tuple[torch.Tensor, torch.Tensor]]
) -> dict[str, float]:
    """Validation and test accuracy (%) of one network."""
    torch.manual_seed(1000 * space.number(arch) + seed)
    net, (images, labels) = space.build(arch), splits["train"]
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    total = EPOCHS * math.ceil(len(labels) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        return {k: 100 * (net(x).argmax(1) == y).double().mean().item() for k, (x, y) in splits.items()}


if __name__ == "__main__":
    main()
