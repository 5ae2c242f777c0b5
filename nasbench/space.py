"""What a search space is: ordered decisions with options, costs, networks and, where known, ground truth."""

from __future__ import annotations

import itertools
import math
import operator
import random
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from pydantic import Field

from nasbench.errors import BadInput
from nasbench.plugins import Plugin

if TYPE_CHECKING:
    import torch

    from nasbench.drawing import Graph, Layer
    from nasbench.tables import Table

#: One architecture: for each decision, in order, the index of its option.
Arch: TypeAlias = tuple[int, ...]
#: A relaxed architecture: for each decision of `SearchSpace.relaxed` one weight per option, tensors of shape [options].
Mixture: TypeAlias = "list[torch.Tensor]"


class SearchSpace(Plugin):
    """Base of every search space. A subclass gives `choices`, `cost`, `supernet` and `build`.

    An architecture is a tuple of option indices, one per decision (`Arch`). Methods ask the space what it
    can do and never which space it is.
    """

    name: ClassVar[str]
    static: ClassVar[bool] = False
    """Whether the supernet has a pass that is the same whatever the subnets are (see `nasbench.static`)."""

    classes: int = Field(10, ge=2)
    """Classes of the dataset; a run takes it from its dataset."""
    image: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width of an image; a run takes it from its dataset."""
    allowed: dict[str, list[int]] = Field(default_factory=dict, exclude=True)
    """Decisions restricted to some of their options (see `restrict`)."""

    # ------------------------------------------------------------------ what a subclass gives

    @property
    @abstractmethod
    def choices(self) -> dict[str, tuple[str, ...]]:
        """The decisions in order, each with the names of its options."""

    @abstractmethod
    def cost(self, arch: Arch) -> dict[str, int]:
        """`params` (trainable, of the inference network), `conv_weights` (convolutions and linear layers
        alone, no bias or batch norm) and `madds` (multiply-adds of one image) of an architecture."""

    @abstractmethod
    def supernet(self) -> torch.nn.Module:
        """A fresh weight-sharing network, called as `net(images [B,C,H,W], archs) -> logits [n,B,K]`."""

    @abstractmethod
    def build(self, arch: Arch) -> torch.nn.Module:
        """The stand-alone network of an architecture: images [B,C,H,W] -> logits [B,K].

        It may have, for those that train it, an attribute `drop_path`, the share of paths left out in training (the
        space then has an option of that name), and, where the space's option `auxiliary` is on, a method
        `with_auxiliary(images)` -> logits and those of an auxiliary head, both [B,K].
        """

    def ground_truth(self, target: str) -> Table | None:
        """The table of true accuracies for a target dataset, or None where none is known."""
        return None

    def targets(self) -> list[str]:
        """Datasets for which the space may have ground truth, at hand or to be added."""
        return []

    def read_ground_truth(self, path: Path) -> Table:
        """The table of a file that `nasbench data add SPACE FILE` is given. Raises BadInput if it is not right."""
        raise BadInput(f"The space {self.name} knows no form of ground truth to read {path} as.")

    # ------------------------------------------------------------------ relaxing

    @property
    def relaxed(self) -> dict[str, tuple[str, ...]]:
        """The decisions that a mixture weighs, in order, with their options; here `choices`, and none where the
        supernet takes single architectures only.

        An edge of a cell is named `target<-source`, so that a method can tell which edges meet in a node.
        """
        return self.choices

    def discretize(self, weights: Mixture) -> Arch:
        """The architecture that a mixture leans to; here the heaviest option of each decision."""
        return tuple(int(w.argmax()) for w in weights)

    # ------------------------------------------------------------------ sampling and moving about

    @cached_property
    def decisions(self) -> tuple[str, ...]:
        """Names of the decisions, in order."""
        return tuple(self.choices)

    @cached_property
    def options(self) -> tuple[tuple[int, ...], ...]:
        """The option indices each decision may take, restrictions applied."""
        return tuple(tuple(self.allowed.get(d, range(len(names)))) for d, names in self.choices.items())

    @property
    def size(self) -> int:
        """Number of architectures, exactly."""
        return math.prod(map(len, self.options))

    def __contains__(self, arch: object) -> bool:
        return (
            isinstance(arch, tuple)
            and len(arch) == len(self.options)
            and all(map(operator.contains, self.options, arch))  # asked for every subnet of a step
        )

    def architectures(self) -> Iterator[Arch]:
        """All architectures, the first decision most significant."""
        return itertools.product(*self.options)

    def sample(self, rng: random.Random) -> Arch:
        """One architecture, every option of every decision equally likely."""
        return tuple(rng.choice(options) for options in self.options)

    def mutate(self, arch: Arch, rng: random.Random) -> Arch:
        """A copy with exactly one decision changed to another option."""
        i = rng.choice([i for i, options in enumerate(self.options) if len(options) > 1])
        return self.replace(arch, i, rng.choice([o for o in self.options[i] if o != arch[i]]))

    def crossover(self, a: Arch, b: Arch, rng: random.Random) -> Arch:
        """Each decision from one of two parents, equally likely."""
        return tuple(rng.choice(pair) for pair in zip(a, b, strict=True))

    def neighbours(self, arch: Arch) -> Iterator[Arch]:
        """Every architecture that differs in exactly one decision."""
        for i, options in enumerate(self.options):
            yield from (self.replace(arch, i, o) for o in options if o != arch[i])

    @staticmethod
    def replace(arch: Arch, decision: int, option: int) -> Arch:
        """A copy with one decision set."""
        return (*arch[:decision], option, *arch[decision + 1 :])

    def restrict(self, allowed: dict[str, Sequence[int]]) -> SearchSpace:
        """The part of the space where the named decisions take only these option indices."""
        now = dict(zip(self.decisions, self.options, strict=True))
        for decision, options in allowed.items():
            if not options or not set(options) <= set(now.get(decision, ())):
                raise BadInput(f"{self.name} has no decision {decision!r} with options {list(options)}.")
        return self.with_(allowed={**self.allowed, **{d: sorted(set(o)) for d, o in allowed.items()}})

    @property
    def root(self) -> SearchSpace:
        """The same space without restrictions."""
        return self.with_(allowed={})

    def with_(self, **changes: Any) -> Any:
        """A copy with some fields changed and checked again."""
        return type(self).model_validate({**self.model_dump(), "allowed": self.allowed, **changes})

    # ------------------------------------------------------------------ text and numbers

    def format(self, arch: Arch) -> str:
        """The text form of an architecture; a space with a form of its own in the field overrides it."""
        return " ".join(f"{d}={names[o]}" for (d, names), o in zip(self.choices.items(), arch, strict=True))

    def parse(self, text: str) -> Arch:
        """The architecture of a text form or of its number. Raises BadInput with what was expected."""
        size = self.root.size
        if text.isdecimal() and len(text) <= len(str(size)) and int(text) < size:
            return self.from_number(int(text))
        words = dict(word.partition("=")[::2] for word in text.split())
        missing = any(words.get(d) not in names for d, names in self.choices.items())
        if missing or len(text.split()) != len(self.choices):
            example = self.format(tuple(0 for _ in self.choices))
            raise BadInput(
                f"Cannot read the {self.name} architecture {text!r}; "
                f"expected a number below {size} or a form like {example!r}."
            )
        return tuple(names.index(words[d]) for d, names in self.choices.items())

    def graphs(self, arch: Arch) -> list[Graph]:
        """The cells of an architecture, to be drawn; here none, as of a network that is a `chain`."""
        return []

    def chain(self, arch: Arch) -> list[Layer]:
        """The layers of an architecture in order, to be drawn; here the decisions, widths with their share."""
        from nasbench.drawing import Layer

        found = []
        for (name, options), option in zip(self.choices.items(), arch, strict=True):
            widths = [int(o) for o in options if o.isdecimal()]
            size = widths[option] / max(widths) if len(widths) == len(options) else None
            found.append(Layer(name, options[option], size))
        return found

    def canonical(self, arch: Arch) -> Hashable:
        """A form that is equal for architectures that compute the same; here the architecture itself."""
        return arch

    def number(self, arch: Arch) -> int:
        """The place of an architecture among all: a mixed-radix number, first decision most significant."""
        value = 0
        for option, names in zip(arch, self.choices.values(), strict=True):
            value = value * len(names) + option
        return value

    def from_number(self, number: int) -> Arch:
        """The architecture at a place; the inverse of `number`."""
        digits = []
        for names in reversed(self.choices.values()):
            number, digit = divmod(number, len(names))
            digits.append(digit)
        if number:
            raise BadInput(f"{self.name} numbers its architectures from 0 to {self.root.size - 1}.")
        return tuple(reversed(digits))

    def cost_range(self, name: str) -> tuple[int, int]:
        """Exact smallest and largest value of a cost over the whole space, restrictions ignored.

        Here by looking at every architecture; a space too large for that overrides it.
        """
        values = [self.cost(arch)[name] for arch in self.root.architectures()]
        return min(values), max(values)
