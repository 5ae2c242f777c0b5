"""The auxiliary heads that supervise the first two stages."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

Head = Literal["small", "medium", "large"]
#: Filters of a head's two convolutions, and the kernel of the first (Table X).
SIZES: dict[str, tuple[int, int, int]] = {"small": (64, 128, 1), "medium": (128, 256, 1), "large": (128, 256, 3)}


class StageHead(nn.Module):
    """Features [B,C,H,W] -> logits [B,K]: average pooling to a quarter of the side, two convolutions, a linear layer.

    On 32x32 the pooling is 11/3 and the second convolution 8x8, on 16x16 they are 7/3 and 4x4, as in the paper's code;
    other sides follow the same rule: n = side // 4 places, a pooling window of side - 3 (n - 1), stride 3.
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int, kind: Head) -> None:
        super().__init__()
        first, second, kernel = SIZES[kind]
        places = [max(1, side // 4) for side in size]
        window = [side - 3 * (n - 1) for side, n in zip(size, places, strict=True)]
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d((window[0], window[1]), 3),
            nn.Conv2d(channels, first, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, (places[0], places[1]), bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))
