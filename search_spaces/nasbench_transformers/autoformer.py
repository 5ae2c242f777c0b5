"""AutoFormer's space of tiny vision transformers: Chen et al., AutoFormer: Searching Transformers for Visual
Recognition, ICCV 2021."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from nasbench import Arch, BadInput, SearchSpace, hookimpl
from nasbench.drawing import Layer

if TYPE_CHECKING:
    import torch

    from nasbench import Mixture, Run

EMBEDS, DEPTHS, RATIOS, HEADS, HEAD = (192, 216, 240), (12, 13, 14), (3.5, 4.0), (3, 4), 64
LAYERS = max(DEPTHS)
#: Distances beyond which two patches are as far as this, on either axis.
REACH = 14
#: Rows of a table of relative positions: from -REACH to REACH, and one for whatever touches the class token.
PLACES = 2 * REACH + 2


class AutoFormerTiny(SearchSpace):
    """12 to 14 transformer layers, each with its own MLP ratio and number of heads, in one embedding dimension.

    The decisions are `embed`, `depth`, 14 MLP ratios `ratio1` to `ratio14` and 14 numbers of heads `heads1` to
    `heads14`; queries, keys and values have 64 dimensions a head, so 192 or 256. Where the depth is below 14, the
    last layers' decisions have no effect: architectures that differ in nothing else are one, and `size` and `number`
    count it once.
    """

    name: ClassVar[str] = "autoformer-tiny"

    classes: int = Field(1000, ge=2)
    """Classes of the dataset; a run takes it from its dataset."""
    image: tuple[int, int, int] = (3, 224, 224)
    """Channels, height and width of an image; a run takes it from its dataset."""
    patch: int = Field(16, ge=1)
    """Side of a patch, which must divide the image's; for images of 32x32 take 4."""
    width: float = Field(1.0, gt=0)
    """Multiplies the embedding dimensions and those of a head."""
    pool: Literal["mean", "token"] = "mean"
    """What the classifier sees: the mean over the patches, as in the authors' command, or the class token."""

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        each = {"ratio": tuple(f"{r:g}" for r in RATIOS), "heads": tuple(map(str, HEADS))}
        whole = {"embed": tuple(map(str, EMBEDS)), "depth": tuple(map(str, DEPTHS))}
        return whole | {f"{kind}{i}": names for kind, names in each.items() for i in range(1, LAYERS + 1)}

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        _, height, width = self.image
        if height % self.patch or width % self.patch:
            return f"{self.name}.patch = {self.patch} does not divide images of {height}x{width}; take a divisor."
        return None

    # ------------------------------------------------------------------ structure and costs

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across. Raises BadInput where they do not fill the image."""
        _, height, width = self.image
        if height % self.patch or width % self.patch:
            raise BadInput(f"{self.name}.patch = {self.patch} does not divide images of {height}x{width}.")
        return height // self.patch, width // self.patch

    @property
    def embeds(self) -> tuple[int, ...]:
        """The embedding dimensions at this width."""
        return tuple(max(2, round(e * self.width)) for e in EMBEDS)

    @property
    def head(self) -> int:
        """Dimensions of a head at this width."""
        return max(2, round(HEAD * self.width))

    def layers(self, arch: Arch) -> list[tuple[int, int]]:
        """The layers that an architecture has: option of the MLP ratio, option of the number of heads."""
        ratios, heads = arch[2 : 2 + LAYERS], arch[2 + LAYERS :]
        return list(zip(ratios, heads, strict=True))[: DEPTHS[arch[1]]]

    def chain(self, arch: Arch) -> list[Layer]:
        """The layers that the architecture has."""
        return [Layer(f"layer{i}", f"mlp {RATIOS[r]:g} h{HEADS[h]}") for i, (r, h) in enumerate(self.layers(arch), 1)]

    @cached_property
    def _layer_costs(self) -> list[list[list[dict[str, int]]]]:
        """By embedding dimension, MLP ratio, number of heads."""
        tokens = 1 + prod(self.grid)

        def cost(embed: int, ratio: float, heads: int) -> dict[str, int]:
            inner, hidden = heads * self.head, int(embed * ratio)
            weights = 4 * embed * inner + 2 * embed * hidden
            biases, norms, positions = 3 * inner + hidden + 2 * embed, 4 * embed, 4 * PLACES * self.head
            # Every two tokens: query by key and attention by value, both also with their relative position.
            pairs = 4 * tokens**2 * inner
            return {
                "params": weights + biases + norms + positions,
                "conv_weights": weights,
                "madds": tokens * weights + pairs,
            }

        return [[[cost(e, r, h) for h in HEADS] for r in RATIOS] for e in self.embeds]

    @cached_property
    def _fixed_costs(self) -> list[dict[str, int]]:
        """Of patches, positions, last norm and classifier, by embedding dimension."""
        patches, pixels = prod(self.grid), self.image[0] * self.patch**2
        found = []
        for embed in self.embeds:
            weights = pixels * embed + embed * self.classes
            others = embed + embed + (1 + patches) * embed + 2 * embed + self.classes
            madds = patches * pixels * embed + embed * self.classes
            found.append({"params": weights + others, "conv_weights": weights, "madds": madds})
        return found

    def cost(self, arch: Arch) -> dict[str, int]:
        layers = self._layer_costs[arch[0]]
        parts = [self._fixed_costs[arch[0]], *(layers[r][h] for r, h in self.layers(arch))]
        return {name: sum(part[name] for part in parts) for name in parts[0]}

    def cost_range(self, name: str) -> tuple[int, int]:
        low, high = (self.cost(tuple(o[i] for o in self.root.options))[name] for i in (0, -1))  # more costs more
        return low, high

    # ------------------------------------------------------------------ counting and naming

    @property
    def size(self) -> int:
        """Architectures that differ in more than layers they do not have: 1,056,964,608."""
        return len(self.options[0]) * sum(self._ways(DEPTHS[d]) for d in self.options[1])

    def _ways(self, depth: int) -> int:
        """In how many ways the first layers can be chosen."""
        return prod(len(o) for o in (*self.options[2 : 2 + depth], *self.options[2 + LAYERS : 2 + LAYERS + depth]))

    def _trim(self, arch: Arch) -> Arch:
        """The same architecture with the first allowed option wherever a decision has no effect."""
        depth = DEPTHS[arch[1]]
        there = [i < 2 or (i - 2) % LAYERS < depth for i in range(len(arch))]
        return tuple(o if t else first[0] for o, t, first in zip(arch, there, self.options, strict=True))

    def canonical(self, arch: Arch) -> Arch:
        """The decisions without effect set to their smallest option."""
        space: AutoFormerTiny = self.root if self.allowed else self  # type: ignore[assignment]
        return space._trim(arch)

    def sample(self, rng: random.Random) -> Arch:
        """Every option of every decision equally likely, the depth as well, as AutoFormer draws."""
        return self._trim(super().sample(rng))

    def architectures(self) -> Iterator[Arch]:
        """All architectures, each that differs in what it computes once."""
        first = [(o[0],) for o in self.options]
        for embed, d in itertools.product(self.options[0], self.options[1]):
            there = [i >= 2 and (i - 2) % LAYERS < DEPTHS[d] for i in range(len(first))]
            layers = [o if t else f for o, f, t in zip(self.options, first, there, strict=True)][2:]
            yield from ((embed, d, *rest) for rest in itertools.product(*layers))

    def number(self, arch: Arch) -> int:
        """The place among all, from 0 to 1,056,964,607; equal where the difference has no effect."""
        ways, layers, depth = len(RATIOS) * len(HEADS), 0, arch[1]
        for ratio, heads in self.layers(arch):
            layers = layers * ways + ratio * len(HEADS) + heads
        smaller = sum(ways**d for d in DEPTHS[:depth])
        return arch[0] * sum(ways**d for d in DEPTHS) + smaller + layers

    def from_number(self, number: int) -> Arch:
        ways = len(RATIOS) * len(HEADS)
        embed, rest = divmod(number, sum(ways**d for d in DEPTHS))
        if not 0 <= embed < len(EMBEDS):
            raise BadInput(f"{self.name} numbers its architectures from 0 to {self.root.size - 1}.")
        depth = 0
        while rest >= ways ** DEPTHS[depth]:
            rest, depth = rest - ways ** DEPTHS[depth], depth + 1
        layers = [divmod(rest // ways**i % ways, len(HEADS)) for i in reversed(range(DEPTHS[depth]))]
        layers += [(0, 0)] * (LAYERS - len(layers))
        return (embed, depth, *(r for r, _ in layers), *(h for _, h in layers))

    def format(self, arch: Arch) -> str:
        """`embed=192 depth=12 ratio=4 heads=3` where all layers are equal, else lists: `heads=3,4,...`."""
        layers = self.layers(arch)
        lists = {"ratio": [f"{RATIOS[r]:g}" for r, _ in layers], "heads": [str(HEADS[h]) for _, h in layers]}
        words = [f"{key}={','.join(values if len(set(values)) > 1 else values[:1])}" for key, values in lists.items()]
        return " ".join([f"embed={EMBEDS[arch[0]]} depth={DEPTHS[arch[1]]}", *words])

    def parse(self, text: str) -> Arch:
        """The architecture of a text form or a number; a single value stands for all layers."""
        if text.isdecimal():
            return super().parse(text)
        words = [word.partition("=") for word in text.split()]
        given = {key: inside.split(",") for key, _, inside in words}
        known = {"embed": EMBEDS, "depth": DEPTHS, "ratio": RATIOS, "heads": HEADS}
        if sorted(key for key, _, _ in words) != sorted(known):
            raise BadInput(
                f"Cannot read the {self.name} architecture {text!r}; expected a number below {self.root.size} or a "
                f"form like 'embed=192 depth=12 ratio=4 heads=3', one value for all layers or a list."
            )
        arch: list[int] = []
        for key, values in known.items():
            options = [f"{v:g}" for v in values]
            count = DEPTHS[arch[1]] if len(arch) > 1 else 1
            chosen = given[key] * count if len(given[key]) == 1 else given[key]
            if len(chosen) != count:
                raise BadInput(f"{key} of {text!r} has {len(chosen)} values; expected {count}, or one for all.")
            for value in chosen:
                if value not in options:
                    raise BadInput(f"{key}={value} does not fit; expected {', '.join(options)}.")
            found = [options.index(value) for value in chosen]
            arch += found + [0] * (LAYERS - count) if len(arch) > 1 else found
        return tuple(arch)

    # ------------------------------------------------------------------ networks

    @property
    def relaxed(self) -> dict[str, tuple[str, ...]]:
        """None: options are parts of each other, so weights are mixed (`nested`), and never outputs."""
        return {}

    def nested(self, mixture: Mixture) -> Mixture:
        """A mixture, for each decision weights [options], for the supernet to weigh its own weights by."""
        from nasbench_transformers.autoformer_networks import Nested

        return Nested(mixture)

    def supernet(self) -> torch.nn.Module:
        from nasbench_transformers.autoformer_networks import Supernet

        return Supernet(self)

    def build(self, arch: Arch) -> torch.nn.Module:
        from nasbench_transformers.autoformer_networks import Network

        return Network(self, arch)
