"""The conformance suite: what every plugin must do, ours and yours.

    @pytest.mark.parametrize("check", nasbench.testing.checks("modifier", "warmup"), ids=str)
    def test_warmup(check):
        check()

`nasbench check warmup` does the same on the command line. Everything runs at the preset `test`, in seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import random
import tempfile
from collections.abc import Callable, Generator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from nasbench import hookimpl
from nasbench.errors import BadInput
from nasbench.hookspecs import CALLS
from nasbench.plugins import Plugin, build, compose, discover, load

if TYPE_CHECKING:
    from nasbench.records import Choice, Metric
    from nasbench.run import Run
    from nasbench.space import Arch, SearchSpace


class Failure(AssertionError):
    """A plugin does not keep a rule; the message tells its author what to do."""


class Check(NamedTuple):
    """One rule for one plugin: call it, and it raises where the rule is not kept."""

    title: str
    run: Callable[[], object]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.title

    def problem(self) -> str | None:
        """What is wrong, or None."""
        try:
            self.run()
        except (Failure, BadInput) as error:
            return str(error)
        except Exception as error:  # a plugin may break in any way
            return f"{type(error).__name__}: {error}"
        return None


def checks(kind: str, name: str) -> list[Check]:
    """Every check of a registered method, modifier, space or evaluator; nothing is imported before one is called."""
    suite = SUITES[kind](kind, name)
    found = [n for cls in reversed(type(suite).__mro__) for n in vars(cls) if n.startswith("check_")]
    return [Check(n.removeprefix("check_").replace("_", " "), getattr(suite, n)) for n in found]


def require(condition: object, instruction: str) -> None:
    """Fail with an instruction to the author unless the condition holds."""
    if not condition:
        raise Failure(instruction)


# ---------------------------------------------------------------------- observers of a trial


class Witness:
    """Sees a whole run, and puts every bit of what was learnt into its record."""

    run: Run
    choices: list[Choice]
    own: list[Metric]
    """What the plugin itself reports."""
    record: dict[str, Any]

    def __init__(self, plugin: str, label: str, space: str) -> None:
        self.plugin, self.label, self.space = plugin, label, space

    @hookimpl(wrapper=True)
    def evaluate(self, run: Run, choices: list[Choice]) -> Generator[None, Any, Any]:
        from nasbench.records import Metric
        from nasbench.stages import pack

        answers = yield
        self.run, self.choices = run, choices
        mine = [i for i in run.hook.evaluate.get_hookimpls() if i.plugin_name == self.plugin and not i.wrapper]
        given = {"run": run, "choices": choices}
        self.own = [metric for i in mine for metric in i.function(*(given[name] for name in i.argnames)) or ()]
        nets = [None if r.net is None else r.net.state_dict() for r in (run, *run.parts.values())]
        digest = hashlib.blake2b(pack([nets, run.scores, *(p.state_dict(run) for p in run.plugins.values())]))
        bits = Metric(name="learnt", value=int(digest.hexdigest()[:12], 16), definition="weights, scores, state")
        # A number that JSON cannot hold is for the check of metrics to report: here it must not stop the run.
        return [*([_without_nan(metric) for metric in answer] for answer in answers), [bits]]


def _finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)


def _without_nan(metric: Metric) -> Metric:
    return metric.model_copy(update={k: None for k in ("value", "low", "high") if not _finite(getattr(metric, k))})


class Killed(BaseException):
    """The end of a process, inside a test."""


class Killer:
    """Ends a run at one of its steps."""

    def __init__(self, at: int) -> None:
        self.left = at

    @hookimpl
    def progress(self) -> None:
        self.left -= 1
        if not self.left:
            raise Killed


class Forbidden:
    """Stands where the test images were."""

    def __getattr__(self, name: str) -> Any:
        raise Failure("Leave run.data.test alone while searching; evaluators may use it.")

    def __len__(self) -> int:
        raise Failure("Leave run.data.test alone while searching; evaluators may use it.")


class Guard:
    """Takes the test images and the table's test results away while a search runs."""

    @hookimpl(wrapper=True)
    def search(self, run: Run) -> Generator[None, Any, Any]:
        images, run.data.test = run.data.test, Forbidden()  # type: ignore[assignment]
        columns = run.truth.columns if run.truth else {}
        kept = dict(columns)
        for column in kept:
            if column.split == "test":
                del columns[column]
        try:
            return (yield)
        finally:
            run.data.test = images
            columns.clear()
            columns.update(kept)  # in the old order


# ---------------------------------------------------------------------- suites


class Suite:
    """The rules for every kind of plugin."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        self.registered = name if kind in ("method", "modifier") else f"{kind} {name}"

    @cached_property
    def cls(self) -> type[Plugin]:
        return load(self.kind, self.name)

    def labels(self) -> list[str]:
        """Compositions to try the plugin in."""
        if self.kind == "method":
            return [self.name]
        return [f"{m}+{self.name}" if self.kind == "modifier" else m for m in discover("method")]

    def spaces(self) -> list[str]:
        """Spaces to try the plugin on, the smallest first."""
        sizes = {}
        for name in [self.name] if self.kind == "space" else discover("space"):
            with contextlib.suppress(*([] if self.kind == "space" else [Exception])):  # somebody else's may be broken
                sizes[name] = build(load("space", name), name, {}).size
        return sorted(sizes, key=lambda name: (sizes[name], name))

    @cached_property
    def first(self) -> Witness:
        """The first composition and space that do not refuse, and what a run there left."""
        build(self.cls, self.name, {})
        reasons = []
        for space in self.spaces():
            for label in self.labels():
                try:
                    witness = self.trial(label, space)
                except BadInput as error:
                    reasons.append(f"{label} on {space}: {error}")
                    continue
                if self.kind != "evaluator" or witness.own:
                    return witness
                reasons.append(f"{label} on {space}: it reports no metric.")
        raise Failure(
            f"Let {self.name} run on at least one installed space at the preset test; a space needs presets/NAME.yaml "
            f"with `test:` beside its module. Tried: {' '.join(reasons[:4]) or 'nothing, there is no method or space.'}"
        )

    @property
    def place(self) -> tuple[str, str]:
        """The composition and the space of the first run."""
        return self.first.label, self.first.space

    def trial(
        self, label: str, space: str, *observers: Any, seed: int = 0, noise: int = 0, folder: str = "", **engine: Any
    ) -> Witness:
        """One run; `noise` seeds every global generator before it."""
        import numpy as np
        import torch

        from nasbench.recipe import resolve
        from nasbench.run import execute

        witness = Witness(self.registered, label, space)
        recipe = resolve(label, space, preset="test", seed=seed, sets={"engine": engine})
        for seed_globally in (random.seed, np.random.seed, torch.manual_seed):
            seed_globally(noise)
        with contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory() as runs:
            witness.record, _ = execute(recipe, Path(runs), observers=[witness, *observers])
        return witness

    def same(self, other: Witness, instruction: str) -> None:
        """Require the record of the first run."""
        from nasbench import records

        def flat(record: dict[str, Any]) -> dict[str, Any]:
            results = list(enumerate(record["results"]))
            return {f"result {i}": {**r, "metrics": None} for i, r in results} | {
                f"{m['name']} of result {i}": m for i, r in results for m in r["metrics"]
            }

        a, b = flat(self.first.record), flat(other.record)
        names = ", ".join(n for n in a | b if a.get(n) != b.get(n))
        require(records.equal(self.first.record, other.record), f"{instruction} Different: {names or 'the recipe'}.")

    # ------------------------------------------------------------------ rules

    def check_runs_at_the_preset_test(self) -> None:
        first = self.first
        require(first.choices, "Return at least one Choice from search or select.")
        for choice in first.choices:
            require(
                choice.arch in first.run.space,
                f"Choose architectures of run.space, as tuples; {choice.arch!r} is none.",
            )

    def check_options_are_described_and_their_defaults_valid(self) -> None:
        for name, field in self.cls.model_fields.items():
            require(field.description, f"Write a docstring below the option {name}; `nasbench config` shows it.")
        made = build(self.cls, self.name, {})
        build(self.cls, self.name, made.model_dump(warnings=False))  # pydantic takes defaults unseen

    def check_same_seed_same_record(self) -> None:
        self.same(self.trial(*self.place), "Keep no state outside the instance: a second run gave another record.")

    def check_record_survives_json(self) -> None:
        from nasbench import records

        record = self.first.record
        require(
            json.loads(records.dumps(record)) == record,
            "Put only strings, numbers, lists and dictionaries into scenarios and metrics: JSON changed the record.",
        )

    def check_metrics_are_defined_and_finite(self) -> None:
        for metric in self.first.own:
            about = f"the metric {metric.name!r}"
            require(metric.name.strip() and metric.definition.strip(), f"Give {about} a name and a definition.")
            for value in (metric.value, metric.low, metric.high):
                require(_finite(value), f"Report None where {about} is undefined; it was {value}.")


class TermSuite(Suite):
    """The rules for methods, and for modifiers on the first method that composes."""

    def check_global_random_state_does_not_matter(self) -> None:
        self.same(
            self.trial(*self.place, noise=1),
            "Draw from run.rng(purpose) or run.generator(purpose), never from random, numpy or torch themselves.",
        )

    def check_another_seed_another_random_stream(self) -> None:
        from nasbench import stages

        place, drawn = self.place, []
        for seed in (0, 1):
            with mock.patch.object(stages, "stream", wraps=stages.stream) as spy:
                self.trial(*place, seed=seed)
            drawn.append({str(call.args) for call in spy.call_args_list if call.args[0] != "subset"})
        both = ", ".join(sorted(drawn[0] & drawn[1])[:3])
        require(
            not both, f"Use run.rng(purpose), or name a stream by run.recipe.seed too: every seed draws from {both}."
        )

    def check_killed_and_resumed_same_record(self) -> None:
        place = self.place
        with tempfile.TemporaryDirectory() as runs:
            for at in itertools.count(2):  # each time a step more, so that every run gets further
                with contextlib.suppress(Killed):
                    resumed = self.trial(*place, Killer(at), folder=runs, checkpoint_seconds=0)
                    break
        self.same(
            resumed,
            "Return from state_dict whatever lives from step to step, and take it back in load_state_dict: "
            "a run that was killed and went on gave another record.",
        )

    def check_composes_or_refuses_in_a_sentence(self) -> None:
        from nasbench.recipe import resolve
        from nasbench.run import prepare

        first = self.first
        labels = [f"{first.label}+{m}" for m in discover("modifier") if m not in first.label.split("+")]
        for label in labels + self.labels():
            try:
                prepare(resolve(label, first.space, preset="test"), Path(tempfile.gettempdir()))
            except BadInput as error:
                sentence = str(error).strip()
                require(sentence and "\n" not in sentence, f"Refuse {label} in one sentence, not with {sentence!r}.")
            except Exception as error:
                how = f"it broke ({type(error).__name__}: {error})"
                raise Failure(f"Answer refuse(run) with a sentence where {label} cannot run; {how}.") from error

    def check_calls_what_it_declares(self) -> None:
        place, called = self.place, set[str]()
        running: list[str | None] = []  # the hooks being called; None where another plugin answers

        def before(hook_name: str, hook_impls: Any, kwargs: Any) -> None:
            if running and running[-1] not in (None, hook_name):  # train that calls a part's train hands on
                called.add(hook_name)
            mine = any(i.plugin_name == self.name and not i.wrapper for i in hook_impls)
            running.append(hook_name if mine and hook_name in CALLS else None)

        def after(*_: Any) -> None:
            running.pop()

        def watched(*args: Any) -> Any:
            manager = compose(*args)
            manager.add_hookcall_monitoring(before, after)
            return manager

        with mock.patch("nasbench.run.compose", watched):  # parts of a run compose anew
            self.trial(*place)
        called &= set().union(*CALLS.values())
        for name in sorted(called - self.cls.calls):
            raise Failure(f"Add {name!r} to `calls`: the plugin calls it, so what changes it may be added.")
        for name in sorted(self.cls.calls - called):
            raise Failure(f"Take {name!r} out of `calls`, or call it: what changes it would be added in vain.")

    def check_search_reads_no_test_results(self) -> None:
        place = self.place  # it runs where nothing is guarded
        try:
            self.trial(*place, Guard())
        except Failure:
            raise
        except Exception as error:
            raise Failure(f"Search on training and validation results; without the test's it broke: {error}") from error


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
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.space.supernet(), torch.randn(6, *self.space.image)


def count_costs(space: SearchSpace, arch: Arch) -> dict[str, int]:
    """Costs by looking at the network: its parameters, and what its convolutions and linear layers multiply."""
    import torch

    net, madds = space.build(arch).eval(), 0

    def count(module: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal madds
        madds += output.numel() * module.weight[0].numel()

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(torch.zeros(2, *space.image))  # two: batch statistics of one image may not exist
    parameters = [p for p in net.parameters() if p.requires_grad]
    weights = sum(p.numel() for p in parameters if p.ndim > 1)
    return {"params": sum(p.numel() for p in parameters), "conv_weights": weights, "madds": madds // 2}


SUITES: dict[str, type[Suite]] = {
    "method": TermSuite,
    "modifier": TermSuite,
    "space": SpaceSuite,
    "evaluator": Suite,
}
