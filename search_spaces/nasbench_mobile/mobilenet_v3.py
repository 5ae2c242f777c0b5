"""The once-for-all MobileNetV3 space: Cai et al., Once-for-All: Train One Network and Specialize It, ICLR 2020."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from nasbench import Arch, BadInput, SearchSpace
from nasbench.drawing import Layer
from nasbench_mobile.inverted_residual import Place, make_divisible

if TYPE_CHECKING:
    import torch

    from nasbench import Mixture

KERNELS, EXPANSIONS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
UNITS, BLOCKS = 5, 4
#: The text form's three lists, with how many values each has and which are possible.
LISTS = {"ks": (UNITS * BLOCKS, KERNELS), "e": (UNITS * BLOCKS, EXPANSIONS), "d": (UNITS, DEPTHS)}


class MobileNetV3(SearchSpace):
    """Five units of two to four inverted residual blocks, each with its own kernel size and expansion ratio.

    The decisions are 20 kernel sizes `k1.1` to `k5.4` (unit, block), 20 expansion ratios `e1.1` to `e5.4` and
    five depths `d1` to `d5`. Where a unit is shallower than four, the last blocks' decisions have no effect:
    architectures that differ in nothing else are one, and `size`, `number` and `sample` count and draw it once.
    """

    name: ClassVar[str] = "mobilenetv3"

    classes: int = Field(1000, ge=2)
    """Classes of the dataset; a run takes it from its dataset."""
    image: tuple[int, int, int] = (3, 224, 224)
    """Channels, height and width of an image; a run takes it from its dataset."""
    width: float = Field(1.0, gt=0)
    """Multiplies every layer's channels; the results are rounded to multiples of 8."""
    strides: tuple[int, int, int, int, int, int] = (2, 2, 2, 2, 1, 2)
    """Strides of the stem and of the five units. For images of 32x32 take [1, 1, 2, 2, 1, 2]."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the classifier; 0.1 in once-for-all."""

    #: What of the architecture each kind of decision stretches, smallest option first, in the order of the blocks.
    elastic: ClassVar[dict[str, tuple[str, ...]]] = {
        "kernel": tuple(f"k{u}.{b}" for u in range(1, UNITS + 1) for b in range(1, BLOCKS + 1)),
        "width": tuple(f"e{u}.{b}" for u in range(1, UNITS + 1) for b in range(1, BLOCKS + 1)),
        "depth": tuple(f"d{u}" for u in range(1, UNITS + 1)),
    }

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        options = {"kernel": KERNELS, "width": EXPANSIONS, "depth": DEPTHS}
        return {name: tuple(map(str, options[kind])) for kind, names in self.elastic.items() for name in names}

    # ------------------------------------------------------------------ structure and costs

    def channels(self, count: int) -> int:
        """A channel count of the published network at this width."""
        return make_divisible(count * self.width)

    @cached_property
    def areas(self) -> list[int]:
        """Pixels after the stem and after each unit."""
        _, height, width = self.image
        found = []
        for stride in self.strides:
            height, width = -(-height // stride), -(-width // stride)
            found.append(height * width)
        return found

    @cached_property
    def places(self) -> list[Place]:
        """The 20 places of blocks, in order."""
        table = [(24, False, False), (40, False, True), (80, True, False), (112, True, True), (160, True, True)]
        found, before = [], self.channels(16)
        for unit, (channels, swish, squeeze) in enumerate(table):
            after, area, next_area = self.channels(channels), self.areas[unit], self.areas[unit + 1]
            found.append(Place(before, after, self.strides[unit + 1], swish, squeeze, area, next_area))
            found += [Place(after, after, 1, swish, squeeze, next_area, next_area)] * (BLOCKS - 1)
            before = after
        return found

    @cached_property
    def fixed_cost(self) -> dict[str, int]:
        """Costs of the stem, the first block and the tail, which every architecture has."""
        stem, last, feature, head = map(self.channels, (16, 160, 960, 1280))
        first, last_area = self.areas[0], self.areas[-1]
        spatial = self.image[0] * stem * 9 + stem * 9 + stem * stem
        flat = feature * head + head * self.classes
        weights = spatial + last * feature + flat
        return {
            "params": weights + 2 * (3 * stem + feature) + self.classes,
            "conv_weights": weights,
            "madds": spatial * first + last * feature * last_area + flat,
        }

    @cached_property
    def _block_costs(self) -> list[list[list[dict[str, int]]]]:
        return [[[place.cost(k, e) for e in EXPANSIONS] for k in KERNELS] for place in self.places]

    def blocks(self, arch: Arch) -> list[tuple[int, int, int]]:
        """The blocks that an architecture has: place, option of the kernel size, option of the expansion ratio."""
        n = UNITS * BLOCKS
        return [(i, arch[i], arch[n + i]) for i in range(n) if i % BLOCKS < DEPTHS[arch[2 * n + i // BLOCKS]]]

    def chain(self, arch: Arch) -> list[Layer]:
        """The blocks that the architecture has, named by unit and block."""
        return [
            Layer(f"{i // BLOCKS + 1}.{i % BLOCKS + 1}", f"k{KERNELS[k]} e{EXPANSIONS[e]}")
            for i, k, e in self.blocks(arch)
        ]

    def cost(self, arch: Arch) -> dict[str, int]:
        parts = [self.fixed_cost, *(self._block_costs[i][k][e] for i, k, e in self.blocks(arch))]
        return {name: sum(part[name] for part in parts) for name in self.fixed_cost}

    def cost_range(self, name: str) -> tuple[int, int]:
        low, high = (self.cost((option,) * len(self.choices))[name] for option in (0, 2))  # each option costs more
        return low, high

    def expected_madds(self, mixture: torch.Tensor) -> torch.Tensor:
        """MAdds of mixtures [..., 45, 3], shape [...]: differentiable, and `cost` exactly where they are one-hot.

        A polynomial of the weights: a block's middle channels, its kernel's area and its presence are linear in the
        weights of its own decisions.
        """
        from nasbench_mobile.mobilenet_v3_supernet import expected_madds

        return expected_madds(self, mixture)

    def nested(self, mixture: torch.Tensor) -> Mixture:
        """A mixture [45, 3] for the supernet to mask its own weights by, instead of adding up every option."""
        from nasbench_mobile.mobilenet_v3_supernet import Nested

        return Nested(mixture)

    # ------------------------------------------------------------------ counting, drawing, naming

    @property
    def size(self) -> int:
        """Architectures that differ in more than blocks they do not have: 21,758,655,492,572,485,851."""
        return math.prod(sum(counts) for counts in self._counts)

    @cached_property
    def _counts(self) -> list[list[int]]:
        """For each unit and each of its allowed depths, in how many ways its blocks can be chosen."""
        n = UNITS * BLOCKS
        ways = [len(k) * len(e) for k, e in zip(self.options[:n], self.options[n : 2 * n], strict=True)]
        return [
            [math.prod(ways[u * BLOCKS : u * BLOCKS + DEPTHS[d]]) for d in self.options[2 * n + u]]
            for u in range(UNITS)
        ]

    def _trim(self, arch: Arch) -> Arch:
        """The same architecture with the first allowed option wherever a decision has no effect."""
        there, n = {i for i, _, _ in self.blocks(arch)}, UNITS * BLOCKS
        return tuple(o if i >= 2 * n or i % n in there else self.options[i][0] for i, o in enumerate(arch))

    def canonical(self, arch: Arch) -> Arch:
        """The decisions without effect set to their smallest option."""
        space: MobileNetV3 = self.with_(allowed={}) if self.allowed else self
        return space._trim(arch)

    def sample(self, rng: random.Random) -> Arch:
        """One architecture, each that differs in what it computes equally likely; most have four blocks a unit."""
        depths = [rng.choices(self.options[2 * UNITS * BLOCKS + u], weights=self._counts[u])[0] for u in range(UNITS)]
        return self._trim((*(rng.choice(options) for options in self.options[: 2 * UNITS * BLOCKS]), *depths))

    def architectures(self) -> Iterator[Arch]:
        """All architectures, each that differs in what it computes once."""
        n, units = UNITS * BLOCKS, []
        for u in range(UNITS):
            blocks = range(u * BLOCKS, (u + 1) * BLOCKS)
            ways = [list(itertools.product(self.options[i], self.options[n + i])) for i in blocks]
            units.append(
                [
                    (d, chosen + tuple((self.options[i][0], self.options[n + i][0]) for i in blocks[DEPTHS[d] :]))
                    for d in self.options[2 * n + u]
                    for chosen in itertools.product(*ways[: DEPTHS[d]])
                ]
            )
        for depths_and_blocks in itertools.product(*units):
            depths = [d for d, _ in depths_and_blocks]
            flat = [block for _, blocks in depths_and_blocks for block in blocks]
            yield (*(k for k, _ in flat), *(e for _, e in flat), *depths)

    def number(self, arch: Arch) -> int:
        """The place among all, from 0 to 21,758,655,492,572,485,850; equal where the difference has no effect."""
        n, ways, value = UNITS * BLOCKS, len(KERNELS) * len(EXPANSIONS), 0
        for u in range(UNITS):
            depth, unit = arch[2 * n + u], 0
            for i in range(u * BLOCKS, u * BLOCKS + DEPTHS[depth]):
                unit = unit * ways + arch[i] * len(EXPANSIONS) + arch[n + i]
            smaller = sum(ways**d for d in DEPTHS[:depth])
            value = value * sum(ways**d for d in DEPTHS) + smaller + unit
        return value

    def from_number(self, number: int) -> Arch:
        ways, units = len(KERNELS) * len(EXPANSIONS), []
        for _ in range(UNITS):
            number, rest = divmod(number, sum(ways**d for d in DEPTHS))
            depth = 0
            while rest >= ways ** DEPTHS[depth]:
                rest, depth = rest - ways ** DEPTHS[depth], depth + 1
            pairs = [(0, 0)] * (BLOCKS - DEPTHS[depth])
            for _ in range(DEPTHS[depth]):
                rest, pair = divmod(rest, ways)
                pairs.append(divmod(pair, len(EXPANSIONS)))
            blocks = pairs[BLOCKS - DEPTHS[depth] :][::-1] + pairs[: BLOCKS - DEPTHS[depth]]
            units.append((blocks, depth))
        if number:
            raise BadInput(f"{self.name} numbers its architectures from 0 to {self.root.size - 1}.")
        flat = [block for blocks, _ in reversed(units) for block in blocks]
        return (*(k for k, _ in flat), *(e for _, e in flat), *(depth for _, depth in reversed(units)))

    def format(self, arch: Arch) -> str:
        """`ks=7 e=6 d=4` where all are equal, else the lists: `ks=3,5,... e=3,3,... d=2,4,4,3,2`."""
        words, rest = [], list(arch)
        for key, (count, values) in LISTS.items():
            mine, rest = [str(values[o]) for o in rest[:count]], rest[count:]
            words.append(f"{key}={','.join(mine if len(set(mine)) > 1 else mine[:1])}")
        return " ".join(words)

    def parse(self, text: str) -> Arch:
        """The architecture of a text form or a number; a single value stands for all of its list."""
        if text.isdecimal():
            return super().parse(text)
        words = [word.partition("=") for word in text.split()]
        lists = {key: inside.split(",") for key, _, inside in words}
        expected = f"a number below {self.root.size} or a form like 'ks=7 e=6 d=4', one value for all or a list"
        if sorted(key for key, _, _ in words) != sorted(LISTS):
            raise BadInput(f"Cannot read the {self.name} architecture {text!r}; expected {expected}.")
        arch: list[int] = []
        for key, (count, values) in LISTS.items():
            given = lists[key] * count if len(lists[key]) == 1 else lists[key]
            if len(given) != count:
                raise BadInput(f"{key} of {text!r} has {len(given)} values; expected {count}, or one for all.")
            for value in given:
                if value not in map(str, values):
                    raise BadInput(f"{key}={value} does not fit; expected values of {', '.join(map(str, values))}.")
            arch += [values.index(int(value)) for value in given]
        return tuple(arch)

    def encode(self, arch: Arch) -> list[int]:
        """One-hot kernel size and expansion ratio of each of the 20 places, zeros where there is no block: [120]."""
        code = [0] * (6 * UNITS * BLOCKS)
        for i, k, e in self.blocks(arch):
            code[6 * i + k] = code[6 * i + 3 + e] = 1
        return code

    # ------------------------------------------------------------------ networks

    def supernet(self) -> torch.nn.Module:
        from nasbench_mobile.mobilenet_v3_supernet import Supernet

        return Supernet(self)

    def build(self, arch: Arch) -> torch.nn.Module:
        from nasbench_mobile.mobilenet_v3_networks import Network

        return Network(self, arch)
