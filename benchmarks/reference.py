"""The plain reference: a textbook single-path supernet of NAS-Bench-201, torch's defaults, nothing clever.

Eager, float32, NCHW, one forward and backward for each subnet, images transformed one by one in a DataLoader.
It is what the engine is measured against, so a change that slows it is a defect.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


def relu_conv_norm(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2), norm(channels))


class Cell(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Identity(),  # none: never called
                    nn.Identity(),
                    relu_conv_norm(channels, channels, 1),
                    relu_conv_norm(channels, channels, 3),
                    nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
                ]
            )
            for _ in EDGES
        )

    def forward(self, x: Tensor, arch: tuple[int, ...]) -> Tensor:
        nodes = [x]
        for node in range(1, 4):
            total = torch.zeros_like(x)
            for i, (source, target) in enumerate(EDGES):
                if target == node and arch[i] != 0:
                    total = total + self.edges[i][arch[i]](nodes[source])
            nodes.append(total)
        return nodes[3]


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            relu_conv_norm(channels, 2 * channels, 3, stride=2), relu_conv_norm(2 * channels, 2 * channels, 3)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class Supernet(nn.Module):
    """images [B,3,H,W], one architecture -> logits [B,10]."""

    def __init__(self, channels: int, cells: int, classes: int = 10) -> None:
        super().__init__()
        c = channels
        self.stem = nn.Sequential(nn.Conv2d(3, c, 3, padding=1, bias=False), norm(c))
        blocks: list[nn.Module] = [Cell(c) for _ in range(cells)]
        blocks += [Residual(c), *(Cell(2 * c) for _ in range(cells))]
        blocks += [Residual(2 * c), *(Cell(4 * c) for _ in range(cells))]
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Sequential(norm(4 * c), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4 * c, classes)

    def forward(self, images: Tensor, arch: tuple[int, ...]) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x, arch) if isinstance(block, Cell) else block(x)
        return self.head(self.last(x))


def train_step(
    net: Supernet, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, archs: list[tuple[int, ...]]
) -> None:
    """Sum the gradients of the subnets one after the other, clip, step."""
    optimizer.zero_grad()
    for arch in archs:
        nn.functional.cross_entropy(net(images, arch), labels).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimizer.step()


@torch.no_grad()
def accuracy(net: Supernet, batches: list[tuple[Tensor, Tensor]], arch: tuple[int, ...]) -> float:
    right = sum((net(images, arch).argmax(1) == labels).sum().item() for images, labels in batches)
    return 100 * right / sum(len(labels) for _, labels in batches)


class ImageFolderLike(Dataset[tuple[Tensor, int]]):
    """Images one by one through torchvision's transforms, as every tutorial does it."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])
