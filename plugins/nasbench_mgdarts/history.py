"""Fig. 8: thresholds and retention ratios epoch by epoch, as SVG. Needs matplotlib, the extra `plot`.

python -m nasbench_mgdarts.history RUN/choices/0.json OUT.svg
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from nasbench import BadInput
from nasbench.files import write_atomic


def read(path: Path) -> list[dict[str, Any]]:
    """The history in the file beside a record. Raises BadInput if there is none."""
    try:
        history = json.loads(path.read_text())["history"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"{path} holds no history; name choices/0.json of a run of mg-darts.") from None
    return list(history)


def draw(history: list[dict[str, Any]]) -> bytes:
    """SVG: mean thresholds above, what is left below, the stages divided by lines."""
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ImportError:
        raise BadInput("A plot needs matplotlib; install it with pip install 'nasbench[plot]'.") from None
    with matplotlib.style.context(["tableau-colorblind10", {"svg.hashsalt": "nasbench", "svg.fonttype": "none"}]):
        figure = Figure(figsize=(7, 6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        for i, part in enumerate(("op", "filter", "weight")):
            for axes, name in ((above, "thresholds"), (below, "retention")):
                axes.plot(
                    range(1, len(history) + 1),
                    [row[name].get(part) for row in history],
                    f"C{i}-",
                    label=part,
                    marker=".",
                )
        for axes in (above, below):
            for at in (n + 0.5 for n in range(1, len(history)) if history[n]["stage"] != history[n - 1]["stage"]):
                axes.axvline(at, color="0.7", linewidth=0.8)
            axes.grid(alpha=0.3)
        above.set_ylabel("mean threshold")
        below.set(ylabel="share left", xlabel="epoch", ylim=(0, 1.02))
        above.legend(title="granularity")
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def main(arguments: list[str]) -> int:
    """Read a history, write a picture; 2 for what cannot be read."""
    try:
        if len(arguments) != 2:
            raise BadInput("Say which history and where to: python -m nasbench_mgdarts.history FILE.json OUT.svg")
        write_atomic(Path(arguments[1]), draw(read(Path(arguments[0]))))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
