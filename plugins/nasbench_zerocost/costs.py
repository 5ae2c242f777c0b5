"""The trivial rankings: by the number of parameters, and by multiply-adds."""

from __future__ import annotations

from typing import ClassVar

from nasbench import Arch, Run
from nasbench_zerocost.proxy import Proxy


class Params(Proxy):
    """The more trainable parameters the better, of the network whose true accuracy the table has where there is one."""

    of: ClassVar[str] = "params"

    def measure(self, run: Run, arch: Arch) -> float:
        return float((run.truth.space if run.truth else run.space).cost(arch)[self.of])


class MAdds(Params):
    """The more multiply-adds of one image the better, likewise."""

    of: ClassVar[str] = "madds"
