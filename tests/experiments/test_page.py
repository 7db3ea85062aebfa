"""The page of a report: its tables and figures as text, and in a browser where one is."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from experiments.charts import Series, Whisker, curves, ticks, whiskers
from experiments.document import Choice, Figure, Table, Text, markdown, page
from experiments.sections import document
from tests.experiments.test_results import CLEAR, found, report

BROWSER = os.environ.get("CHROMIUM") or next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)


class Seen(HTMLParser):
    """Counts of elements, by tag and by tag.class."""

    def __init__(self, text):
        super().__init__()
        self.counts, self.links, self.open = {}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        for name in (tag, f"{tag}.{values.get('class')}"):
            self.counts[name] = self.counts.get(name, 0) + 1
        self.links += [v for k, v in attributes if k in ("href", "src")]


@pytest.fixture(scope="module")
def blocks():
    return document(report(found(CLEAR)), {("15%", 0): "configs/15pc-seed-0.json"})


def test_page_has_the_rows_and_the_curves(blocks):
    seen = Seen(page("made up", blocks)).counts
    assert seen["svg"] == 4, "differences, and curves on three axes"
    assert seen["path.line"] == seen["path.band"] == 3 * 3
    assert seen["table"] == 4 and seen["g.whisker"] == 2
    assert seen["tr"] == 3 * (1 + 3) + (1 + 9)  # cells, what they took, the paper's, every run


def test_page_needs_no_network(blocks):
    text = page("made up", blocks)
    assert all(not link.startswith(("http", "//")) for link in Seen(text).links)
    assert set(re.findall(r"https?://[^\"' <]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_markdown_has_the_same_numbers(blocks):
    text = markdown("made up", blocks)
    assert "| [15%](configs/15pc-seed-0.json) | 3 of 3 | 10 | 5.2000 |" in text
    assert "−0.5000" in text and "![held-out MLM loss (nats): difference to 15%]" in text
    assert "How much?" in text and "84.2" in text and "scale cpu: run" in text


def test_what_a_study_says_is_no_markup():
    text = page("<b>", [Text('a < b & "c" **bold** [x](y.json)'), Table(["<i>"], [["<u>"]])])
    assert "a &lt; b &amp; &quot;c&quot; <strong>bold</strong>" in text
    assert '<a href="y.json">x</a>' in text and "<td>&lt;u&gt;</td>" in text


def test_figures_are_xml_and_keep_inside():
    series = [Series("a & b", [(0, 1.0, 0.5, 1.5), (10, 2.0, 1.5, 2.5)], ["one", 'two "2"'])]
    for svg in (
        curves(series, "x", "y"),
        whiskers([Whisker("a <", 0.5, (0.1, 0.9), "tip", True)], "x"),
        whiskers([Whisker("flat", 0.0, None, "tip", False)], "x"),
    ):
        root = ElementTree.fromstring(svg)
        for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
            assert 0 <= float(circle.get("cx")) <= 760 and 0 <= float(circle.get("cy")) <= 400


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.003, 0.01), (4.6, 6.9), (3, 3), (0, 2e13)])
def test_ticks_are_round_and_reach_both_ends(low, high):
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 2 <= len(found) <= 9


@pytest.mark.skipif(not BROWSER, reason="no Chromium; CHROMIUM=... names one")
def test_page_in_a_browser(blocks, tmp_path):
    """Opened from disk: no error on the console; tables and curves are there; a point that is
    pointed at shows its tip, and a button another figure."""
    pointing = """
    const point = document.querySelector('figure:not([hidden]) .series circle');
    point.dispatchEvent(new MouseEvent('mousemove', {clientX: 9, clientY: 9, bubbles: true}));
    const tip = document.getElementById('tip');
    document.querySelectorAll('.choice button')[1].click();
    const box = document.querySelector('.choice figure:not([hidden]) path.line').getBBox();
    document.body.dataset.seen = JSON.stringify({
      tip: tip.hidden ? '' : tip.textContent,
      rows: [...document.querySelectorAll('table')].map(table => table.tBodies[0].rows.length),
      shown: document.querySelector('.choice figure:not([hidden]) figcaption').textContent,
      drawn: box.width > 100 && box.height > 1,
    });
    """
    path = tmp_path / "index.html"
    text = page("made up", blocks)
    path.write_text(text.replace("</body>", f"<script>{{{pointing}}}</script></body>"))
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    assert 'data-ready="true"' in done.stdout, done.stderr
    (seen,) = re.findall(r'data-seen="([^"]*)"', done.stdout)
    seen = json.loads(seen.replace("&quot;", '"'))
    assert seen["rows"] == [3, 3, 3, 9] and seen["drawn"]
    assert seen["tip"].startswith("15%, step 5: ")
    assert seen["shown"] == "held-out MLM loss (nats) against FLOPs"


def test_a_choice_shows_one_figure():
    figures = [Figure(name, f"{name}.svg", "<svg></svg>") for name in ("first", "second")]
    seen = Seen(page("x", [Choice(figures)])).counts
    assert seen["figure"] == 2 and seen["button"] == 2 and seen["button.on"] == 1
    told = markdown("x", [Choice(figures)])
    assert "![first](first.svg)" in told and "\n[second](second.svg)" in told
