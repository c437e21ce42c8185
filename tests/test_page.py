"""The page: holds all that was written, as text and nothing but text, needs no network, runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from bs4 import BeautifulSoup, Tag
from PIL import Image
from test_captioned import film, steady
from test_subtitles import NASTY, doc

from expstar_utils.publishing.documents import clean
from expstar_utils.publishing.page import clock, page
from expstar_utils.publishing.subtitles import subtitles
from expstar_utils.records import ExpStarError

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
UGLY = [*NASTY[:-3], '"><img src=x onerror=alert(1)>', "</title><script>alert(1)</script>", "</style>", "javascript:alert(1)",
        "{{7*7}} ${x} $title", "\x00\ud800gone", "' onclick='alert(1)", "<!-- -->", "]]>"]
SOURCE = {"id": "p1", "title": "Gas", "relevance": 0.9, "used": True}
EN = doc((0.0, 2.5, ["The gas burns."], ["2CO + O2 → 2CO2"], ["Wear goggles."]), (2.5, 5.0, ["It stops."], [], []))
ZH = {"title": "燃烧", "language": "zh"}
ZH = doc((0.0, 2.5, ["气体燃烧。"], ["2CO + O₂ → 2CO₂"], ["戴护目镜。"]), (2.5, 5.0, ["停止。"], [], [])) | ZH


def with_sources(given: dict, *sources: dict) -> dict:
    return given | {"steps": [step | {"passages": list(sources)} for step in given["steps"]]}


def read(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def texts(tags: list[Tag]) -> list[str]:
    return [tag.get_text() for tag in tags]


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "Versuch 一氧化碳 'x' \"y\" .. #1?"
    folder.mkdir()
    return film(folder / "燃烧 & 'gas'.mp4", steady(5), 5)


# Text

@pytest.mark.parametrize("ugly", UGLY)
def test_texts_of_models_and_data_are_shown_as_they_are(ugly, tmp_path):
    given = with_sources(doc((0.0, 5.0, [ugly], [ugly], [ugly])), SOURCE | {"id": ugly, "title": ugly})
    whole = page([given | {"title": ugly, "video": ugly.replace("\x00", "") + ".mp4"}], tmp_path)
    shown, shell = read(whole), read(page([with_sources(doc((0.0, 5.0, ["x"], ["x"], ["x"])), SOURCE)], tmp_path))
    assert [tag.name for tag in shown.find_all()] == [tag.name for tag in shell.find_all()], "no tag more and none less"
    assert [sorted(tag.attrs) for tag in shown.find_all()] == [sorted(tag.attrs) for tag in shell.find_all()]
    plain = clean(ugly)
    assert texts(shown.select("title, h1, .step p:not(.sources)")) == [plain] * 5
    assert texts(shown.select(".sources")) == [f"Written from: {plain} ({plain}, relevance 0.90)"]
    whole.encode("utf8")


def test_ten_thousand_characters_are_all_there(tmp_path):
    given = doc((0.0, 5.0, ["x" * 10_000], [], ["长" * 10_000]))
    assert texts(read(page([given], tmp_path)).select(".step p")) == ["x" * 10_000, "长" * 10_000]


def test_boxes_stand_only_where_there_is_something_to_say(tmp_path):
    given = doc((0.0, 1.0, ["a"], [], ["s"]), (1.0, 2.0, ["b"], ["", " "], []), (2.0, 3.0, [], [], []))
    steps = read(page([given], tmp_path)).select(".step")
    assert [[box["class"] for box in step.select(".words, .box")] for step in steps] == [
        [["words"], ["box", "safety"]], [["words"]], []]
    assert "⚠ Safety" in steps[0].get_text()


def test_only_the_passages_that_were_used_are_sources(tmp_path):
    given = with_sources(EN, SOURCE, {"id": "p2", "title": "Ice", "relevance": 0.1, "used": False})
    assert texts(read(page([given], tmp_path)).select(".sources")) == ["Written from: Gas (p1, relevance 0.90)"] * 2
    assert not read(page([EN], tmp_path)).select(".sources")


def test_two_languages_stand_side_by_side_each_marked_as_what_it_is(tmp_path):
    shown = read(page([EN, ZH], tmp_path))
    assert [(t["lang"], t.get_text()) for t in shown.select("h1")] == [("en", "t"), ("zh-Hans", "燃烧")]
    pairs = [[(c["lang"], c.get_text()) for c in pair.find_all("div", recursive=False)] for pair in shown.select(".pair")]
    assert pairs == [[("en", one), ("zh-Hans", other)] for one, other in (
        ("The gas burns.", "气体燃烧。"), ("2CO + O2 → 2CO2", "2CO + O₂ → 2CO₂"), ("Wear goggles.", "戴护目镜。"),
        ("It stops.", "停止。"))]
    assert texts(shown.select("h3")) == ["Principle · 原理", "⚠ Safety · 安全"]
    with pytest.raises(ExpStarError, match="same steps"):
        page([EN, ZH | {"steps": ZH["steps"][:1]}], tmp_path)


def test_a_chinese_page_speaks_chinese(tmp_path):
    shown = read(page([ZH], tmp_path))
    assert shown.html["lang"] == "zh-Hans"
    assert "步骤 1" in shown.get_text()
    assert not re.search("Step|Safety|Principle|model", shown.body.get_text().replace(shown.script.get_text(), ""))


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (7325.2, "2:02:05")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown


# Safety

def test_only_its_own_script_may_run_and_nothing_comes_from_outside(video, tmp_path):
    whole = page([EN | {"video": str(video)}], tmp_path)
    shown = read(whole)
    policy = dict(part.strip().split(" ", 1) for part in shown.find("meta", {"http-equiv": True})["content"].split(";"))
    for name in ("style", "script"):
        [own] = shown.find_all(name)
        digest = base64.b64encode(hashlib.sha256(own.string.encode()).digest()).decode()
        assert policy[f"{name}-src"] == f"'sha256-{digest}'"
    assert (policy["default-src"], policy["base-uri"], policy["form-action"]) == ("'none'", "'none'", "'none'")
    assert not re.search(r"https?:|//\w", re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", whole).replace(shown.script.string, ""))
    assert not re.search(r"https?:|fetch|import|eval", shown.script.string)
    assert not [a for tag in shown.find_all() for a in tag.attrs if a.startswith("on") or a == "style"]


# The video

def test_video_is_in_the_page_or_linked_from_it(video, tmp_path):
    given, folder = EN | {"video": str(video)}, tmp_path / "Seiten 'ä' .."
    inside = read(page([given], folder)).video["src"]
    assert inside.startswith("data:video/mp4;base64,")
    assert base64.b64decode(inside.split(",")[1]) == video.read_bytes()
    linked = read(page([given], folder, embed=False)).video["src"]
    assert re.fullmatch(r"[\w./%~-]+", linked), "an address, with nothing in it that HTML or a browser reads otherwise"
    assert (folder / unquote(linked)).resolve() == video.resolve()
    assert read(page([given], video.parent, embed=False)).video["src"].startswith("./")


def test_a_long_video_stays_outside(video, tmp_path, monkeypatch):
    monkeypatch.setattr("expstar_utils.publishing.page.EMBEDDED_BYTES", video.stat().st_size - 1)
    given = EN | {"video": str(video)}
    assert not read(page([given], tmp_path)).video["src"].startswith("data:")
    assert read(page([given], tmp_path, embed=True)).video["src"].startswith("data:")


def test_page_without_its_video_says_so_and_has_nothing_to_press(tmp_path):
    shown = read(page([EN | {"video": str(tmp_path / "gone.mp4")}], tmp_path))
    assert not shown.select("video, button, img, input")
    assert "was not there" in shown.select_one(".trouble").get_text()
    assert "gone.mp4" in shown.select_one(".lead").get_text()


def test_video_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    with pytest.raises(ExpStarError, match=r"bad\.mp4"):
        page([EN | {"video": str(tmp_path / "bad.mp4")}], tmp_path)


def test_every_step_seeks_and_has_a_picture_of_itself(video, tmp_path):
    given = doc((0.0, 2.5, ["a"], [], []), (2.5, 5.0, ["b"], [], []), (9.0, 9.5, ["c"], [], [])) | {"video": str(video)}
    steps = read(page([given], tmp_path)).select(".step")
    assert [step["data-start"] for step in steps] == ["0.000", "2.500", "9.000"]
    assert all(step.select_one("h2 > button[type=button]") for step in steps)
    pictures = [[np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))))
                 for image in step.select("img")] for step in steps]
    assert [len(p) for p in pictures] == [1, 1, 0], "a step behind the end of the video has none"
    assert pictures[0][0].shape == (240, 320, 3)
    assert abs(pictures[0][0].mean() - pictures[1][0].mean()) > 5


def test_captions_are_tracks_the_first_one_shown(video, tmp_path):
    for docs, labels in (([EN], ["English"]), ([EN, ZH], ["English + 中文", "English", "中文"])):
        tracks = read(page([d | {"video": str(video)} for d in docs], tmp_path)).select("video > track")
        assert [(t["label"], t.has_attr("default")) for t in tracks] == [(label, i == 0) for i, label in enumerate(labels)]
        written = base64.b64decode(tracks[0]["src"].removeprefix("data:text/vtt;base64,")).decode()
        assert written == subtitles(*docs).to_string("vtt")


def test_same_input_same_bytes(video, tmp_path):
    assert page([EN | {"video": str(video)}], tmp_path) == page([EN | {"video": str(video)}], tmp_path)


# In a browser

def wait(shown, condition: str) -> None:
    """Until a condition is true; the page's own policy keeps Playwright from waiting inside it."""
    for _ in range(300):
        if shown.evaluate(condition):
            return
        shown.wait_for_timeout(50)
    pytest.fail(f"not within 15 s: {condition}")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_page_works_from_disk_in_a_browser(video, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    evil = "<img src=x onerror=\"document.title='caught'\"><script>document.title='caught'</script>"
    given = doc((0.0, 2.5, [evil], [], []), (2.5, 5.0, ["It stops."], [], ["Care."])) | {"video": str(video)}
    with playwright.sync_playwright() as engines:
        browser = engines.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"])
        complaints: list[str] = []
        for embed in (True, False):
            path = tmp_path / f"Seite {embed}.html"
            path.write_text(page([given], tmp_path, embed), encoding="utf8")
            shown = browser.new_page(viewport={"width": 390, "height": 844})
            shown.on("console", lambda message: complaints.append(message.text))
            shown.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
            shown.goto(path.as_uri())
            wait(shown, "document.querySelector('video').readyState >= 2 && document.querySelector('track').readyState == 2")
            shown.locator(".step button").nth(1).click()
            wait(shown, "document.querySelector('video').currentTime > 2.6")
            assert shown.locator(".step.now").get_attribute("id") == "step-2"
            assert shown.evaluate("document.querySelector('video').textTracks[0].cues.length") == len(subtitles(given))
            assert shown.evaluate("document.documentElement.scrollWidth") <= 390
            assert shown.title() == "t"
        shown.check("#pausing")
        shown.locator(".step button").nth(0).click()
        wait(shown, "document.querySelector('video').paused")
        assert 2.3 < shown.evaluate("document.querySelector('video').currentTime") < 2.5
        assert shown.locator(".step.now").get_attribute("id") == "step-1"
        shown.evaluate("document.querySelector('video').play()")
        wait(shown, "document.querySelector('.now').id == 'step-2' && !document.querySelector('video').paused")
        browser.close()
    assert complaints == []
