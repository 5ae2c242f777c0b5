"""What channel spaces share: a width for every gate, exact costs, and cutting a network down to kept channels."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from pydantic import Field

from nasbench import Arch, BadInput, SearchSpace, hookimpl
from nasbench.budget import Budget

if TYPE_CHECKING:
    import torch

    from nasbench import Run

#: For each gate the channels kept: their indices, int64 [k], or a slice.
Kept: TypeAlias = "Mapping[str, torch.Tensor | slice]"


def kept_channels(ratio: float, channels: int) -> int:
    """How many of a layer's channels a keep ratio leaves: max(1, floor(r c)), float error guarded against.

    >>> [kept_channels(r, 64) for r in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)], kept_channels(1 - 0.9, 10)
    ([64, 57, 51, 44, 38, 32], 1)
    """
    return max(1, math.floor(ratio * channels + 1e-9))


class Layer(NamedTuple):
    """A convolution or linear layer of the network, by the names of its modules."""

    name: str
    norm: str
    """Its batch norm; empty where it has none."""
    bias: bool
    kernel: int
    source: str
    """The gate that decides its input channels; empty where they are fixed."""
    target: str
    """The gate that decides its output channels; empty where they are fixed."""
    inputs: int
    """Input channels at full width."""
    outputs: int
    """Output channels at full width."""
    pixels: int
    """Positions of its output."""


class ChannelSpace(SearchSpace):
    """A backbone whose gates each keep some of their channels. An architecture says how many, not which.

    Layers that write into one residual stream share a gate, so that a network can be cut to the kept channels.
    A subclass gives `layers` and `make`.
    """

    width: int = Field(64, ge=1)
    """Channels of the first stage; every other layer has a multiple of it."""
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"
    """leaky_relu (slope 0.1), as in the official code of DANCE, or relu, as the backbones were published."""
    ratios: list[float] | None = None
    """Keep ratios that every gate offers; null offers every width from 1 on."""
    pretrained: bool = False
    """Start from torchvision's ImageNet weights, wherever their shapes fit; needs width 64."""

    # ------------------------------------------------------------------ what a subclass gives

    @property
    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """Every layer with weights, in the order of the forward pass."""

    @abstractmethod
    def make(self, widths: Mapping[str, int], running_statistics: bool = True) -> torch.nn.Module:
        """The network with so many channels behind each gate, `net(images [B,C,H,W], gate=None) -> [B,K]`.

        `gate(name, x)`, if given, is called with the name of each gated layer and its normalised output
        [B,c,H,W]; what it returns goes on.
        """

    # ------------------------------------------------------------------ encoding

    @cached_property
    def channels(self) -> dict[str, int]:
        """The gates in order, each with its channels at full width."""
        return {layer.target: layer.outputs for layer in self.layers if layer.target}

    @cached_property
    def members(self) -> dict[str, tuple[str, ...]]:
        """The gates, each with the layers whose output it masks, in the order of the forward pass."""
        return {gate: tuple(layer.name for layer in self.layers if layer.target == gate) for gate in self.channels}

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        def offered(channels: int) -> list[int]:
            every = range(1, channels + 1)
            return list(every) if self.ratios is None else sorted({kept_channels(r, channels) for r in self.ratios})

        return {gate: tuple(map(str, offered(c))) for gate, c in self.channels.items()}

    @property
    def relaxed(self) -> dict[str, tuple[str, ...]]:
        """None: widths are not mixed."""
        return {}

    def widths(self, arch: Arch) -> dict[str, int]:
        """The gates, each with the channels that an architecture keeps."""
        return {gate: int(names[o]) for (gate, names), o in zip(self.choices.items(), arch, strict=True)}

    def arch_of(self, widths: Mapping[str, int]) -> Arch:
        """The architecture with these widths; for one that is not offered, the next below."""
        return tuple(
            max(sum(int(name) <= widths[gate] for name in names) - 1, 0) for gate, names in self.choices.items()
        )

    def uniform(self, ratio: float) -> Arch:
        """The architecture with one keep ratio everywhere."""
        return self.arch_of({gate: kept_channels(ratio, c) for gate, c in self.channels.items()})

    def within(self, budget: Budget) -> Arch:
        """The largest architecture of one keep ratio that fits a budget. Raises BadInput if none does."""
        if budget.name == "keep":
            return self.uniform(budget.value)
        finest = math.lcm(*self.channels.values())
        low, high = 0, finest  # the share low/finest fits, unless it is 0
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.cost(self.uniform(middle / finest))[budget.name] <= budget.value
            low, high = (middle, high) if fits else (low, middle - 1)
        if not low:
            least = Budget(budget.name, self.cost(self.uniform(1 / finest))[budget.name])
            raise BadInput(f"No {self.name} network fits the budget {budget}; the smallest has {least}.")
        return self.uniform(low / finest)

    def parse(self, text: str) -> Arch:
        """The architecture of widths (`layer1=32 layer1.0=20 ...`), of its number, or of a budget (`keep=0.5`)."""
        if text.strip().partition("=")[0] in ("keep", "madds", "params") and " " not in text.strip():
            return self.within(Budget.parse(text))
        try:
            return super().parse(text)
        except BadInput:
            example = self.format(self.uniform(0.5))
            raise BadInput(
                f"Cannot read the {self.name} architecture {text!r}; expected one keep ratio, like 'keep=0.5', a "
                f"budget, like 'madds=100M', or a width for each layer, like {example!r}."
            ) from None

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if self.ratios is not None and not all(0 < r <= 1 for r in self.ratios or [0]):
            return f"{self.name}.ratios = {self.ratios} does not fit: expected shares above 0, up to 1."
        if self.pretrained and (self.width != 64 or self.image[0] != 3):
            return f"{self.name}.pretrained needs {self.name}.width=64 and colour images, as torchvision's networks."
        return None

    # ------------------------------------------------------------------ costs

    def cost(self, arch: Arch) -> dict[str, int]:
        """Exact costs: every convolution, linear layer, bias and batch norm at these widths."""
        widths = self.widths(arch)
        weights = others = madds = 0
        for layer in self.layers:
            inputs, outputs = widths.get(layer.source, layer.inputs), widths.get(layer.target, layer.outputs)
            size = layer.kernel**2 * inputs * outputs
            weights, madds = weights + size, madds + size * layer.pixels
            others += (2 * bool(layer.norm) + layer.bias) * outputs
        return {"params": weights + others, "conv_weights": weights, "madds": madds}

    def cost_range(self, name: str) -> tuple[int, int]:
        """Every cost grows with every width."""
        root: ChannelSpace = self.root  # type: ignore[assignment]
        return root.cost(tuple(0 for _ in root.choices))[name], root.cost(root.uniform(1.0))[name]

    # ------------------------------------------------------------------ networks

    def build(self, arch: Arch) -> torch.nn.Module:
        return self.make(self.widths(arch))

    def backbone(self) -> torch.nn.Module:
        """The network at full width, with torchvision's weights if `pretrained`. Raises BadInput without them."""
        from nasbench_backbones.slicing import load_pretrained

        net = self.make(self.channels)
        if self.pretrained:
            load_pretrained(net, self.torchvision_name)
        return net

    @property
    @abstractmethod
    def torchvision_name(self) -> str:
        """What torchvision calls the backbone."""

    def supernet(self) -> torch.nn.Module:
        """A narrower subnet is the first channels of the wider (as in slimmable networks and once-for-all)."""
        from nasbench_backbones.slicing import Supernet

        return Supernet(self)

    def slice(self, net: torch.nn.Module, kept: Kept) -> torch.nn.Module:
        """A plain network of the kept channels alone, with their weights and running statistics, where `net` is."""
        from nasbench_backbones.slicing import slice_state

        state: dict[str, Any] = slice_state(self, net.state_dict(), kept)
        widths = {layer.target: len(state[f"{layer.name}.weight"]) for layer in self.layers if layer.target}
        small = self.make(widths).to(next(net.parameters()))
        small.load_state_dict(state)
        return small
