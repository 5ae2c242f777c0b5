"""What a network may cost: `keep=0.4`, `madds=300M`, `params=2.5M`, `latency.raspi4=12ms`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from nasbench.errors import BadInput, unknown

UNITS = {"G": Decimal(10**9), "M": Decimal(10**6), "K": Decimal(10**3), "": Decimal(1)}
#: What a budget may limit, with an example.
NAMES = {"keep": "keep=0.4", "madds": "madds=300M", "params": "params=2.5M"}
#: What was measured on a device may be limited too, where `Budget.parse_cost` reads the text.
MEASURED = {"latency": "ms", "energy": "mJ"}


class Budget(NamedTuple):
    """A limit: `keep` is the share of a layer's channels, `madds` and `params` are those of the network.

    >>> Budget.parse("madds=300M")
    Budget(name='madds', value=300000000.0)
    >>> str(Budget.parse("keep=.40")), str(Budget("params", 2.5e6))
    ('keep=0.4', 'params=2.5M')
    """

    name: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget. Raises BadInput for another name, a value that is no number, or one out of range."""
        name, _, number = text.strip().partition("=")
        match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([KMG]?)", number.strip())
        if name not in NAMES:
            raise unknown("budget", name, NAMES)
        if not match or (name == "keep" and match[2]):
            raise BadInput(f"Cannot read the budget {text!r}; write it like {NAMES[name]}.")
        value = float(Decimal(match[1]) * UNITS[match[2]])
        if value <= 0 or (name == "keep" and value > 1):
            raise BadInput(
                f"The budget {text!r} does not fit: expected {'0 < keep <= 1' if name == 'keep' else 'more than 0'}."
            )
        return cls(name, value)

    @classmethod
    def parse_cost(cls, text: str) -> Budget:
        """Read what a whole network may cost: `madds`, `params`, `latency.DEVICE` in ms or `energy.DEVICE` in mJ.

        >>> Budget.parse_cost("latency.raspi4=12ms"), str(Budget.parse_cost("energy.eyeriss=.50 mJ"))
        (Budget(name='latency.raspi4', value=12.0), 'energy.eyeriss=0.5mJ')
        """
        name, _, number = (part.strip() for part in text.partition("="))
        kind, _, device = name.partition(".")
        if kind not in MEASURED:
            if name in ("madds", "params"):
                return cls.parse(text)
            raise unknown("cost", name, ["madds", "params", *(f"{kind}.DEVICE" for kind in MEASURED)])
        unit = MEASURED[kind]
        match = re.fullmatch(rf"(\d+(?:\.\d*)?|\.\d+)\s*{unit}", number)
        if not match or not device or float(match[1]) <= 0:
            raise BadInput(f"Cannot read the budget {text!r}; write it like {kind}.raspi4=12{unit}.")
        return cls(name, float(match[1]))

    def __str__(self) -> str:
        measured = MEASURED.get(self.name.partition(".")[0])
        if measured:
            return f"{self.name}={Decimal(repr(self.value)).normalize():f}{measured}"
        value = Decimal(repr(self.value))
        unit = next((unit for unit, size in UNITS.items() if value >= size), "")
        return f"{self.name}={(value / UNITS[unit]).normalize():f}{unit}"


class Window(NamedTuple):
    """What a whole network may cost: at most so much, and at least.

    >>> str(Window.parse("madds=.3G..330M")), str(Window.parse("latency.raspi4=12 ms"))
    ('madds=300M..330M', 'latency.raspi4=12ms')
    """

    most: Budget
    least: Budget | None = None

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read a limit or, with two dots, a window. Raises BadInput for what is neither, and for an empty window."""
        name, _, values = text.partition("=")
        low, dots, high = values.rpartition("..")
        most = Budget.parse_cost(f"{name}={high}" if dots else text)
        least = Budget.parse_cost(f"{name}={low}") if dots else None
        if least is not None and least.value > most.value:
            raise BadInput(f"Nothing is within {text!r}: write the smaller value first.")
        return cls(most, least)

    def holds(self, cost: float | None) -> bool:
        """Whether a cost lies within; one that is not known does not."""
        return cost is not None and (self.least is None or self.least.value <= cost) and cost <= self.most.value

    def __str__(self) -> str:
        most = str(self.most)
        return most if self.least is None else f"{self.least}..{most.partition('=')[2]}"
