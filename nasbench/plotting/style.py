"""How every picture looks: sizes of a printed column, colours that the colour-blind can tell apart, files."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from nasbench.errors import BadInput, unknown

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["svg", "png", "pdf"]
FORMATS: tuple[Format, ...] = get_args(Format)
#: Text and axes; what lies behind labels; what lies behind all.
INK, PLATE, PAPER = "#222222", "#eeeeee", "#ffffff"
#: Okabe and Ito, Color Universal Design, without the yellow that white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
#: Told apart without colour too.
MARKERS = "osD^vPX*"
LINES = ("-", "--", ":", "-.")
#: Inches from one line of text to the next, and letters to an inch of it.
LINE, LETTERS = 0.14, 17
_STYLE: dict[str, Any] = {
    "font.size": 8,
    "figure.titlesize": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "savefig.dpi": 300,
    "svg.hashsalt": "nasbench",  # the same bytes each time
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and restyled
    "pdf.fonttype": 42,  # publishers take no Type 3
}


class Picture(NamedTuple):
    """A figure with what it shows in words, for whoever cannot see it."""

    name: str
    """The file's name, without an ending."""
    title: str
    text: str
    figure: Figure


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw and save inside of it. Raises BadInput where matplotlib is missing."""
    try:
        import matplotlib.style
    except ImportError:
        raise BadInput("A plot needs matplotlib; install it with pip install 'nasbench[plot]'.") from None
    with matplotlib.style.context(["default", _STYLE]):
        yield


def figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of this size in inches that makes room for whatever stands beside its axes."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height + LINE * title.count("\n")), layout="constrained")
    if title:
        made.suptitle(title)
    return made


def rendered(picture: Picture, format: str = "svg") -> bytes:
    """The picture as a file: the same bytes for the same data. Raises BadInput for an unknown format."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    about: dict[str, dict[str, str | None]] = {
        "svg": {"Date": None, "Creator": None, "Title": picture.title, "Description": picture.text},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None, "Title": picture.title},
        "png": {"Software": None, "Title": picture.title, "Description": picture.text},
    }
    out = io.BytesIO()
    picture.figure.savefig(out, format=format, metadata=about[format])
    return out.getvalue()


class Look(NamedTuple):
    """What one of several things in a picture looks like."""

    color: str
    marker: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, in order; there are 56 before two are alike."""
    return {
        name: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(dict.fromkeys(names))
    }


def short(labels: Iterable[str]) -> dict[str, str]:
    """Labels without the options in brackets, where they can still be told apart: for legends.

    >>> short(["eas[epochs=15]+ms", "ofa"])
    {'eas[epochs=15]+ms': 'eas+ms', 'ofa': 'ofa'}
    >>> short(["eas[epochs=15]", "eas[epochs=60]"])
    {'eas[epochs=15]': 'eas[epochs=15]', 'eas[epochs=60]': 'eas[epochs=60]'}
    """
    every = list(dict.fromkeys(labels))
    bare = [re.sub(r"\[[^\]]*\]", "", label) for label in every]
    return {label: cut if bare.count(cut) == 1 else label for label, cut in zip(every, bare, strict=True)}


def wrapped(text: str, width: int) -> str:
    """Text in lines of at most this many letters where it has commas, blanks or plus signs to break at.

    >>> wrapped("eas[batch_size=64,epochs=15]+ms", 20)
    'eas[batch_size=64,\\nepochs=15]+ms'
    """
    lines = [""]
    for part in re.split(r"(?<=[,+ ])", text):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def legend(figure: Figure, extra: Sequence[Artist] = ()) -> None:
    """Name what the first axes show, and these, below the picture, where no data can be; it grows by as much."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    handles += extra
    width, height = figure.get_size_inches()
    labels = [wrapped(label, int(width * LETTERS) - 5) for label in (*labels, *(str(e.get_label()) for e in extra))]
    letters = max((len(line) for label in labels for line in label.split("\n")), default=1)
    columns = min(len(labels), max(1, int(width * LETTERS / (letters + 6))))
    lines = sum(1 + label.count("\n") for label in labels) / columns
    figure.set_size_inches(width, height + LINE * math.ceil(lines) + 0.1)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def cost_axis(axes: Axes, values: Iterable[float]) -> None:
    """Make the axis logarithmic where positive values span much, and label it with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    found = list(values)
    span = max(found) / min(found) if min(found) > 0 else 1
    if span > 5:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 200 else (1,), numticks=20))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def listed(parts: Iterable[str]) -> str:
    """Sentences of a text alternative, one after the other."""
    return " ".join(part if part.endswith(".") else f"{part}." for part in parts if part)
