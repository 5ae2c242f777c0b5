"""The networks of the channel spaces: plain modules of given widths, named as torchvision names theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

from torch import Tensor, nn

if TYPE_CHECKING:
    from nasbench_backbones.channels import ChannelSpace
    from nasbench_backbones.resnet import ResNet18
    from nasbench_backbones.vgg import VGG16

#: Called with the name of a gated layer and its normalised output [B,c,H,W]; what it returns goes on.
Gate: TypeAlias = Callable[[str, Tensor], Tensor]


def keep_all(name: str, x: Tensor) -> Tensor:
    """The gate that is none."""
    return x


def activation(space: ChannelSpace) -> nn.Module:
    """The nonlinearity of a space; both map 0 to 0, so a masked channel stays masked."""
    return nn.LeakyReLU(0.1) if space.activation == "leaky_relu" else nn.ReLU()


def initialise(net: nn.Module) -> None:
    """Kaiming-normal convolutions (fan out), as torchvision does; linear layers as torch does.

    torchvision's N(0, 0.01) for VGG's head is made for 4096 units: narrower ones would hardly learn.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Block(nn.Module):
    """A basic residual block; `name` is its place in the network."""

    def __init__(
        self, name: str, inputs: int, inner: int, outputs: int, stride: int, shortcut: bool, act: nn.Module, norm: bool
    ) -> None:
        super().__init__()
        self.name, self.act = name, act
        self.conv1 = nn.Conv2d(inputs, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner, track_running_stats=norm)
        self.conv2 = nn.Conv2d(inner, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, track_running_stats=norm)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs, track_running_stats=norm),
            )
            if shortcut
            else None
        )

    def forward(self, x: Tensor, gate: Gate) -> Tensor:
        y = self.act(gate(f"{self.name}.conv1", self.bn1(self.conv1(x))))
        y = gate(f"{self.name}.conv2", self.bn2(self.conv2(y)))
        if self.downsample is not None:
            x = gate(f"{self.name}.downsample.0", self.downsample(x))
        return cast(Tensor, self.act(y + x))


class ResNet(nn.Module):
    """ResNet-18 with so many channels behind each gate: `net(images [B,C,H,W], gate=None) -> logits [B,K]`."""

    def __init__(self, space: ResNet18, widths: Mapping[str, int], running_statistics: bool) -> None:
        super().__init__()
        colours, stream = space.image[0], widths["layer1"]
        kernel, stride = (3, 1) if space.small else (7, 2)
        self.conv1 = nn.Conv2d(colours, stream, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(stream, track_running_stats=running_statistics)
        self.act = activation(space)
        self.pool = nn.Identity() if space.small else nn.MaxPool2d(3, 2, 1)
        for i in range(4):
            stage = f"layer{i + 1}"
            blocks = list[Block]()
            for j in range(2):
                name, first = f"{stage}.{j}", i > 0 and j == 0
                inner, outputs = widths[name], widths[stage]
                block = Block(name, stream, inner, outputs, 1 + first, first, self.act, running_statistics)
                blocks.append(block)
                stream = outputs
            self.add_module(stage, nn.Sequential(*blocks))
        self.fc = nn.Linear(stream, space.classes)
        initialise(self)

    def forward(self, images: Tensor, gate: Gate = keep_all) -> Tensor:
        x = self.pool(self.act(gate("conv1", self.bn1(self.conv1(images)))))
        for i in range(4):
            for block in cast(nn.Sequential, getattr(self, f"layer{i + 1}")):
                x = block(x, gate)
        return cast(Tensor, self.fc(x.mean((2, 3))))


class VGG(nn.Module):
    """VGG-16 with batch norm, a 1x1 pool and a 4096-4096 head: `net(images [B,C,H,W], gate=None) -> logits [B,K]`."""

    def __init__(self, space: VGG16, widths: Mapping[str, int], running_statistics: bool) -> None:
        super().__init__()
        self.names = {layer.norm: layer.name for layer in space.layers if layer.norm}
        act, parts, inputs, group = activation(space), list[nn.Module](), space.image[0], "conv1"
        for gate, outputs in widths.items():
            if not gate.startswith(group):
                parts.append(nn.MaxPool2d(2))
                group = gate[:5]
            norm = nn.BatchNorm2d(outputs, track_running_stats=running_statistics)
            parts += [nn.Conv2d(inputs, outputs, 3, padding=1), norm, act]
            inputs = outputs
        self.features = nn.Sequential(*parts, nn.MaxPool2d(2))
        head: list[nn.Module] = []
        for units in (space.hidden, space.hidden):
            head += [nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(space.dropout)]
            inputs = units
        self.classifier = nn.Sequential(*head, nn.Linear(inputs, space.classes))
        initialise(self)

    def forward(self, images: Tensor, gate: Gate = keep_all) -> Tensor:
        x = images
        for place, part in enumerate(self.features):
            x = part(x)
            if name := self.names.get(f"features.{place}"):
                x = gate(name, x)
        return cast(Tensor, self.classifier(x.mean((2, 3))))
