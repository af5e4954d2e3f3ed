"""Reports as a browser shows them: in a sandbox, on a phone, in the dark."""

import html
import json
import os
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from crafted_runs import leave_run, make_evaluation, make_plan
from crafted_sweeps import make_comparison
from PIL import Image

from kfp_finetune.components.sweep.page import comparison_page
from kfp_finetune.reports.data import data_report, describe_data
from kfp_finetune.reports.training import training_report
from kfp_finetune.training.report import run_report

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-features=IsolateSandboxedIframes",  # a process of its own, which Chromium would not wait for
)
DARK = "--blink-settings=preferredColorScheme=0"
LIGHT = "--blink-settings=preferredColorScheme=1"
DOM = ("--dump-dom", "--virtual-time-budget=3000")
LIGHT_PAGE, DARK_PAGE = (246, 246, 244), (20, 23, 26)
LONG = "unbroken" * 60
MEASURE = """<script>addEventListener("load", () => {
  const root = document.documentElement, text = document.querySelector("svg text"), svg = document.querySelector("svg");
  const labels = [...document.querySelectorAll("svg text")].map(label => label.getBoundingClientRect());
  const seen = {
    left: Math.min(...labels.map(box => box.left)), right: Math.max(...labels.map(box => box.right)),
    viewport: innerWidth, width: root.scrollWidth, height: root.scrollHeight,
    heading: document.querySelector("h1").innerText,
    origin: self.origin, ink: text && getComputedStyle(text).fill, font: text && text.getBoundingClientRect().height,
    chart: svg && svg.getBoundingClientRect().width, page: getComputedStyle(document.body).backgroundColor,
  };
  if (parent !== window) parent.postMessage(seen, "*"); else document.title = JSON.stringify(seen);
});</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    """Find Chromium; without it the checks are skipped, except where CI is to run them."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None and os.environ.get("CI"):
        pytest.fail("chromium is not installed; CI must run the checks of the reports in a browser")
    return found or pytest.skip("chromium is not installed")


@pytest.fixture
def visit(browser, tmp_path):
    """Give a function that opens a page and returns what Chromium prints."""

    def run(page: str, *flags: str) -> str:
        file = tmp_path / "page.html"
        file.write_text(page, encoding="utf-8")
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [browser, *FLAGS, profile, *flags, file.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=90).stdout

    return run


def reports() -> dict[str, str]:
    """Make a page of each kind, with texts that are hard to wrap."""
    rows = [
        {"step": step, "loss": 3 / (1 + step / 50), "lr": 2e-5, "tokens_per_second": 123_456.0 + step % 9}
        for step in range(400)
    ]
    facts = [("Source", f"hf://{LONG}"), (LONG, "1")]
    sample = {"prompt": LONG, "expected": "two\n\nlines", "base": "شكرا", "tuned": "日本語" * 40}
    lengths = [step % 900 for step in range(5000)]
    return {
        "data": data_report(
            describe_data(
                dataset=LONG, model="m", lengths=lengths, max_seq_len=512, facts=dict(facts), samples=[sample]
            )
        ),
        "training": training_report(title="A training", metrics=rows, facts=facts, failure=f"out of memory\n{LONG}"),
    }


@pytest.fixture
def run_page(tmp_path):
    """Give a function that makes the page on a whole run, with a text wherever one can go."""

    def make(text: str) -> str:
        leave_run(tmp_path, text)
        return run_report(make_plan(text), tmp_path, make_evaluation(text))

    return make


@pytest.fixture
def pages(run_page):
    """Make a page of each kind, that on a run too."""
    return {**reports(), "run": run_page(LONG), "sweep": comparison_page(make_comparison(LONG))}


@pytest.fixture
def visitors():
    """Serve nothing, and give the address with the paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def measured(page: str) -> str:
    """Put a probe into the page before its own policy, which forbids scripts."""
    return page.replace("<head>", f"<head>{MEASURE}", 1)


def framed(page: str, width: str = "100%", sandbox: str = "allow-scripts") -> str:
    """Make a page that shows another one as the pipelines UI does: in a sandboxed frame."""
    listen = "<script>addEventListener('message', event => { document.title = JSON.stringify(event.data); });</script>"
    style = f"width:{width};height:1500px;border:0"
    frame = f'<iframe sandbox="{sandbox}" srcdoc="{html.escape(page)}" style="{style}"></iframe>'
    return f"<!DOCTYPE html><html><head>{listen}</head><body style='margin:0'>{frame}</body></html>"


def title(dom: str) -> dict:
    """Read what the probe wrote into the title."""
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]))


def colours(path: Path) -> dict[tuple[int, int, int], int]:
    """Count the pixels of each colour."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
        return {colour: count for count, colour in picture.getcolors(picture.width * picture.height)}


def test_sandboxed_frame_renders(visit, tmp_path):
    """In a frame without an origin, the page lays out and paints its text and its charts."""
    page = reports()["training"]
    seen = title(visit(framed(measured(page)), *DOM, "--window-size=1000,1500"))
    assert seen["origin"] == "null"
    assert seen["heading"] == "A training"
    assert seen["chart"] > 300 and seen["height"] > 900
    visit(framed(page), LIGHT, f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1000,1500")
    painted = colours(tmp_path / "shot.png")
    assert painted[LIGHT_PAGE] > 50_000 and painted[255, 255, 255] > 100_000
    assert painted[43, 102, 196] > 100, "the line of the chart"
    assert painted[179, 38, 30] > 500, "the alarm about the failure"
    assert sum(count for colour, count in painted.items() if max(colour) < 90) > 2000, "text"


@pytest.mark.parametrize("kind", ["data", "training", "run", "sweep"])
@pytest.mark.parametrize("width", [320, 360, 700, 1100])
def test_no_width_overflows(visit, pages, kind, width):
    """The page is as wide as what shows it, however long the words; the text of charts is readable and inside.

    A window of Chromium is at least 500 pixels wide, so that a phone is a frame of its width.
    """
    page = measured(pages[kind])
    shown = framed(page, f"{width}px") if width < 500 else page
    seen = title(visit(shown, *DOM, f"--window-size={max(width, 500)},1200"))
    assert seen["viewport"] == width
    assert seen["width"] == width
    assert seen["font"] >= (13 if width >= 360 else 11), "height of a label in pixels"
    assert seen["left"] > 0 and seen["right"] < width


def test_dark_mode(visit, tmp_path):
    """Where dark is preferred, page, cards and the ink of charts follow."""
    page = reports()["training"]
    dark = title(visit(measured(page), DARK, *DOM))
    light = title(visit(measured(page), LIGHT, *DOM))
    assert (light["page"], dark["page"]) == ("rgb(246, 246, 244)", "rgb(20, 23, 26)")
    assert (light["ink"], dark["ink"]) == ("rgb(34, 38, 43)", "rgb(223, 227, 231)")
    visit(page, DARK, f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1000,1500")
    painted = colours(tmp_path / "shot.png")
    assert painted[DARK_PAGE] > 50_000
    assert painted[124, 176, 255] > 100, "the line of the chart"
    assert sum(count for colour, count in painted.items() if min(colour) > 200) > 2000, "text"
    assert sum(count for colour, count in painted.items() if min(colour) > 240) < 200, "no white left"


@pytest.mark.parametrize(
    ("preferred", "background", "line", "good"),
    [(LIGHT, LIGHT_PAGE, (43, 102, 196), (15, 107, 79)), (DARK, DARK_PAGE, (124, 176, 255), (111, 214, 176))],
)
def test_the_page_on_a_run_is_painted_where_nothing_may_run(
    visit, run_page, tmp_path, preferred, background, line, good
):
    """In a frame that may do nothing at all, verdict, text and charts are there, in light and in the dark."""
    page = framed(run_page("some words"), sandbox="")
    visit(page, preferred, f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1000,1500")
    painted = colours(tmp_path / "shot.png")
    assert painted[background] > 50_000 and painted[line] > 100
    assert painted[good] > 500, "the border of the verdict"
    is_ink = (lambda colour: max(colour) < 90) if preferred == LIGHT else (lambda colour: min(colour) > 200)
    assert sum(count for colour, count in painted.items() if is_ink(colour)) > 2000, "text"


def test_a_page_on_hostile_texts_asks_for_nothing_and_runs_nothing(visit, visitors, run_page):
    """Texts of rows, answers and settings stay text, though Chromium would fetch and run what they say."""
    address, asked = visitors
    hostile = (
        f"</style></td></div><img src={address}/image><script src={address}/script></script>"
        f"<link rel=stylesheet href={address}/style><iframe src={address}/frame></iframe>"
        "<script>document.title='run'</script>"
    )
    control = visit(f"<!DOCTYPE html><html><head></head><body>{hostile}</body></html>", *DOM)
    assert "<title>run</title>" in control and {"/image", "/script", "/style", "/frame"} <= set(asked)
    asked.clear()
    for page, least in (run_page(hostile), 10), (comparison_page(make_comparison(hostile)), 3):
        shown = visit(page, *DOM)
        assert not asked and "<title>run</title>" not in shown
        assert shown.count("&lt;script&gt;document.title='run'&lt;/script&gt;") > least, "shown as text"
