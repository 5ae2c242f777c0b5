"""VGG-16 as a channel space: Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from nasbench import hookimpl
from nasbench_backbones.channels import ChannelSpace, Layer

if TYPE_CHECKING:
    import torch

    from nasbench import Run

#: Convolutions of each of the five groups, and their channels as multiples of the width.
GROUPS = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


class VGG16(ChannelSpace):
    """Thirteen gates, one behind each convolution's batch norm; the last one's channels feed the first linear layer."""

    name: ClassVar[str] = "vgg16"
    torchvision_name: ClassVar[str] = "vgg16_bn"

    hidden: int = Field(4096, ge=1)
    """Units of the two hidden linear layers."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout behind each of them."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        height, width = self.image[1:]
        if min(height, width) < 32:
            return f"vgg16 halves images five times, and {height}x{width} is too small; set data.size=32 or more."
        return super().refuse(run)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        found, source = list[Layer](), ""
        inputs, height, width = self.image
        place = 0  # in torchvision's numbering: convolution, batch norm, activation; a pooling ends a group
        for i, (count, times) in enumerate(GROUPS):
            for j in range(count):
                target, outputs = f"conv{i + 1}_{j + 1}", times * self.width
                pixels = (height >> i) * (width >> i)
                names = f"features.{place}", f"features.{place + 1}"
                found.append(Layer(*names, True, 3, source, target, inputs, outputs, pixels))
                inputs, source, place = outputs, target, place + 3
            place += 1
        sizes = (inputs, self.hidden, self.hidden, self.classes)
        for i in range(3):
            reads = "" if i else source
            found.append(Layer(f"classifier.{3 * i}", "", True, 1, reads, "", sizes[i], sizes[i + 1], 1))
        return tuple(found)

    def make(self, widths: Mapping[str, int], running_statistics: bool = True) -> torch.nn.Module:
        from nasbench_backbones.networks import VGG

        return VGG(self, widths, running_statistics)
