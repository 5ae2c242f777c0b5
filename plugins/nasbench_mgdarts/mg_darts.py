"""MG-DARTS: Multi-Granularity Differentiable Architecture Search, TNNLS."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from nasbench_cells.darts import DARTS
from nasbench_mobile.mobilenet_v3 import MobileNetV3
from pydantic import Field, PrivateAttr

from nasbench import Choice, Method, Run, SearchSpace, hookimpl
from nasbench_mgdarts.adaptive import AdaptivePruning
from nasbench_mgdarts.align import Align
from nasbench_mgdarts.final import architecture, final_network, one_operation_an_edge
from nasbench_mgdarts.heads import Head
from nasbench_mgdarts.layered import DIVISIONS, LayerNet, full_layers
from nasbench_mgdarts.network import FinalNet, SearchNet, full_shapes
from nasbench_mgdarts.regrow import regrow
from nasbench_mgdarts.report import Reported
from nasbench_mgdarts.slicing import Kept, cut
from nasbench_mgdarts.units import search_size


class MGDARTS(Reported, AdaptivePruning, Method):
    """Operations, filters and weights fall below thresholds learned with them, sub-net after sub-net."""

    calls: ClassVar[frozenset[str]] = frozenset({"next_batch", "prepare_batch", "compute_loss"})
    spaces: ClassVar[tuple[type[SearchSpace], ...]] = (DARTS, MobileNetV3)

    stages: Literal[1, 3] = 3
    """Sub-nets that the super-net is searched in, divided at the reduction cells; 1 searches it whole (Table IV)."""
    stage_share: float = Field(0.3, gt=0, lt=1)
    """A stage ends when less than this share of the weights that it began with is left."""
    regrow_ratio: float = Field(0.2, ge=0, le=1)
    """After a stage but the first, so many operations are regrown for each that it pruned (r, Table V)."""
    regrow_draw: Literal["largest_remainder", "multinomial"] = "largest_remainder"
    """Quotas as exact as whole numbers can be, or drawn, as in the paper's code."""
    aux_size: Head = "medium"
    """Size of the heads on the first two sub-nets (Table X)."""
    align: Align = "code"
    """How a cell's one width follows from its filters: the rule of the paper's code, or the paper's mean."""
    align_keeps: Kept = "op"
    """Which filters stay: each operation's own best, as in the paper's code, or the same channels in a whole cell."""
    official_bug_compat: bool = False
    """Start batch statistics and shifts anew whenever filters are cut out, as the paper's code does."""
    _small_enough: bool = PrivateAttr(False)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if run.recipe.train.schedule != "constant":
            return "mg-darts trains at a constant rate until it is small enough; set train.schedule=constant."
        return self.refuse_space(run) or (self.refuse_layers() if isinstance(run.space, MobileNetV3) else None)

    def refuse_layers(self) -> str | None:
        """What cells alone have, or None."""
        only_cells = ("align", "align_keeps", "official_bug_compat", "retrain_drop_path", "retrain_auxiliary")
        plain = {"retrain_drop_path": 0.0, "retrain_auxiliary": 0.0}
        for name in only_cells:
            value = plain.get(name, type(self).model_fields[name].default)
            if getattr(self, name) != value:
                return f"mobilenetv3 has nothing that mg-darts.{name} could change; set mg-darts.{name}={value}."
        return None

    # ------------------------------------------------------------------ Algorithm 2

    @hookimpl
    def train(self, run: Run) -> bool:
        sub_nets = divisions(run.space) if self.stages == 3 else divisions(run.space)[-1:]
        most = self.most_parameters(self.found(self.supernet(run.space, sub_nets[-1])).sizes()[0])
        with run.seeded("init"):
            run.net = run.to_device(self.supernet(run.space, sub_nets[0]))
        for number, cells in enumerate(sub_nets, 1):
            run.stage(f"stage-{number}", partial(self.search_sub_net, run, number, cells))
        self._small_enough = run.stage("fine-tune", lambda: self.fine_tune(run, most))
        return True

    def supernet(self, space: SearchSpace, cells: int) -> SearchNet:
        """The first cells, or layers, of the super-net, untouched."""
        how = (frozenset(self.granularity), self.aux_size, self.threshold_scope == "per_cell_optype")
        if isinstance(space, MobileNetV3):
            return LayerNet(space, full_layers(space)[:cells], *how)
        assert isinstance(space, DARTS)
        return SearchNet(space, full_shapes(space)[:cells], *how)

    def search_sub_net(self, run: Run, number: int, cells: int) -> None:
        """Add a sub-net, prune everything there is, regrow, slice."""
        with run.seeded("grow"):
            run.net = run.to_device(run.net.grown(cells))
        goal = self.stage_share * search_size(run.net)
        regrows = self.regrow_ratio > 0 and number > 1
        self.adapt(run, f"stage-{number}", 1.0, lambda: search_size(run.net) < goal, last_epoch=regrows)
        if regrows:
            count = round(self.regrow_ratio * run.state["pruned"])
            with run.seeded("regrow"):
                run.net, _ = regrow(run.net, count, run.rng("regrow"), self.regrow_draw)
        run.net, _ = cut(run.net, self.align, self.align_keeps, self.official_bug_compat)

    def fine_tune(self, run: Run, most: float) -> bool:
        """Prune the whole net until the network found is small enough; slice after every event. Whether it is."""

        def slice_() -> None:
            net, cuts = cut(run.net, self.align, self.align_keeps, self.official_bug_compat)
            run.replace_net(net, {name: (name, cuts.get(name, ...)) for name, _ in net.named_parameters()})

        def small_enough() -> bool:
            return one_operation_an_edge(run.net) and self.found(run.net).sizes()[1] <= most

        self.adapt(run, "fine-tune", 0.5, small_enough, slice_)
        return bool(run.state["reached"])

    # ------------------------------------------------------------------ what was found

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        arch = architecture(run.net)
        with run.seeded("final"):
            network = final_network(run.net, arch, auxiliary=self.retrain_auxiliary > 0)
        last = self._history[-1]
        return self.choices(
            run,
            arch,
            network,
            "learned thresholds on training images",
            retention=last["retention"],
            small_enough=self._small_enough,
            memory=self._memory,
            allocated=self._allocated,
            history=self._history,
        )

    def found(self, net: SearchNet) -> FinalNet:
        """The network that the search has found so far."""
        sliced, _ = cut(net, self.align, self.align_keeps)
        return final_network(sliced, architecture(sliced))


def divisions(space: SearchSpace) -> list[int]:
    """Cells, or layers, after which the three stages end."""
    if isinstance(space, MobileNetV3):
        return list(DIVISIONS)
    assert isinstance(space, DARTS)
    return [space.cells // 3, 2 * space.cells // 3, space.cells]
