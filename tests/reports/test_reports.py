"""Reports show the right numbers, escape what they are given, need nothing from elsewhere, and repeat exactly."""

import math
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from crafted_runs import leave_run, make_evaluation, make_plan

from kfp_finetune.reports.charts import NOTHING, Series, count_in_bars, histogram, line_chart
from kfp_finetune.reports.data import Data, data_report, describe_data, quantile
from kfp_finetune.reports.evaluation import change
from kfp_finetune.reports.numbers import number, share
from kfp_finetune.reports.page import CELL_LIMIT, Chart, Facts, Note, Part, Samples, page
from kfp_finetune.reports.training import smoothed, training_report
from kfp_finetune.training.report import run_report

HOSTILE = """</style></td><script>alert("1")</script><img src=x onerror='alert(1)'>&amp;{{ 7919 * 2 }}"""
VOID = {"meta", "br", "hr", "img", "link", "input"}
ALLOWED = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "main",
        "h1",
        "h2",
        "h3",
        "p",
        "section",
        "dl",
        "div",
    ),
    *("span", "strong", "dl", "dt", "dd", "figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td"),
    *("svg", "g", "path", "defs", "use", "text", "clippath", "rect"),
}


class Reader(HTMLParser):
    """Reads a page strictly: every tag known and closed in order."""

    def __init__(self, html: str):
        """Read the whole page."""
        super().__init__(convert_charrefs=True)
        self.open, self.attributes, self.texts, self.facts = [], [], [], {}
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        """Check a tag and remember its attributes."""
        assert tag in ALLOWED, f"unexpected <{tag}>"
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Check a tag that closes itself."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        """Check that the innermost tag closes."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Remember text, and the facts by their name."""
        if self.open and self.open[-1] == "dt":
            self.name = data
        elif self.open and self.open[-1] == "dd":
            self.facts[self.name] = data
        if data.strip() and "style" not in self.open:
            self.texts.append(data)


def metrics(count: int) -> list[dict[str, float]]:
    """Make a training of so many steps whose loss falls from 3."""
    return [
        {
            "step": step,
            "loss": 1 + 2 * math.exp(-step / count) + 0.1 * math.sin(step),
            "lr": 2e-5,
            "tokens_per_second": 18000 + step % 7,
            "grad_norm": 1.0 + 0.1 * math.cos(step),
            "peak_memory_alloc": 31.25,
        }
        for step in range(count)
    ]


def described(**data) -> str:
    """Make the page on a dataset from its figures as they lie in a file."""
    return data_report(Data.from_json(describe_data(**{"facts": {}, "samples": [], **data}).to_json()))


def bars_chart(values, x_label: str, y_label: str, marks: dict) -> str:
    """Count values and draw them."""
    return histogram(count_in_bars(values, marks), x_label, y_label, marks)


def run_page(text: str) -> str:
    """Make the page on a whole run."""
    with tempfile.TemporaryDirectory() as folder:
        leave_run(Path(folder), text)
        return run_report(make_plan(text), Path(folder), make_evaluation(text))


def reports(text: str) -> dict[str, str]:
    """One page of each kind, with `text` wherever a text can go."""
    facts = [(text, text)]
    return {
        "data": described(
            dataset=text,
            model=text,
            lengths=[1, 5, 9000],
            max_seq_len=10,
            facts=dict(facts),
            samples=[{text: text, "b": "1"}],
        ),
        "training": training_report(title=text, metrics=metrics(50), facts=facts, failure=text),
        "run": run_page(text),
        "page": page(
            text,
            text,
            [
                Facts(text, facts),
                Samples(text, [text], [[text]]),
                Note(text, text),
                Chart(text, line_chart([Series(text, [1, 2], [3, 4]), Series("b", [1], [2])], text, text), text),
                Chart(text, bars_chart([1, 2], text, text, {text: 1.5}), text),
            ],
        ),
    }


@pytest.mark.parametrize("kind", ["data", "training", "run", "page"])
def test_hostile_text_is_shown_and_not_run(kind):
    """Every place that shows text escapes it, in HTML and in SVG."""
    html = reports(HOSTILE)[kind]
    reader = Reader(html)
    assert HOSTILE in reader.texts
    assert "<script" not in html and "<img" not in html and "15838" not in html
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]


@pytest.mark.parametrize("kind", ["data", "training", "run", "page"])
def test_a_page_refers_to_nothing_outside(kind):
    """No address, no link and no import; fragments only point into the page."""
    html = reports("plain")[kind]
    reader = Reader(html)
    assert set(re.findall(r"\w+://[^\"'\s<>]*", html)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|@font-face|<link|<script|srcset|<iframe|<base", html)
    ids = {value for _, name, value in reader.attributes if name == "id"}
    fragments = set(re.findall(r'(?:url\(|href=")([^)"]+)', html))
    assert fragments <= {f"#{each}" for each in ids}
    assert "default-src 'none'" in html


def test_a_formula_in_a_label_stays_text():
    """Dollar signs, control characters and lone surrogates neither fail nor are interpreted."""
    svg = line_chart([Series("$x^2$\x00\ud800\n", [1, 2], [1, 2]), Series("b", [1], [1])], "$\\frac{", 'a" id="b')
    texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.text]
    assert "$\\frac{" in texts and 'a" id="b' in texts
    assert any(text.startswith("$x^2$") for text in texts)


def test_any_text_can_be_encoded():
    """A lone surrogate in a sample does not keep the report from being written."""
    assert page("t", "", [Note("n", "a\ud800b")]).encode("utf-8")


def in_a_new_process(program: str) -> str:
    """Run Python code, with this file's path as its argument, and give what it prints."""
    command = [sys.executable, "-c", f"import sys\n{program}", __file__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout


def test_output_repeats_within_and_across_processes():
    """The same input gives the same bytes, whatever the hash seed and whatever was drawn before."""
    here = reports("same")
    assert here == reports("same")
    there = in_a_new_process("import runpy; print(repr(runpy.run_path(sys.argv[1])['reports']('same')))")
    assert there.strip() == repr(here)


def test_ids_are_unique_on_a_page_of_many_charts():
    """Charts share no ids, so none takes another's clip path."""
    reader = Reader(training_report(title="t", metrics=metrics(300), facts=[]))
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) >= 5
    assert len(ids) == len(set(ids))


def test_charts_follow_the_page():
    """Ink is the current colour, series take the page's palette, and no stand-in or fixed font is left."""
    svg = line_chart([Series("a", [1, 2], [1, 2]), Series("b", [1, 2], [2, 3])], "x", "y")
    assert "fill: currentColor" in svg and "stroke: currentColor" in svg
    assert "var(--chart-1" in svg and "var(--chart-2" in svg
    assert "#0101" not in svg and "font-family" not in svg and "#000" not in svg
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox") and root.get("width") == "100%" and root.get("height") is None
    assert root.get("aria-label") == "Line chart of y by x"


def test_charts_leave_settings_and_pyplot_alone():
    """Drawing changes no matplotlib setting and does not load pyplot."""
    program = (
        "import matplotlib; matplotlib.rcParams['font.size'] = 33; before = matplotlib.rcParams.copy()\n"
        "from kfp_finetune.reports.charts import Series, line_chart\n"
        "svg = line_chart([Series('a', [1, 2], [1, 2])], 'x', 'y')\n"
        "assert matplotlib.rcParams.copy() == before and '33px' not in svg\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    in_a_new_process(program)


def paths(svg: str) -> list[str]:
    """Find the data of the series' own paths: those that are clipped to the axes and drawn in a series colour."""
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
    return [e.get("d") for e in elements if e.get("clip-path") and "--chart-1" in e.get("style", "")]


def dots(svg: str) -> int:
    """Count the points that are drawn as markers."""
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}use")
    return sum("--chart-1" in e.get("style", "") for e in elements)


@pytest.mark.parametrize("ys", [[], [math.nan], [math.inf, -math.inf]])
def test_nothing_to_draw_is_said(ys):
    """No finite point gives a sentence, not an empty frame."""
    assert line_chart([Series("a", range(len(ys)), ys)], "x", "y") == NOTHING
    assert line_chart([], "x", "y") == NOTHING
    assert bars_chart([], "x", "y", {"m": 3}) == NOTHING
    assert "Nothing recorded yet." in NOTHING


@pytest.mark.parametrize("value", [0.0, 2.5, -3.0, 1e-300, 1e300])
def test_one_point_is_seen(value):
    """A single point is drawn as a dot, at a whole step."""
    svg = line_chart([Series("a", [7], [value])], "step", "loss")
    assert dots(svg) == 1
    assert "7" in re.findall(r">([^<]+)</text>", svg)


def test_gaps_stay_gaps():
    """The line breaks at what is not finite, and a point between two gaps is a dot."""
    svg = line_chart([Series("a", range(9), [1, 2, math.nan, 3, math.inf, 2, 1, 2, 3])], "x", "y")
    assert paths(svg)[0].count("M") == 3
    assert dots(svg) == 1


def test_many_points_are_thinned_but_keep_extremes_and_gaps():
    """100,000 points become at most 1000, among them the one spike and the one gap."""
    ys = [math.sin(step / 5000) for step in range(100_000)]
    ys[54_321], ys[77_777] = 40.0, math.nan
    svg = line_chart([Series("a", range(100_000), ys)], "x", "y")
    line = paths(svg)[0]
    assert line.count("M") == 2
    assert line.count("L") <= 1000
    heights = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", line)]
    assert min(heights) < sorted(heights)[1] - 50


def test_a_report_on_100_000_steps_is_small():
    """A long training gives a page well below a megabyte."""
    html = training_report(title="t", metrics=metrics(100_000), facts=[])
    Reader(html)
    assert len(html.encode()) < 1_000_000


def labels(svg: str) -> list[str]:
    """Find all texts of a chart."""
    return re.findall(r">([^<]+)</text>", svg)


def test_ticks_tell_values_apart():
    """Ticks have thousands separators, no needless digits, and small numbers are readable."""
    small = labels(line_chart([Series("a", [0, 1000], [0, 2e-5])], "step", "lr"))
    assert {"0", "5e-6", "1e-5", "2e-5"} <= set(small) and "1,000" in small
    large = labels(line_chart([Series("a", [0, 1], [0, 40_000_000])], "step", "tokens"))
    assert "20M" in large
    assert len(set(small)) >= len(small) - 1


@pytest.mark.parametrize("values", [[5], [0], [512] * 1000, [1, 1_000_000], [3, 4], [-5, 5], list(range(1, 100_001))])
def test_histograms_of_any_shape(values):
    """One value, equal values, a huge spread: the bars hold together and the mark is named."""
    svg = bars_chart(values, "tokens", "rows", {"max_seq_len": 512})
    assert ElementTree.fromstring(svg) is not None
    assert any("max_seq_len 512" in label for label in labels(svg))


def test_a_long_tail_does_not_squeeze_the_rest():
    """Few huge values land in the last bar, which says so; without them nothing is said."""
    usual = [100 + step % 300 for step in range(10_000)]
    assert not any("last bar" in label for label in labels(bars_chart(usual, "tokens", "rows", {})))
    svg = bars_chart([*usual, 1_000_000], "tokens", "rows", {})
    assert any(re.fullmatch(r"tokens \(last bar: \d+ and more\)", label) for label in labels(svg))
    assert "400" in labels(svg)


def test_a_mark_far_away_is_named_at_the_edge():
    """A limit far above all lengths is said, not drawn."""
    near, far = (bars_chart([10, 20, 30], "tokens", "rows", {"max": mark}) for mark in (35, 131_072))
    assert "max 35" in labels(near) and "stroke-dasharray: " in near
    assert "max 131,072 →" in labels(far) and "stroke-dasharray: 5.6" not in far


def facts(html: str) -> dict[str, str]:
    """Read the facts of a page, by name."""
    return Reader(html).facts


def test_data_report_counts_right():
    """Quantiles, cut rows and lost tokens by hand: lengths 1..200, cut at 190."""
    lengths = list(range(200, 0, -1))
    html = described(dataset="d", model="m", lengths=lengths, max_seq_len=190, facts={"Format": "chat"})
    shown = facts(html)
    assert shown["Rows"] == "200"
    assert shown["Tokens"] == "20,100"
    assert (shown["Median row (p50)"], shown["p90"], shown["p99"]) == ("100", "180", "198")
    assert shown["Longest row (max)"] == "200"
    assert shown["Rows cut"] == "10 (5%)"
    assert shown["Tokens lost"] == "55 (0.3%)"
    assert shown["Format"] == "chat"


def test_data_report_of_nothing():
    """A dataset without rows gives a page that says so."""
    html = described(dataset="d", model="m", lengths=[], max_seq_len=8)
    assert facts(html)["Rows"] == "0"
    assert html.count("Nothing recorded yet.") == 2


def test_samples_with_different_columns():
    """Columns are united in the order seen; what a row lacks is blank."""
    html = described(dataset="d", model="m", lengths=[1], max_seq_len=8, samples=[{"a": "1"}, {"b": "2\n3"}])
    assert re.findall(r'scope="col">(\w+)<', html) == ["a", "b"]
    assert re.findall(r'<div dir="auto">([^<]*)</div></td>', html) == ["1", "", "", "2\n3"]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([7], 50, 7), ([1, 2], 50, 1), ([1, 2, 3], 50, 2), (list(range(1, 101)), 99, 99), (list(range(1, 1001)), 90, 900)],
)
def test_quantile(values, percent, expected):
    """The nearest rank, always one of the values."""
    assert quantile(values, percent) == expected


def test_training_summary():
    """First, best and final loss with their steps; the last record of a repeated step counts, in order of steps."""
    rows = [
        {"step": 1, "loss": 3.0, "lr": 1e-5, "tokens_per_second": 1000.0},
        {"step": 2, "loss": 0.5, "lr": 1e-5, "tokens_per_second": 3000.0},
        {"step": 3, "loss": 1.25, "lr": 1e-5, "tokens_per_second": 2000.0, "peak_memory_alloc": 10.5},
        {"step": 2, "loss": 2.0, "lr": 1e-5, "tokens_per_second": 4000.0},
    ]
    html = training_report(title="t", metrics=rows, facts=[("Epochs", "3")])
    shown = facts(html)
    assert shown["Last step"] == "3"
    assert shown["First loss"] == "3 at step 1"
    assert shown["Best loss"] == "1.25 at step 3"
    assert shown["Final loss"] == "1.25 at step 3"
    assert shown["Median tokens per second"] == "2,000"
    assert shown["Peak GPU memory"] == "10.5 GiB"
    assert shown["Epochs"] == "3"
    assert "Gradient norm" not in html
    assert "failed" not in html


def test_training_that_diverged():
    """A loss that is not finite is counted and shown as the final one, and never the best."""
    rows = [{"step": step, "loss": loss, "lr": 1e-5, "tokens_per_second": 1.0} for step, loss in enumerate([2.0, 1.0])]
    shown = facts(training_report(title="t", metrics=[*rows, {"step": 2, "loss": math.nan}], facts=[]))
    assert shown["Best loss"] == "1 at step 1"
    assert shown["Final loss"] == "NaN at step 2"
    assert shown["Records whose loss is not finite"] == "1"


def test_training_without_a_record():
    """A training that failed at once says why and that nothing was recorded."""
    html = training_report(title="t", metrics=[], facts=[], failure="image not found\n  in registry")
    assert '<section class="alarm">' in html
    assert "image not found\n  in registry" in html
    assert "Nothing recorded yet." in html
    assert facts(html)["Last step"] == "none yet"


def test_smoothing():
    """The average of equal values is that value from the start; gaps stay and do not spread."""
    assert smoothed([2.0, 2.0, math.nan, 2.0], 5) == pytest.approx([2.0, 2.0, math.nan, 2.0], nan_ok=True)
    assert smoothed([0.0, 1.0], 3) == pytest.approx([0.0, 2 / 3])
    assert smoothed([], 5) == []


@pytest.mark.parametrize(
    ("base", "tuned", "expected"),
    [
        (2.0, 1.5, "−0.500 (−25.0%), better"),
        (1.0, 1.25, "+0.250 (+25.0%), worse"),
        (1.0, 1.0, "none"),
        (1.0, math.nan, "not comparable"),
        (0.0, 1.0, "+1.000, worse"),
    ],
)
def test_change(base, tuned, expected):
    """A change is signed, relative to the base model, and judged."""
    assert change(base, tuned) == expected


def test_memory_is_drawn_from_zero():
    """A peak that hardly moves looks as it is."""
    steps = [{**step, "peak_memory_alloc": 30 + step["step"] / 100} for step in metrics(50)]
    html = training_report(title="t", metrics=steps, facts=[])
    chart = html[html.index("Peak GPU memory</h2>") :]
    assert labels(chart[: chart.index("</svg>")]).count("0") == 2, "of both axes"


def test_a_page_of_parts_has_headings_in_order():
    """Blocks of a part are one level below its heading."""
    html = page("t", "", [Note("alone", "n"), Part("part", [Note("inside", "n")])])
    assert re.findall(r"<(h\d)>(\w+)<", html) == [("h1", "t"), ("h2", "alone"), ("h2", "part"), ("h3", "inside")]


def test_a_long_cell_is_clipped_and_says_so():
    """A report shows the start of a long text and how much is left."""
    html = page("t", "", [Samples("s", ["c"], [["x" * (CELL_LIMIT + 1234)]])])
    assert "x… (1,234 more characters)" in html
    assert "x" * (CELL_LIMIT + 1) not in html


def test_plain_text_is_no_chart():
    """What did not come from `charts` is shown as text."""
    assert "&lt;svg onload=1&gt;" in page("t", "", [Chart("c", "<svg onload=1>")])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1234567, "1,234,567"),
        (1234.5678, "1,235"),
        (1.23456, "1.235"),
        (2e-05, "2e-5"),
        (-0.5, "−0.5"),
        (-1234, "−1,234"),
        (1e20, "1e20"),
        (0.0, "0"),
        (math.nan, "NaN"),
        (-math.inf, "−∞"),
    ],
)
def test_number(value, expected):
    """Four significant digits, separators, a real minus sign."""
    assert number(value) == expected


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [(0, 0, "0%"), (0, 5, "0%"), (1, 8, "12.5%"), (1, 100_000, "<0.1%"), (99_999, 100_000, ">99.9%"), (5, 5, "100%")],
)
def test_share(part, whole, expected):
    """Few is never none, and nearly all is never all."""
    assert share(part, whole) == expected
