"""What each hook must answer, checked where it is answered, so that a slip ends in one sentence that names the plugin.

Otherwise it ends elsewhere, deep in torch or in a loop that the plugin's author never saw.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Generator
from functools import partial
from itertools import takewhile
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from nasbench import hookimpl
from nasbench.data import Batch
from nasbench.errors import BadInput
from nasbench.records import Choice, Metric

if TYPE_CHECKING:
    from pluggy import HookImpl

    from nasbench.running import Run
    from nasbench.space import Arch, Mixture

Around: TypeAlias = Generator[None, Any, Any]


def checked(hook: str, good: Callable[[Any], bool], wanted: str) -> Any:
    """A wrapper around a hook whose answer says by itself whether it is good."""

    def around(self: Answers, run: Run) -> Around:
        answer = yield
        return self.expect(run, hook, answer, good(answer), wanted)

    return hookimpl(wrapper=True)(around)


def are(kinds: type | tuple[type, ...], answer: Any) -> bool:
    """Whether it is a list of these."""
    return isinstance(answer, list) and all(isinstance(item, kinds) for item in answer)


def given(answer: Any) -> bool:
    """Whether there is one."""
    return answer is not None


class Answers:
    """Around what all plugins of a run make of an answer; it looks at types and shapes alone, never at a device.

    A hook of a step is asked a thousand times a second: all checks of a step take some ten microseconds.
    """

    priority = 999
    """Inside our own wrappers of a run, which rely on the answers."""

    search = checked("search", partial(are, Choice), "a list of Choice")
    train = checked("train", given, "True")
    build_supernet = checked("build_supernet", lambda net: isinstance(net, torch.nn.Module), "a torch.nn.Module")
    make_optimizer = checked(
        "make_optimizer", lambda made: isinstance(made, torch.optim.Optimizer), "a torch.optim.Optimizer"
    )
    next_batch = checked("next_batch", lambda batch: isinstance(batch, Batch), "a nasbench.data.Batch")
    prepare_batch = checked("prepare_batch", lambda batch: isinstance(batch, Batch), "a nasbench.data.Batch")
    train_step = checked("train_step", given, "True")
    update = checked("update", given, "True")
    select = checked("select", partial(are, Choice), "a list of Choice")

    @hookimpl(wrapper=True)
    def score(self, run: Run, archs: list[Arch]) -> Around:
        scores, n = (yield), len(archs)
        good = are((float, int), scores) and len(scores) == n
        return self.expect(run, "score", scores, good, f"a list of {n} Python numbers, one for each architecture")

    @hookimpl(wrapper=True)
    def evaluate(self, run: Run) -> Around:
        answers = yield
        for i, answer in enumerate(answers if isinstance(answers, list) else [answers]):
            self.expect(run, "evaluate", answer, are(Metric, answer), "a list of Metric", i, len(answers or ()))
        return answers

    @hookimpl(wrapper=True)
    def sample_archs(self, run: Run) -> Around:
        archs: list[Arch] | list[Mixture] = yield
        # What is no tuple is a mixture, whose form is between the method and the supernet.
        space = run.space
        good = isinstance(archs, list) and archs and all(a in space for a in archs if isinstance(a, tuple))
        wanted = "a list of at least one architecture of the space, each a tuple of option indices, or of mixtures"
        return self.expect(run, "sample_archs", archs, good, wanted)

    @hookimpl(wrapper=True)
    def learning_rates(self, run: Run, archs: list[Arch]) -> Around:
        rates, n = (yield), len(archs)
        good = are((float, int, Real), rates) and len(rates) == n and all(map(math.isfinite, rates))
        return self.expect(run, "learning_rates", rates, good, f"a list of {n} finite numbers, one for each subnet")

    @hookimpl(wrapper=True)
    def compute_loss(self, run: Run, logits: torch.Tensor) -> Around:
        losses, n = (yield), len(logits)
        good = isinstance(losses, torch.Tensor) and losses.shape == (n,)
        return self.expect(run, "compute_loss", losses, good, f"a tensor of shape [{n}], one loss for each subnet")

    # ------------------------------------------------------------------ what is said

    def expect(self, run: Run, hook: str, answer: Any, good: Any, wanted: str, place: int = 0, of: int = 0) -> Any:
        """The answer, if it is good. Raises BadInput with what was wanted, and those who may have given it.

        `place` is that of the answer among `of`, where every plugin answers.
        """
        if good:
            return answer
        impls: list[HookImpl] = getattr(run.hook, hook).get_hookimpls()
        inside = [i for i in takewhile(lambda i: i.plugin is not self, impls) if i.plugin_name != "default"]
        if of and of == len(inside) and not any(i.wrapper for i in inside):  # each gave one, called from the last on
            inside = [inside[-1 - place]]
        said = f"{' or '.join(i.plugin_name for i in inside) or 'the default'} returned {shown(answer)}"
        raise BadInput(f"{hook} must return {wanted}; {said if inside or answer is not None else NOBODY}.")


#: Of a hook without a default.
NOBODY = "no plugin implements it"


def shown(answer: Any) -> str:
    """An answer on a line: a tensor by its shape, a list with its length and the types in it."""
    if isinstance(answer, torch.Tensor):
        return f"a tensor of shape {list(answer.shape)}"
    text = textwrap.shorten(repr(answer), 120, placeholder=" ...")
    if not isinstance(answer, list) or not answer:
        return text
    return f"a list of {len(answer)} ({', '.join(sorted({type(item).__name__ for item in answer}))}): {text}"
