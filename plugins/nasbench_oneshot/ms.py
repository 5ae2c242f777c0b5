"""MS: momentum separation, from Subnet-Aware Dynamic Supernet Training for NAS, CVPR 2025."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from nasbench import Arch, BadInput, Choice, Metric, Modifier, Run, hookimpl
from nasbench.errors import unknown
from nasbench.stages import python_stream

Bank = defaultdict[Any, dict[str, Any]]


class MS(Modifier):
    """Subnets that agree on one decision share an optimizer state; the weights are shared by all (Eq. 7, 8)."""

    # Forcing an option comes after whatever else changes the sample.
    priority: ClassVar[int] = 10

    edge: str = "random"
    """The decision that splits the space: its name, first, last, or random (drawn once a run)."""
    clusters: int | None = Field(None, ge=1)
    """Merge the options into so many clusters, by index modulo; null gives each option its own."""
    by: Literal["option", "random"] = "option"
    """Clusters by the split decision's option, or, as a control, at random: as many, of like sizes, unrelated to
    structure, and no option is forced."""
    _banks: dict[int, Bank] = PrivateAttr(default_factory=dict)
    _cluster: int = PrivateAttr(0)
    _owner: tuple[Any, ...] = PrivateAttr(())

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if all(len(options) == 1 for options in run.space.options):
            return f"ms needs a decision to split by, and {run.space.name} has none."
        self.decision(run)
        return None

    def decision(self, run: Run) -> int:
        """Index of the decision that splits the space."""
        free = [i for i, options in enumerate(run.space.options) if len(options) > 1]
        if self.edge == "random":
            return run.fixed_rng("ms-edge").choice(free)
        names = {"first": free[0], "last": free[-1], **{run.space.decisions[i]: i for i in free}}
        if self.edge not in names:
            raise unknown(f"decision of {run.space.name}", self.edge, ["random", *names])
        return names[self.edge]

    @hookimpl(wrapper=True)
    def sample_archs(self, run: Run) -> Generator[None, list[Arch], list[Arch]]:
        archs = yield
        if not isinstance(archs[0][0], int):
            raise BadInput("ms needs single subnets, and the method trains mixtures.")
        edge, rng = self.decision(run), run.rng("ms-cluster")
        count = self.clusters or len(run.space.choices[run.space.decisions[edge]])
        if self.by == "random":  # several subnets of a step train in one cluster, drawn by the first
            self._cluster = python_stream(run.recipe.seed, "ms-random", *archs[0]).randrange(count)
            return archs
        self._cluster = archs[0][edge] % count
        if len(archs) > 1:  # Algorithm 2: one cluster a step; a subnet outside is moved into it by its option
            options = run.space.options[edge]
            self._cluster = rng.choice(sorted({o % count for o in options}))
            inside = [o for o in options if o % count == self._cluster]
            archs = [a if a[edge] in inside else run.space.replace(a, edge, rng.choice(inside)) for a in archs]
        return archs

    @hookimpl(wrapper=True)
    def update(self, run: Run, archs: list[Arch]) -> Generator[None, bool, bool]:
        assert run.optimizer is not None
        if self._owner != (run.optimizer, run.net):  # another stage, or a net of another shape: no momentum yet
            self._banks, self._owner = {}, (run.optimizer, run.net)
        run.optimizer.state = self._banks.setdefault(self._cluster, defaultdict(dict))
        run.state["cluster"] = self._cluster  # for whoever looks on
        return (yield)

    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        where = f"index of the decision that split the space (option edge={self.edge})"
        runs = {f"ms_edge_{name}": part for name, part in run.parts.items()} or {"ms_edge": run}
        return [Metric(name=name, value=self.decision(each), definition=where) for name, each in runs.items()]

    def state_dict(self, run: Run) -> dict[str, Any]:
        if run.optimizer is None or self._owner != (run.optimizer, run.net):
            self._banks, self._owner = {}, ()  # the stage is over: give the memory back
            return {}
        saved, current = {}, run.optimizer.state
        for cluster, run.optimizer.state in self._banks.items():
            saved[cluster] = run.optimizer.state_dict()["state"]
        run.optimizer.state = current
        return {"banks": saved}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        if run.optimizer is None:
            return
        self._owner = (run.optimizer, run.net)
        current, groups = run.optimizer.state, run.optimizer.state_dict()["param_groups"]
        for cluster, saved in state.get("banks", {}).items():
            run.optimizer.load_state_dict({"state": saved, "param_groups": groups})
            self._banks[cluster] = run.optimizer.state
        run.optimizer.state = current
