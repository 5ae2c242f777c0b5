"""The rules for search spaces."""

from __future__ import annotations

import random
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nasbench.plugins import build
from nasbench.testing.check import require
from nasbench.testing.suite import Suite

if TYPE_CHECKING:
    from nasbench.space import Arch, SearchSpace


class SpaceSuite(Suite):
    """The rules for search spaces."""

    @cached_property
    def space(self) -> SearchSpace:
        """The space at the size of the preset test."""
        from nasbench.recipe import preset_values

        return build(self.cls, self.name, preset_values(self.cls, self.name, "test", self.name).get(self.name, {}))

    def some(self, space: SearchSpace) -> list[Arch]:
        """The first and the last architecture and some between."""
        rng = random.Random(0)
        ends = [tuple(options[i] for options in space.options) for i in (0, -1)]
        return [*ends, *(space.sample(rng) for _ in range(20))]

    def check_moves_stay_inside(self) -> None:
        part = self.space.restrict({d: o[::2] for d, o in zip(self.space.decisions, self.space.options, strict=True)})
        for space, rng in ((self.space, random.Random(1)), (part, random.Random(2))):
            where = f"(choices restricted to {dict(space.allowed)})" if space.allowed else ""
            count = sum(len(options) - 1 for options in space.options)
            for a in self.some(space):
                require(a in space, f"Let sample stay among the options; {a} is outside {where}.")
                b, near = space.sample(rng), list(space.neighbours(a))
                child = space.crossover(a, b, rng)
                inherited = all(c in pair for c, *pair in zip(child, a, b, strict=True))
                require(
                    child in space and inherited,
                    f"Let crossover take each decision from a parent; {a} and {b} gave {child} {where}.",
                )
                for other in [*near, *([space.mutate(a, rng)] if count else [])]:
                    changed = sum(x != y for x, y in zip(a, other, strict=True))
                    require(
                        other in space and changed == 1,
                        f"Let mutate and neighbours change exactly one decision; {a} became {other} {where}.",
                    )
                require(len(set(near)) == len(near) == count, f"Let neighbours give each of the {count} once {where}.")

    def check_text_and_numbers_go_there_and_back(self) -> None:
        for arch in self.some(self.space):
            text, number = self.space.format(arch), self.space.number(arch)
            back = self.space.parse(text)
            require(back == arch, f"Let parse invert format: {arch} became {text!r} became {back}.")
            back = self.space.from_number(number)
            require(back == arch, f"Let from_number invert number: {arch} became {number} became {back}.")

    def check_costs_are_those_of_the_network(self) -> None:
        for arch in self.some(self.space):
            cost, real = self.space.cost(arch), count_costs(self.space, arch)
            for name, value in real.items():
                got, text = cost.get(name), self.space.format(arch)
                require(got == value, f"Let cost({text!r}) give {name} = {value}, as build makes it; it says {got}.")
                low, high = self.space.cost_range(name)
                require(low <= value <= high, f"Widen cost_range({name!r}): {text!r} has {value}, not {low} to {high}.")

    def check_supernet_gives_logits_and_gradients(self) -> None:
        import torch

        archs, (net, images) = self.some(self.space)[:4], self.supernet()
        logits = net(images, archs)
        shape = (len(archs), len(images), self.space.classes)
        require(logits.shape == shape, f"Let the supernet give logits [n,B,K] = {shape}, not {tuple(logits.shape)}.")
        require(logits.isfinite().all(), "Let a fresh supernet give finite logits.")
        labels = torch.arange(len(archs) * len(images)) % self.space.classes
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels).backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        require(any(g.any() for g in gradients), "Let gradients reach the supernet's parameters.")
        require(all(g.isfinite().all() for g in gradients), "Let a fresh supernet give finite gradients.")

    def check_a_subnet_is_the_same_alone_and_among_others(self) -> None:
        import torch

        a, b, c = self.some(self.space)[:3]
        net, images = self.supernet()
        net.eval()
        alone, among = net(images, [c])[0], net(images, [a, c, b])[1]
        require(torch.allclose(alone, among, atol=1e-4), "Take batch statistics per subnet: others changed its logits.")

    def check_a_supernet_is_made_by_the_seed_alone(self) -> None:
        random.seed(1)
        one = self.supernet()[0].state_dict()
        random.seed(2)
        two = self.supernet()[0].state_dict()
        same = one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one)
        require(same, "Initialise the supernet from torch's generator alone: equal seeds gave other weights.")

    def supernet(self) -> tuple[Any, Any]:
        """A supernet, made with one seed, and six images [6,C,H,W]."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.space.supernet(), torch.randn(6, *self.space.image)


def count_costs(space: SearchSpace, arch: Arch) -> dict[str, int]:
    """Costs by looking at the network: its parameters, and the products of its convolutions, linear layers and
    matrix products. A convolution that is no layer, as pooling may be computed, is none of them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    net, counter = space.build(arch).eval(), FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        net(torch.zeros(2, *space.image))  # two: batch statistics of one image may not exist
    layers = {n: m for n, m in net.named_modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)}
    counts, convolution = counter.get_flop_counts(), torch.ops.aten.convolution
    flops = sum(count for op, count in counts["Global"].items() if op != convolution)
    flops += sum(counts.get(f"{type(net).__name__}.{name}", {}).get(convolution, 0) for name in layers)
    return {
        "params": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "conv_weights": sum(layer.weight.numel() for layer in layers.values() if layer.weight.requires_grad),
        "madds": flops // 4,  # of two images, a multiply-add being two
    }
