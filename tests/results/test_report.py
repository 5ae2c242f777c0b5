"""The report as a file: what is in it, that nothing of a record is markup, and that it asks the network for nothing."""

from __future__ import annotations

import builtins
import itertools
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nasbench import BadInput
from nasbench.recipe import parse_set, resolve
from nasbench.results import leaderboard, report
from tests.boards import made, result, written
from tests.command import nasbench
from tests.plotting.test_pictures import ranked, runs

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
TEMPLATES = Path(report.__file__).parents[1] / "templates"
LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """The elements of a page in order, each with its attributes and text; refuses what is not well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[tuple[str, int]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append((tag, len(self.found)))
        self.found.append((tag, dict(attrs)))
        self.text.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.text.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, i in self.open:
            self.text[i] += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag in tags]

    def words(self, tag: str) -> list[str]:
        return [" ".join(text.split()) for (name, _), text in zip(self.found, self.text, strict=True) if name == tag]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of four runs with all that may lie beside their records."""
    folder = tmp_path_factory.mktemp("shown") / "my runs"
    runs(folder, *(ranked(m, s, 0.4 + s / 10) for m in ("spos+calr[gamma_prime=3]", "fairnas") for s in (0, 1)))
    return report.page(folder)


def test_it_has_every_table_row_run_and_picture(text: str) -> None:
    page = Page(text)
    assert page.words("h1") == ["my runs"]
    assert page.words("h2") == ["tiny, ranked against digits", "Every run"]
    assert len(page.words("h3")) == 4
    assert "fairnas on tiny, digits, seed 1" in page.words("h3")
    assert [cell for cell in page.words("td") if cell.startswith("0.450")] == ["0.450 ± 0.071"] * 2
    titles = [title.partition(".")[0] for title in page.words("title")[1:]]
    assert titles[:4] == [
        "Kendall's tau with intervals",
        "top-1 (%) against multiply-adds (M)",
        "The best so far against networks looked up",
        "Training loss, stage train",
    ]
    assert titles[4:] == ["Predicted and true accuracy", "Architecture of tiny"] * 4
    command = "nasbench run -m 'spos+calr[gamma_prime=3.0]' -s tiny --dataset digits --preset test --seed 1"
    assert command in page.words("pre")


def test_it_can_be_read_aloud(text: str) -> None:
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    for picture in page.all("svg"):
        assert picture["role"] == "img"
        assert picture["aria-labelledby"] in ids
    for named in (a["aria-labelledby"] for _, a in page.found if "aria-labelledby" in a):
        assert named in ids
    for link in page.all("a"):
        assert str(link["href"]).removeprefix("#") in ids
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    assert len(page.words("caption")) == len(page.all("table"))
    assert all(region["aria-label"] for region in page.all("div") if region.get("role") == "region")


def test_it_needs_no_network_and_runs_no_script_but_its_own(text: str) -> None:
    page = Page(text)
    sources = [value for _, a in page.found for name, value in a.items() if name in ("src", "href", "xlink:href")]
    assert all(str(source).startswith(("#", "data:,")) for source in sources)
    assert "@import" not in text
    assert "url(http" not in text
    assert len(page.all("script")) == 1
    (policy,) = (a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")
    assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]


def test_a_hostile_record_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7 * 7 }}"
    record = made()
    record["recipe"] |= dict.fromkeys(("method", "dataset", "preset", "target"), evil)
    record["recipe"]["space"] = "tiny" + evil
    record["recipe"]["options"] = {evil: {evil: evil}, "tiny" + evil: {}}
    record["results"] = [{**result({evil: evil}, evil, top1=1.0), "arch": evil}]
    record["results"][0]["metrics"][0] |= {"name": evil, "definition": evil, "unit": evil}
    record["measured"] |= {"seconds": {evil: 1.0}, "device": evil, "date": evil, "threads": evil}
    record["id"] = evil
    page = Page(report.page(written(tmp_path / evil.replace("/", ""), record)))
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
    assert evil in page.words("dt")[-1]
    assert any(evil in caption for caption in page.words("caption"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(scheme: str) -> None:
    """At least 4.5 to 1, as WCAG 2.2 asks in 1.4.3."""
    blocks = re.findall(r":root \{(.*?)\}", (TEMPLATES / "report.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[scheme == "dark"]))
    for front in ("ink", "link", "faint"):
        for back in ("paper", "plate"):
            assert contrast(colours[front], colours[back]) >= 4.5, (front, back)


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_and_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_the_command_names_the_files_that_took_part() -> None:
    record = leaderboard.read_all(LEADERBOARDS)[0][1]
    with_file = {**record, "recipe": {**record["recipe"], "plugin_files": {"mine.py": "0" * 16}}}
    assert report.command(with_file).startswith("nasbench run --plugin mine.py -m ")


@pytest.mark.parametrize("index", range(0, 50, 9))
def test_the_command_of_a_record_gives_its_recipe(index: int) -> None:
    # Those whose target is known without a dataset that was added.
    found = [one for one in leaderboard.read_all(LEADERBOARDS) if one[1]["recipe"]["space"] in ("nb201", "tiny")]
    record = found[index % len(found)][1]
    words = shlex.split(report.command(record))
    assert words[:2] == ["nasbench", "run"]
    pairs = list(zip(words[2::2], words[3::2], strict=True))
    one = dict(pairs)
    recipe = resolve(
        one["-m"],
        one["-s"],
        dataset=one["--dataset"],
        target=one.get("--target"),
        preset=one["--preset"],
        seed=int(one["--seed"]),
        sets=parse_set([value for flag, value in pairs if flag == "--set"]),
    )
    space = record["recipe"]["options"][record["recipe"]["space"]]
    recipe.options[recipe.space] |= {name: space[name] for name in report.OF_THE_DATA}
    mine, theirs = recipe.model_dump(mode="json"), {n: v for n, v in record["recipe"].items() if v != {"within": []}}
    assert shared(mine, theirs) == theirs


def shared(values: Any, of: Any) -> Any:
    """The part of settings that an older record knows too."""
    if not isinstance(of, dict):
        return values
    return {name: shared(values[name], inner) for name, inner in of.items() if name in values}


def test_the_command_writes_the_page_or_says_what_would_do(tmp_path: Path) -> None:
    done = nasbench("report", "nothing", cwd=tmp_path)
    assert done.code == 2
    assert "There are no records below nothing" in done.err
    assert list(tmp_path.iterdir()) == []
    written(tmp_path / "runs", made(), made("fairnas"))
    done = nasbench("report", "runs", "--out", "page.html", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "wrote page.html\n", "")
    assert (tmp_path / "page.html").read_text() == report.page(tmp_path / "runs")


def test_without_jinja2_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    folder = written(tmp_path / "runs", made())
    monkeypatch.setattr("builtins.__import__", missing)
    with pytest.raises(BadInput, match=r"pip install 'nasbench\[plot\]'"):
        report.write(folder, tmp_path / "page.html")


def test_a_space_that_is_not_installed_leaves_a_sentence(tmp_path: Path) -> None:
    record = ranked()
    text = json.dumps(record).replace('"tiny"', '"elsewhere"')
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text(text)
    assert "There is no drawing of its choice. Unknown space" in report.page(tmp_path)
