"""The page that `edge-agent quality --html` writes, in a real browser and from the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from edge_agent.model import TagKey
from edge_agent.quality.collect import Collected, Subject
from edge_agent.quality.figures import Expectation, Fold
from edge_agent.quality.page import page as page_of
from edge_agent.quality.report import iso, make_report

HOUR = 3_600_000
EVIL = "펌프 <b>&\"'</b><script>document.title = 'mine'</script>"
CONTRAST_MIN = 4.5
"""WCAG 2.2, 1.4.3: of text."""
CONTRASTS = """() => {
  const luminance = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const share = Number(part) / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
  };
  return [...document.querySelectorAll('body *')]
    .filter((one) => one.innerText && !one.children.length)
    .map((one) => {
      const [a, b] = [getComputedStyle(one).color, paper(one)].map(luminance);
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    });
}"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A report of a good tag, one to look at, and one without samples."""
    expectation = Expectation(1_000, lo=0.0, hi=5.0)
    names = (
        TagKey("A1", "PUMP01", "PRESS"),
        TagKey("A1", EVIL, "온도"),
        TagKey("A1", EVIL, "NEVER"),
    )
    subjects = [Subject(key, expectation, "°C") for key in names]
    folds = [Fold(expectation, 0, HOUR) for _ in subjects]
    times = range(0, HOUR, 1_000)
    folds[0].add(times, [place % 5 for place in range(3_600)])
    folds[1].add(times, [place % 8 for place in range(3_600)])
    collected = Collected(0, HOUR, 0, [fold.figures() for fold in folds])
    report = make_report("store", 0, collected, subjects, iso)
    report = replace(report, map_sha256="00")
    path = tmp_path / "report.html"
    path.write_text(page_of(report, iso), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_opens_and_reads_well(browser: Browser, file: Path, scheme: str) -> None:
    """Names are shown as they are, nothing is fetched or run, and text stands out; on a phone too
    only the tables scroll sideways."""
    context = browser.new_context(
        color_scheme=scheme,  # type: ignore[arg-type]
        viewport={"width": 390, "height": 844},
    )
    opened = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(file.as_uri())
    assert asked == [file.as_uri()]
    assert not complaints
    assert opened.title().startswith("Data quality, 1970-01-01")
    rows = opened.locator("h2:has-text('Tags') + div tbody tr")
    assert [row.split("\t")[:2] for row in rows.all_inner_texts()] == [
        [f"A1 {EVIL} NEVER", "bad"],
        [f"A1 {EVIL} 온도", "look at it"],
        ["A1 PUMP01 PRESS", "good"],
    ]
    assert opened.locator("b, script").count() == 0
    assert min(opened.evaluate(CONTRASTS)) >= CONTRAST_MIN
    is_dark = opened.evaluate("getComputedStyle(document.body).backgroundColor") != (
        "rgb(255, 255, 255)"
    )
    assert is_dark is (scheme == "dark")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
