"""Write every page that is made from records: `make pages`. A test finds out when one is stale.

The tables beside this file, the papers' tables in reproduced/, the rows that README.md shows, and those pictures of
`nasbench plot` that lie here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nasbench.files import write_atomic
from nasbench.plotting import Options, plot
from nasbench.results import leaderboard

#: What README.md shows of which table: the best by tau, of the rows whose seeds are enough for a verdict.
MAIN = ("nb201", "cifar10", "cifar10-jpeg", "cpu", "official327")
SHOWN = ("method", "Kendall's tau", "95 % interval", "true top-1 (%)", "n")
ROWS, SEEDS = 8, 3
#: What the pictures here may be of.
PLOTS = (("intervals", Options()), ("cost", Options()), ("cost", Options(x="average_madds", y="average_top1")))
REPRODUCE = (
    "dance dynamic-supernet eas mg-darts --preset cpu --out leaderboards/reproduced",
    "dynamic-supernet:main --preset paper --out leaderboards/reproduced/dynamic-supernet-main-paper.md",
)


def head(folder: Path) -> str:
    """The first rows of the main table."""
    table = leaderboard.tables(leaderboard.read_all(folder))[MAIN]
    rows = [row for row in table if len(row["values"]["kendall_tau"]) >= SEEDS][:ROWS]
    lines = [SHOWN, *([leaderboard.cells(row)[title] for title in SHOWN] for row in rows)]
    title, *body = (f"| {' | '.join(line)} |\n" for line in lines)
    return title + "|---" * len(SHOWN) + "|\n" + "".join(body)


def generate(root: Path) -> None:
    """Write the pages below `root`, whose folder `leaderboards` has the records, and mend its README.md."""
    folder, readme = root / "leaderboards", root / "README.md"
    for path, text in leaderboard.pages(folder).items():
        write_atomic(path, text)
    shutil.rmtree(folder / "reproduced", ignore_errors=True)
    with tempfile.TemporaryDirectory() as home:  # what can be run must not depend on what is stored on this machine
        for which in REPRODUCE:
            how = "--dataset cifar10=cifar10-jpeg --runs leaderboards --dry-run"
            command = [sys.executable, "-m", "nasbench", "reproduce", *which.split(), *how.split()]
            env = {**os.environ, "NASBENCH_HOME": home}
            subprocess.run(command, cwd=root, env=env, stdout=subprocess.DEVNULL, check=True)
    with tempfile.TemporaryDirectory() as drawn:
        shown = sorted(folder.glob("*.svg"))
        for kind, options in PLOTS if shown else ():
            plot(kind, folder, Path(drawn), options)
        for picture in shown:
            write_atomic(picture, Path(drawn, picture.name).read_bytes())
    marks = r"(<!-- leaderboard -->\n).*(<!-- /leaderboard -->)"
    mended = re.sub(marks, lambda m: m[1] + head(folder) + m[2], readme.read_text(), flags=re.DOTALL)
    write_atomic(readme, mended)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1])
