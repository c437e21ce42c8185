"""The case inspector: it steps, plays, rates and remembers; in Python alone, and as a page in a real browser."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import papermill
import pytest
from inspected_run import SCRIPT, case, prediction, three_steps, write_run

from expstar_utils.inspector.cases import Casebook
from expstar_utils.inspector.widgets import NOTHING, Inspector
from expstar_utils.ratings import RatingBook, read_ratings
from expstar_utils.runlog import read_metrics

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "08_case_inspector.ipynb"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [name for name in ("playwright", "voila", "anywidget", "jupyterlab") if not importlib.util.find_spec(name)] + (
    [] if CHROMIUM else ["chromium"])
in_browser = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
WAIT_MS = 90_000
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
MANY = 10_000
SWITCH_S = 0.3  # promised; a switch takes a fraction of it


@pytest.fixture
def run(tmp_path):
    return three_steps(tmp_path)


@pytest.fixture
def inspector(run):
    return look(run)


def look(run: Path, **given) -> Inspector:
    return Inspector(Casebook([run]), run.parent / "films", run / "8_ratings", labels=["good", "bad"], **given)


def hear(inspector: Inspector, **said) -> None:
    """A message as the browser sends it."""
    inspector.player._handle_custom_msg(said, [])


# Python alone

def test_steps_go_from_case_to_case_and_stop_at_the_ends(inspector):
    assert (inspector.case_id, inspector.of.value, inspector.number.value) == ("chemistry_1", "of 3", 1)
    for to, expected in (("previous", 1), ("next", 2), ("next", 3), ("next", 3), ("previous", 2)):
        hear(inspector, kind="step", to=to)
        assert (inspector.case_id, inspector.number.value) == (f"chemistry_{expected}", expected)
    inspector.number.value = 1
    assert inspector.case_id == "chemistry_1"
    assert "Watch flame 1." in inspector.commentary.value


def test_a_film_is_loaded_when_the_browser_asks_for_the_case_that_is_shown(inspector):
    assert inspector.player.clip == b""
    hear(inspector, kind="want", id="chemistry_2")  # has been left meanwhile
    assert inspector.player.clip == b""
    hear(inspector, kind="want", id="chemistry_1")
    assert inspector.player.clip[4:8] == b"ftyp"
    assert inspector.strip.value.count("<img") == 2
    assert "0.500 s" in inspector.strip.value
    inspector.move(1)
    assert inspector.player.clip == b""


def test_filters_choose_cases_and_keep_the_one_that_is_shown(inspector):
    inspector.show("chemistry_2")
    inspector.filters.search.value = "chemistry_2"
    assert (inspector.case_id, inspector.ids) == ("chemistry_2", ["chemistry_2"])
    inspector.filters.search.value = ""
    assert (inspector.case_id, inspector.number.value) == ("chemistry_2", 2)
    assert inspector.filters.flags["no_safety"].description == "Safety missing (1)"
    inspector.filters.flags["no_safety"].value = True
    assert inspector.ids == ["chemistry_1"]
    inspector.filters.runs["bad"].value = False
    assert (inspector.ids, inspector.heading.value) == ([], f'<p class="es-message">{NOTHING}</p>')
    hear(inspector, kind="step", to="next")
    inspector.filters.flags["no_safety"].value = False
    assert len(inspector.ids) == 3


def test_another_order_begins_at_its_first_case(inspector):
    inspector.show("chemistry_3")
    inspector.filters.order.value = "confidence"
    assert (inspector.case_id, inspector.number.value) == ("chemistry_2", 1)


def test_a_step_is_found_by_subject_experiment_and_number(inspector):
    assert [label for label, _ in inspector.filters.experiment.options] == ["all experiments", "01-Flames"]
    inspector.filters.subject.value = "chemistry"
    inspector.filters.experiment.value = "chemistry/01-Flames"
    inspector.filters.step.value = 3
    assert inspector.ids == ["chemistry_3"]


def test_ratings_are_kept_at_once_and_taken_up_again(run, inspector):
    panel = inspector.rating
    assert panel.scales["safety"].disabled
    panel.name.value = "王小明"
    panel.scales["safety"].value = 2
    panel.note.value = "no goggles"
    inspector.move(1)
    assert (panel.scales["safety"].value, panel.note.value) == (0, "")
    again = look(run, rater="王小明")
    assert (again.rating.scales["safety"].value, again.rating.note.value) == (2, "no goggles")
    assert "1 rated by 王小明" in again.rating.status.value
    again.rating.run.value = "bad"
    assert again.rating.scales["safety"].value == 0
    again.rating.run.value = "good"
    again.rating.scales["safety"].value = 0
    [left] = read_ratings(run / "8_ratings")[0]
    assert (left.safety, left.note) == (None, "no goggles")


def test_what_is_left_to_rate_can_be_asked_for(run):
    inspector = look(run, rater="a")
    inspector.rating.scales["clarity"].value = 4
    inspector.filters.unrated.value = True
    assert inspector.ids == ["chemistry_1", "chemistry_2", "chemistry_3"]  # the other run's commentary is not rated yet
    inspector.filters.runs["bad"].value = False
    assert inspector.ids == ["chemistry_2", "chemistry_3"]


def test_the_browser_brings_back_rater_and_case(run, inspector):
    hear(inspector, kind="hello", rater="Ann", id="chemistry_3")
    assert (inspector.rating.name.value, inspector.case_id) == ("Ann", "chemistry_3")
    hear(inspector, kind="hello", rater="Bob", id="gone")
    assert (inspector.rating.name.value, inspector.case_id) == ("Ann", "chemistry_3")


@pytest.mark.parametrize("name", ["x" * 300, "bad file"])
def test_a_rater_that_cannot_be_taken_up_is_told_so(run, inspector, name):
    path = run / "8_ratings" / "bad%20file.jsonl"
    path.parent.mkdir()
    path.write_text("no JSON\n", encoding="utf8")
    inspector.rating.name.value = name
    assert "expected a name" in inspector.rating.status.value or "is not JSON" in inspector.rating.status.value
    assert inspector.rating.scales["safety"].disabled
    inspector.rating.name.value = "Ann"
    assert not inspector.rating.scales["safety"].disabled


def test_films_that_are_not_there_or_not_allowed_are_said(tmp_path):
    cases = [case(1, clip="gone.mp4"), case(2, clip="../run/2_datasets/cases.jsonl")]
    run = write_run(tmp_path / "run", cases, {"good": [prediction(c) for c in cases]})
    inspector = look(run)
    inspector.load_film()
    assert "no such file" in inspector.player.message
    inspector.move(1)
    inspector.load_film()
    assert "found a path outside" in inspector.player.message
    assert inspector.player.clip == b""


def test_a_run_without_predictions_is_looked_at_too(tmp_path):
    inspector = look(write_run(tmp_path / "run", [case(1)], {}), rater="a")
    assert "Watch flame 1." in inspector.commentary.value
    assert inspector.rating.scales["safety"].disabled


def test_ten_thousand_cases_stay_quick(tmp_path):
    """Every switch of case, with a film each, and every filter within a third of a second; medians are said by -s."""
    three_steps(tmp_path)
    made, about = prediction(case(1), narration=["Heat it."]).to_dict(), case(1).to_dict()
    cases = [about | {"id": f"chemistry_{n}", "experiment": f"chemistry/{n // 5}", "summary": f"number {n}"} for n in range(MANY)]
    run = write_run(tmp_path / "many", cases, {"good": [made | {"id": c["id"]} for c in cases]})
    inspector, switches, filters = look(run, rater="a"), [], []
    for n in range(1, 60):
        started = time.perf_counter()
        inspector.show(inspector.ids[167 * n])
        inspector.load_film()
        switches.append(time.perf_counter() - started)
        assert inspector.player.clip
    for words in ("number 9999", "heat", "chemistry_77", ""):
        started = time.perf_counter()
        inspector.filters.search.value = words
        filters.append(time.perf_counter() - started)
    print(f"\nswitch {1000 * statistics.median(switches):.0f} ms, filter {1000 * statistics.median(filters):.0f} ms")
    assert statistics.median(switches) < SWITCH_S
    assert statistics.median(filters) < 3 * SWITCH_S


def test_the_notebook_runs_without_a_browser(run, tmp_path):
    given = {"run_dir": str(run), "data_root": str(tmp_path / "films"), "truth": "", "smoke": True}
    RatingBook(run / "8_ratings", "Ann").save("chemistry_1", "good", "text", safety=4)
    papermill.execute_notebook(str(NOTEBOOK), str(tmp_path / "08.ipynb"), given, cwd=str(ROOT), progress_bar=False)
    found = read_metrics(run / "8_ratings" / "metrics.json")
    assert (found["cases"], found["scores"]["good"]["safety"]) == (3, 4.0)


# In a browser

def prepared(folder: Path) -> Path:
    """Notebook 08 in a folder, with a run and its films beside it: the run."""
    run = three_steps(folder)
    given = {"run_dir": str(run), "data_root": str(folder / "films"), "truth": "", "runs": ["good", "bad"]}
    papermill.execute_notebook(str(NOTEBOOK), str(folder / "08.ipynb"), given, prepare_only=True, progress_bar=False)
    return run


@pytest.fixture(scope="module")
def browser():
    """A real one, without a window."""
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@contextmanager
def served(browser: Browser, folder: Path, *words: str) -> Iterator[tuple[Page, str]]:
    """A page, and the address of a program that serves on the loopback address; it is ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(folder / "server.log", "w", encoding="utf8") as log:
        server = subprocess.Popen([sys.executable, "-m", *words, "--no-browser", f"--port={port}"], stdout=log, stderr=log)
        try:
            wait_for(port)
            shown = browser.new_page(viewport={"width": 1280, "height": 800})
            shown.set_default_timeout(WAIT_MS)
            yield shown, f"http://127.0.0.1:{port}"
            shown.close()
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """Page of the inspector, served by Voila on the loopback address; its run lies beside it (`page.run`)."""
    folder = tmp_path_factory.mktemp("page")
    run = prepared(folder)
    with served(browser, folder, "voila", "--Voila.ip=127.0.0.1", str(folder / "08.ipynb")) as (shown, address):
        shown.goto(f"{address}/")
        shown.run = run
        yield shown


def wait_for(port: int) -> None:
    until = time.monotonic() + WAIT_MS / 1000
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"nothing answers on port {port}")


def at(page, number: int) -> None:
    """Wait until step `number` is shown with its frames."""
    page.wait_for_function("n => document.querySelector('.es-place')?.textContent.includes(`step ${n} `) "
                           "&& document.querySelectorAll('.es-frame img').length === 2", arg=number)


@in_browser
def test_the_page_plays_and_seeks_what_no_browser_decodes(page):
    """The films are MPEG-4, which Chromium does not play; keys step, a click on a frame takes the player there."""
    at(page, 1)
    page.wait_for_function("() => document.querySelector('video').readyState >= 2")
    page.evaluate("() => document.querySelector('video').play()")
    page.wait_for_function("() => document.querySelector('video').currentTime > 0.2")
    assert page.evaluate("() => document.querySelector('video').videoWidth") == 56
    page.locator(".es-frame").nth(1).click()
    page.wait_for_function("() => { const v = document.querySelector('video'); return v.paused && v.currentTime === 1.5 }")
    for key, number in (("n", 2), ("ArrowRight", 3), ("p", 2), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        at(page, number)
    assert page.locator(".jp-MarkdownCell:visible").count() == 0


@in_browser
def test_a_script_in_a_commentary_is_text(page):
    page.get_by_placeholder("words of title").fill("window.taken")
    page.keyboard.press("Enter")
    at(page, 2)
    assert SCRIPT in page.locator(".es-commentary").inner_text().replace("\n", " ")
    assert page.evaluate("() => window.taken") is None
    page.get_by_placeholder("words of title").fill("")
    page.keyboard.press("Enter")


@in_browser
def test_a_rating_is_there_after_a_reload(page):
    page.get_by_placeholder("your name").fill("王小明")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Next").click()
    at(page, 3)
    page.wait_for_function("() => document.querySelector('.es-status').textContent.includes('Not rated yet')")
    page.locator(".es-rating .widget-toggle-buttons").nth(2).get_by_text("4").click()
    page.get_by_placeholder("what is wrong").fill("n and p are letters here")
    page.wait_for_function("() => document.querySelector('.es-status').textContent.includes('Saved')")
    page.wait_for_timeout(1500)
    [rating] = read_ratings(page.run / "8_ratings")[0]
    assert (rating.id, rating.run, rating.safety, rating.note) == ("chemistry_3", "good", 4, "n and p are letters here")
    page.reload()
    at(page, 3)
    page.wait_for_function("() => document.querySelector('.es-status').textContent.includes('1 rated by 王小明')")
    assert page.get_by_placeholder("what is wrong").input_value() == "n and p are letters here"
    assert page.locator(".es-rating .widget-toggle-buttons").nth(2).locator(".mod-active").inner_text() == "4"


@in_browser
def test_the_inspector_works_in_jupyterlab(browser, tmp_path):
    """All cells run as a user runs them: the film plays, and the next step is shown."""
    prepared(tmp_path)
    lab = ("jupyterlab", "--allow-root", "--ip=127.0.0.1", "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}")
    with served(browser, tmp_path, *lab) as (shown, address):
        with shown.expect_websocket(lambda socket: "/channels" in socket.url):  # before there is a kernel, a run does nothing
            shown.goto(f"{address}/lab/tree/08.ipynb")
        shown.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
        shown.get_by_role("menuitem", name="Run", exact=True).click()
        shown.get_by_text("Run All Cells", exact=True).click()
        at(shown, 1)
        shown.wait_for_function("() => document.querySelector('video')?.readyState >= 2")
        assert shown.evaluate("() => document.querySelector('video').videoWidth") == 56
        shown.get_by_role("button", name="Next").click()
        at(shown, 2)
