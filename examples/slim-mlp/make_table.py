"""Train the 64 networks alone on digits, three seeds each, and write slim-mlp-digits.csv: two minutes.

python make_table.py
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from slim_mlp import SlimMLP

from nasbench.data import load_images

SEEDS, EPOCHS, BATCH, LR = 3, 40, 60, 0.1
Splits = dict[str, tuple[torch.Tensor, torch.Tensor]]


def main() -> None:
    """Write the table: `arch`, its `index`, and top-1 (%) in columns `valid_SEED` and `test_SEED`."""
    torch.set_num_threads(1)
    space = SlimMLP(image=(1, 8, 8))
    splits = {k: (s.images.float() / 255, s.labels) for k, s in load_images("digits").splits.items()}
    path = Path(__file__).parent / "slim_mlp" / "slim-mlp-digits.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arch", "index", *(f"{s}_{i}" for s in ("valid", "test") for i in range(SEEDS))])
        for arch in space.architectures():
            results = [train(space, arch, seed, splits) for seed in range(SEEDS)]
            accuracies = [f"{r[s]:.4f}" for s in ("valid", "test") for r in results]
            writer.writerow([space.format(arch), space.number(arch), *accuracies])


def train(space: SlimMLP, arch: tuple[int, ...], seed: int, splits: Splits) -> dict[str, float]:
    """Validation and test top-1 (%) of one network, trained alone."""
    torch.manual_seed(1000 * space.number(arch) + seed)
    net, (images, labels) = space.build(arch), splits["train"]
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * math.ceil(len(labels) / BATCH))
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
