"""The report in a real headless Chromium: what a person with a keyboard, a screen reader or a small screen meets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nasbench.results import report
from tests.plotting.test_pictures import ranked, runs

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("selenium", reason="driving a browser needs selenium: pip install -e '.[browser]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="there is no Chromium with its driver on this machine"
)
#: Names and roles as assistive technology gets them.
UNNAMED = """
const bare = [];
for (const e of document.querySelectorAll("a, button, summary, svg[role=img], [role=region], table, th")) {
  const by = e.getAttribute("aria-labelledby");
  const name = e.getAttribute("aria-label") || (by ? document.getElementById(by).textContent : e.textContent);
  if (!name.trim()) bare.push(e.outerHTML.slice(0, 80));
}
return bare;
"""
#: Text whose contrast with what is behind it is below 4.5 (WCAG 2.2, 1.4.3).
FAINT = """
const parse = c => c.match(/[\\d.]+/g).map(Number);
const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const luminance = c => { const [r, g, b] = parse(c).map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (parse(c)[3] !== 0) return c; } return "rgb(255, 255, 255)"; };
const faint = [];
for (const e of document.querySelectorAll("body *")) {
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest("svg, script, #status")) continue;
  const [a, b] = [luminance(getComputedStyle(e).color), luminance(behind(e))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(e.tagName + " " + e.textContent.slice(0, 40));
}
return faint;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three methods, one of them without a tau."""
    folder = tmp_path_factory.mktemp("report") / "runs"
    runs(
        folder,
        *(ranked(m, s, t + s / 10) for m, t in (("spos", 0.5), ("fairnas", 0.4)) for s in (0, 1)),
        ranked("spos+calr", tau=None),
    )
    path = folder / "report.html"
    report.write(folder, path)
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser that logs its console and its network."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: Any, page: Path) -> Any:
    """The report, freshly opened at 1,400 pixels."""
    size(chromium, 1400)
    chromium.get("about:blank")
    chromium.get_log("browser")
    chromium.get_log("performance")
    chromium.get(page.as_uri())
    return chromium


def size(browser: Any, width: int, scheme: str = "light") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def column(browser: Any, number: int) -> list[str]:
    cells: list[str] = browser.execute_script(
        f"return [...document.querySelector('table.sortable').tBodies[0].rows].map(r => r.cells[{number}].textContent)"
    )
    return cells


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def test_the_page_is_silent_and_asks_for_nothing_else(browser: Any, page: Path) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith(("data:", "about:"))} == {page.as_uri()}


def test_a_script_that_slipped_in_would_not_run(browser: Any) -> None:
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.evil = 1'; document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<p onclick=\"window.evil = 2\" id=slipped>x</p>');"
        "document.getElementById('slipped').click();"
    )
    assert browser.execute_script("return window.evil === undefined")


def test_a_table_is_sorted_by_keyboard(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    titles = browser.execute_script("return [...document.querySelectorAll('th button')].map(b => b.innerText)")
    tau = next(i for i, title in enumerate(titles) if title.startswith("Kendall"))
    press(browser, Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("class") == "skip"
    for _ in range(40):
        press(browser, Keys.TAB)
        if browser.switch_to.active_element.text.startswith("Kendall"):
            break
    assert browser.switch_to.active_element.tag_name == "button"
    press(browser, Keys.ENTER)
    assert column(browser, tau) == ["0.450 ± 0.071", "0.550 ± 0.071", ""]
    press(browser, Keys.SPACE)
    assert column(browser, tau) == ["0.550 ± 0.071", "0.450 ± 0.071", ""]  # what has no value stays last
    headers = browser.execute_script(
        "return [...document.querySelectorAll('table.sortable th[scope=col]')].map(h => h.getAttribute('aria-sort'))"
    )
    assert [h for h in headers if h] == ["descending"]
    assert headers[tau] == "descending"
    said = browser.execute_script("return document.getElementById('status').textContent")
    assert said == "Sorted by Kendall's tau, descending."


def test_a_link_to_a_run_opens_it(browser: Any) -> None:
    link = browser.find_element("css selector", "table.sortable td:last-child a")
    link.send_keys("\n")
    run = browser.find_element("css selector", link.get_dom_attribute("href"))
    assert run.get_dom_attribute("open") is not None
    assert browser.switch_to.active_element.tag_name == "summary"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_has_a_name_and_can_be_seen(scheme: str, browser: Any) -> None:
    size(browser, 1400, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.execute_script(UNNAMED) == []
    assert browser.execute_script(FAINT) == []
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_its_window(width: int, browser: Any) -> None:
    size(browser, width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    small = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
        ".filter(h => h > 0 && h < 8).length"
    )
    assert small == 0
    outside = browser.execute_script(
        "return [...document.querySelectorAll('svg')].filter(s => { const b = s.getBoundingClientRect();"
        "return b.right > innerWidth || b.left < 0 || b.width < 200; }).length"
    )
    assert outside == 0
