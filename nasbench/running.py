"""One run: everything that a hook gets."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy
import torch

import nasbench.oneshot
from nasbench import records, static
from nasbench.answers import Answers
from nasbench.data import Data
from nasbench.distributed import Share, processes, same, together
from nasbench.errors import BadInput
from nasbench.files import waited_for
from nasbench.limits import Cost, limits
from nasbench.machine import described, peak_memory
from nasbench.optimizers import WarmUp
from nasbench.plugins import answerer, build_terms, compose, load_evaluators
from nasbench.recipe import Recipe
from nasbench.stages import Store, python_stream, stream, torch_stream
from nasbench.subsets import resolve_subset

if TYPE_CHECKING:
    from nasbench.budget import Window
    from nasbench.space import Arch, SearchSpace
    from nasbench.static import Static
    from nasbench.tables import Table

T = TypeVar("T")


class Run:
    """Everything a hook may need: the recipe, the space, the data, the network, time and randomness."""

    recipe: Recipe
    space: SearchSpace
    """The search space, at the size that is trained."""
    data: Data
    truth: Table | None
    """Ground truth for `recipe.target`, or None where none is known."""
    device: torch.device
    hook: Any
    """Call the next hook with keyword arguments: `run.hook.score(run=run, archs=archs)`."""
    net: Any = None
    """The supernet, once `train` has built it."""
    optimizer: torch.optim.Optimizer | None = None
    """The optimizer of `net` in the running stage; a stage that trains makes its own."""
    static: Static | None = None
    """The one pass of an iteration's subnets, if `engine.static` asks for it."""
    step: int = 0
    """Index of the current step of the running stage."""
    total_steps: int = 0
    """Steps of the running stage (T)."""
    state: dict[str, Any]
    """Plain values of the running stage that a checkpoint keeps: counters, the best so far."""
    info: dict[str, Any]
    """What the running stage reports of its last step: loss, learning rate."""
    scores: dict[Arch, float]
    """What `score_subset` found."""
    queries: list[Arch]
    """What a search has looked up in the ground truth, in that order."""
    parent: Run | None = None
    """The run that this one is a part of (see `child`)."""
    parts: dict[str, Run]
    """The parts of this run, by name."""
    machines: list[str]
    """This machine, and before it those on which what is replayed or went on was done."""
    shared: list[str]
    """Stages whose result is shared with other runs."""
    finished: bool
    """Whether the run is done and only replayed: a stage that is missing is then an error."""
    forced: bool
    """Whether shared stages are done anew."""

    def __init__(
        self,
        recipe: Recipe,
        space: SearchSpace,
        data: Data,
        truth: Table | None,
        folder: Path,
        observers: Sequence[Any] = (),
    ) -> None:
        self.recipe, self.space, self.data, self.truth, self.folder = recipe, space, data, truth, folder
        self.device, self.observers = data.device, observers
        self.plugins = build_terms(recipe.method, recipe.options)
        others: dict[str, Any] = {f"observer {i}": o for i, o in enumerate(observers)}
        others |= {f"evaluator {name}": e for name, e in load_evaluators(recipe.options).items()}
        others |= {f"space {recipe.space}": space, "answers": Answers()}
        if processes() > 1:
            others["processes"] = Share()
        if recipe.train.warmup_epochs:
            others["warm-up"] = WarmUp()
        self.manager: pluggy.PluginManager = compose(self.plugins, others, nasbench.oneshot.Defaults())
        self.hook = self.manager.hook
        self.state, self.info, self.scores, self.queries, self.parts = {}, {}, {}, [], {}
        self.seconds: dict[str, float] = {}
        self.machines = [described(self.device, recipe.engine.threads)]
        self.peak = 0
        self.runs = folder.parent
        self.shared: list[str] = []
        self.finished = self.forced = False
        self._tracked: dict[str, Any] = {}
        self.scope = self._stage = ""
        self._store: Store | None = None
        self._loops = 0

    # ------------------------------------------------------------------ time

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.data.steps_per_epoch(self.recipe.train.batch_size)

    @property
    def epoch(self) -> int:
        """Index of the current epoch."""
        return self.step // self.steps_per_epoch

    @property
    def progress(self) -> float:
        """t/T of the running stage, from 0 up to but not including 1; t is the step before it is counted."""
        return self.step / self.total_steps

    # ------------------------------------------------------------------ randomness

    def rng(self, purpose: str, step: int | None = None) -> random.Random:
        """A Python generator for a purpose at a step (default: the current one). No state to save."""
        return python_stream(self.recipe.seed, self._stage, purpose, self.step if step is None else step)

    def fixed_rng(self, purpose: str) -> random.Random:
        """A Python generator for a choice made once a run, the same in every stage."""
        return python_stream(self.recipe.seed, self.scope, purpose)

    def generator(self, purpose: str, step: int | None = None) -> torch.Generator:
        """A torch generator on the CPU for a purpose at a step (default: the current one)."""
        return torch_stream(self.recipe.seed, self._stage, purpose, self.step if step is None else step)

    @contextlib.contextmanager
    def seeded(self, purpose: str) -> Iterator[None]:
        """Seed torch's global generator inside the block, and put it back: for initialising networks."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(stream(self.recipe.seed, self._stage, purpose))
            yield

    # ------------------------------------------------------------------ stages

    def stage(self, name: str, work: Callable[[], T], shared: dict[str, Any] | None = None) -> T:
        """Do a part of the run once: a finished stage is replayed, an interrupted one goes on.

        `work` returns plain values. What it leaves in `run.net` and in the plugins' state is restored too.
        A stage with `shared` is done once for all runs side by side that agree on seed, space, data, engine, files of
        `--plugin` and on these values, which are to hold whatever else `work` depends on; plugins' state is not kept
        for it.
        """
        if self._store is not None:
            raise RuntimeError(f"stage {name!r} inside stage {self._stage!r}: stages follow one another")
        if self.scope + name in self.seconds:
            raise RuntimeError(f"stage {self.scope + name!r} comes twice: each needs a name of its own")
        if shared is None:
            return self._do(self.scope + name, self.folder / "stages" / name, work)
        folder = (
            self.runs / "shared" / f"{self.recipe.space}-{name}-s{self.recipe.seed}-{self._shared_key(name, shared)}"
        )
        self.shared.append(self.scope + name)
        with waited_for(folder, f"another run that does the shared stage {name!r} in {folder}"):
            if self.forced:
                Store(folder).clear()
            return self._do(self.scope + name, folder, work)

    def _shared_key(self, name: str, values: dict[str, Any]) -> str:
        recipe = self.recipe.model_dump(mode="json", include={"seed", "data", "engine", "plugin_files"})
        one = {"processes": 1, "sync_batch_norm": False}  # what keys from before there were several lack
        engine = {k: recipe["engine"][k] for k in ("precision", "memory_format", *one)}
        recipe["engine"] = {k: v for k, v in engine.items() if v != one.get(k)}
        return records.digest(
            {
                **recipe,
                "stage": self.scope + name,
                "space": self.space.model_dump(mode="json")
                | {"name": self.recipe.space, "allowed": self.space.allowed},
                "content": self.data.content_hash,
                "values": values,
            }
        )

    def _do(self, name: str, folder: Path, work: Callable[[], T]) -> T:
        store = Store(folder)
        self._stage, self._store, self._loops = name, store, 0
        self.state, self.info, self._tracked, self.step, self.total_steps = {}, {}, {}, 0, 0
        self.seconds[name], self._began = 0.0, time.perf_counter()
        try:
            done = store.done()
            together()  # before one of several processes writes what another has yet to read
            if done is not None:
                self._restore(done)
                return done["result"]
            if self.finished:
                raise BadInput(f"{self.folder} no longer holds the stage {name!r}; run its command again first.")
            self._seed_globally(-1)
            result = work()
            same(self.net)
            self.optimizer, self.static, self._tracked = None, None, {}  # they end with their stage
            store.write("done", {"result": result, **self._snapshot()})
            return result
        finally:
            self._stage, self._store, self.step, self.total_steps = self.scope, None, 0, 0

    def steps(self, total: int) -> Iterator[int]:
        """The steps of the running stage, going on after the last checkpoint; one loop a stage.

        What a checkpoint is to restore must be there before the loop: network, optimizer, what `track` keeps.
        """
        if self._store is None or self._loops:
            raise RuntimeError("run.steps needs a stage of its own: with run.stage(name, work), one loop in work")
        self._loops, self.total_steps, start = 1, total, 0
        checkpoint = self._store.latest()
        together()
        if checkpoint is not None:
            start = checkpoint["step"]
            self.step = start - 1  # as it was left, for what reads it if no step remains
            self._restore(checkpoint)
            self._began = time.perf_counter()
        for step in range(start, total):
            self.step = step
            self._seed_globally(step)
            yield step
            self.hook.progress(run=self, stage=self._stage, done=step + 1, total=total, info=self.info)
            if step + 1 == total or (step + 1) % self.steps_per_epoch == 0:
                self._refuse_divergence()
            if time.monotonic() - self._store.last_write >= self.recipe.engine.checkpoint_seconds:
                self._store.write_step(step + 1, {"step": step + 1, **self._snapshot()})
        self._seed_globally(total)

    def _refuse_divergence(self) -> None:
        # Once an epoch, since looking at a number waits for the device.
        loss = float(self.info.get("loss", 0.0))
        if not math.isfinite(loss):
            raise BadInput(
                f"The loss is {loss} in step {self.step + 1} of {self._stage}: training has diverged; lower the rate "
                f"(train.lr = {self.recipe.train.lr:g}) or limit the gradient's norm (train.clip)."
            )

    def _seed_globally(self, step: int) -> None:
        # A network may draw from the global generator (dropout): same step, same numbers. torch.manual_seed would seed
        # every kind of device there is; those that are not in use cost a third of a millisecond a step.
        seed = stream(self.recipe.seed, self._stage, "global", step)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def track(self, name: str, thing: Any) -> Any:
        """Keep something with `state_dict` and `load_state_dict` in the checkpoints of the running stage."""
        self._tracked[name] = thing
        return thing

    def _snapshot(self) -> dict[str, Any]:
        now = time.perf_counter()
        self.seconds[self._stage] += now - self._began
        self._began = now
        self.peak = max(self.peak, peak_memory(self.device))
        state: dict[str, Any] = {"state": self.state, "seconds": self.seconds[self._stage], "peak": self.peak}
        state["machines"] = self.machines
        if self._stage not in self.shared:
            state["plugins"] = {name: plugin.state_dict(self) for name, plugin in self.plugins.items()}
        if self.net is not None:
            state["net"] = self.net.state_dict()
            state["structure"] = self.net.structure() if hasattr(self.net, "structure") else None
        if self.optimizer is not None:
            state["optimizer"], state["groups"] = self.optimizer.state_dict(), self._named_groups()
        state["tracked"] = {name: thing.state_dict() for name, thing in self._tracked.items()}
        return state

    def _restore(self, saved: dict[str, Any]) -> None:
        self.state, self.seconds[self._stage] = saved["state"], saved["seconds"]
        self.peak = max(self.peak, saved["peak"])
        self.machines[:0] = [one for one in saved.get("machines", ()) if one not in self.machines]
        if "net" in saved:
            if self.net is None:
                self.net = self.hook.build_supernet(run=self)
            if saved["structure"] is not None and saved["structure"] != self.net.structure():
                self.replace_net(self.net.rebuild(saved["structure"]))
            self.net.load_state_dict(saved["net"])
        if "optimizer" in saved and self.optimizer is not None:
            self._regroup(saved["groups"])
            self.optimizer.load_state_dict(saved["optimizer"])
        for name, thing in saved["tracked"].items():
            self._tracked[name].load_state_dict(thing)
        for name, state in saved.get("plugins", {}).items():
            self.plugins[name].load_state_dict(self, state)

    def _named_groups(self) -> list[list[str | None]]:
        """The optimizer's groups by parameter name; None stands for a parameter that is not the net's."""
        assert self.optimizer is not None
        names = {id(p): name for name, p in self.net.named_parameters()} if self.net is not None else {}
        return [[names.get(id(p)) for p in group["params"]] for group in self.optimizer.param_groups]

    def _regroup(self, wanted: list[list[str | None]]) -> None:
        """Bring the parameters into the groups and the order that `_named_groups` told."""
        assert self.optimizer is not None
        parameters = dict(self.net.named_parameters()) if self.net is not None else {}
        for group, names, old in zip(self.optimizer.param_groups, wanted, self._named_groups(), strict=True):
            others = iter([p for p, name in zip(group["params"], old, strict=True) if name is None])
            group["params"] = [next(others) if name is None else parameters[name] for name in names]

    def replace_net(self, net: torch.nn.Module, mapping: dict[str, tuple[str, Any]] | None = None) -> None:
        """Put a net of another shape in place, and carry the optimizer's state over.

        `mapping` names, for a parameter of the new net, the old parameter and the index that cuts the new
        one's place out of it (`...` takes it whole); a parameter not named starts without state. Each joins
        the group of its old one or of its namesake, a new one the first. So that a checkpoint can bring the
        shape back, the net has `structure()`, plain values, and `rebuild(structure)`, a net of that structure.
        """
        mapping = mapping or {}
        old = dict(self.net.named_parameters()) if self.net is not None else {}
        self.net = self.to_device(net)
        if self.optimizer is None:
            return
        groups = self.optimizer.param_groups
        home = {id(p): group for group in groups for p in group["params"]}
        states = {name: self.optimizer.state.pop(p, {}) for name, p in old.items()}
        gone = set(map(id, old.values()))
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in gone]
        for name, parameter in self.net.named_parameters():
            source, index = mapping.get(name, (name, ...))
            joined = home.get(id(old[source])) if source in old else groups[0]
            if joined is not None:  # what was not optimised stays so
                joined["params"].append(parameter)
            if name in mapping and states[source]:
                whole = old[source].shape
                self.optimizer.state[parameter] = {
                    k: (v[index] if v.shape == whole else v).clone() if isinstance(v, torch.Tensor) else v
                    for k, v in states[source].items()
                }

    # ------------------------------------------------------------------ networks

    def to_device(self, net: torch.nn.Module) -> torch.nn.Module:
        """A network on the run's device, in its memory format and, for float64, its precision."""
        dtype = torch.float64 if self.recipe.engine.precision == "float64" else None
        net = net.to(self.device, dtype)
        if self.recipe.engine.memory_format == "channels_last":
            net = net.to(memory_format=torch.channels_last)
        return net

    def forward(self, images: torch.Tensor, archs: Any) -> torch.Tensor:
        """Logits [n,B,K] of the supernet at the run's precision."""
        assert self.net is not None, "the supernet has not been built"
        one_pass = static.prepare(self, archs)
        return self.predict(self.net, images, archs) if one_pass is None else self.predict(one_pass, images)

    def predict(self, net: Callable[..., Any], *inputs: Any) -> torch.Tensor:
        """What a network answers to images [B,C,H,W] and whatever else it takes, at the run's precision."""
        images, *others = inputs
        if self.recipe.engine.precision == "float64":
            images = images.double()
        use_bfloat16 = self.recipe.engine.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=use_bfloat16, cache_enabled=False):
            logits: torch.Tensor = net(images, *others)
        return logits.float() if use_bfloat16 else logits

    # ------------------------------------------------------------------ architectures

    @cached_property
    def limits(self) -> list[tuple[Window, Cost]]:
        """The limits of `recipe.select.within`, each with what an architecture costs by it."""
        return limits(self)

    def fits(self, arch: Arch) -> bool:
        """Whether an architecture may be chosen: it keeps to every limit, and what it costs is known."""
        return all(window.holds(cost(arch)) for window, cost in self.limits)

    @property
    def scored_by(self) -> str:
        """What `score` says in this run, in words: whoever chooses by it puts that into `Choice.selected_on`."""
        plugin: Any = answerer(self.manager, "score") or self.manager.get_plugin("default")
        return str(plugin.scores_by).format(name=self.manager.get_name(plugin))

    def subset(self) -> list[Arch]:
        """The architectures of `recipe.score.subset`, restrictions of the space applied."""
        return [a for a in resolve_subset(self.recipe.score.subset, self.space, self.truth) if a in self.space]

    def child(self, name: str, space: SearchSpace) -> Run:
        """A part of this run on a part of the space, with its own plugins, clock, streams and stages.

        Made at the first call; later ones return the same part.
        """
        if name not in self.parts:
            run = type(self)(self.recipe, space, self.data, self.truth, self.folder / "stages" / name, self.observers)
            run.seconds, run.shared, run.runs, run.parent = self.seconds, self.shared, self.runs, self
            run.machines = self.machines
            run.finished, run.forced = self.finished, self.forced
            run.scope = run._stage = f"{self.scope}{name}/"
            self.parts[name] = run
        return self.parts[name]
