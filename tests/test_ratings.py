"""Human ratings: on disk at once, taken up after a crash, one file a rater whatever the name, agreement as it is defined."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from expstar_utils.ratings import Rating, RatingBook, agreement, rater_file, read_ratings, scores_by_run, text_hash
from expstar_utils.records import ExpStarError

NAMES = st.text(min_size=1, max_size=20).filter(str.strip)
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: four observers, twelve units; ordinal alpha 0.815
TABLE = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)


def rated(table, aspect: str = "safety") -> list[Rating]:
    """Ratings of one aspect: a row a rater, a column a commentary."""
    return [Rating(id=f"c_{unit}", run="r", text="t", rater=f"rater {i}", **{aspect: score})
            for i, row in enumerate(table) for unit, score in enumerate(row) if score is not None]


def test_what_is_said_is_on_disk_at_once_and_there_again(tmp_path):
    book = RatingBook(tmp_path, "王 小明")
    book.save("c_1", "run", "text", correctness=4)
    book.save("c_1", "run", "text", note="看不清 <b>")
    [line] = {json.loads(row)["id"] for row in book.path.read_text(encoding="utf8").splitlines()}
    assert line == "c_1"
    again = RatingBook(tmp_path, " 王  小明 ").get("c_1", "run", "text")
    assert (again.correctness, again.clarity, again.note, again.rater) == (4, None, "看不清 <b>", "王 小明")


def test_what_is_the_same_is_not_written_again_and_what_is_taken_back_is_gone(tmp_path):
    book = RatingBook(tmp_path, "a")
    for score in (3, 3, None):
        book.save("c_1", "run", "text", clarity=score)
    assert len(book.path.read_text(encoding="utf8").splitlines()) == 2
    assert RatingBook(tmp_path, "a").get("c_1", "run", "text") is None
    assert RatingBook(tmp_path, "a").ratings == []
    assert read_ratings(tmp_path) == ([], [])


def test_a_commentary_made_anew_is_rated_anew(tmp_path):
    book = RatingBook(tmp_path, "a")
    book.save("c_1", "run", "old text", safety=1)
    assert book.get("c_1", "run", "new text") is None
    assert book.get("c_1", "other run", "old text") is None
    assert book.get("c_1", "run", "old text").text == text_hash("old text")


@pytest.mark.parametrize("torn", ['{"id": "c_2", "run": "r"', '{"id": "c_2", "note": "\\u4e', "\0\0\0"])
def test_a_torn_last_line_is_dropped_and_the_rest_kept(tmp_path, torn):
    book = RatingBook(tmp_path, "a")
    book.save("c_1", "run", "text", safety=5)
    with open(book.path, "a", encoding="utf8") as file:
        file.write(torn)
    again = RatingBook(tmp_path, "a")
    assert again.get("c_1", "run", "text").safety == 5
    again.save("c_3", "run", "text", safety=2)
    assert [r.id for r in RatingBook(tmp_path, "a").ratings] == ["c_1", "c_3"]


def test_a_bad_line_is_named_and_what_stands_before_it_counts(tmp_path):
    for name in ("a", "b"):
        RatingBook(tmp_path, name).save("c_1", "run", "text", safety=5)
    with open(rater_file(tmp_path, "a"), "a", encoding="utf8") as file:
        file.write('{"id": "c_2", "run": "run", "text": "t", "rater": "a", "safety": 9}\n')
    found, problems = read_ratings(tmp_path)
    assert [r.rater for r in found] == ["a", "b"]
    assert len(problems) == 1
    assert "a.jsonl, line 2: safety is 9" in problems[0]
    with pytest.raises(ExpStarError, match="line 2: safety is 9"):
        RatingBook(tmp_path, "a")


@pytest.mark.parametrize("score", [0, 6, 2.5, "good"])
def test_scores_off_the_scale_are_refused(tmp_path, score):
    book = RatingBook(tmp_path, "a")
    with pytest.raises(ValidationError):
        book.save("c_1", "run", "text", safety=score)
    assert not book.path.exists()


def test_another_window_of_the_same_rater_is_not_overwritten(tmp_path):
    one, other = RatingBook(tmp_path, "a"), RatingBook(tmp_path, "a")
    one.save("c_1", "run", "text", safety=5)
    other.save("c_1", "run", "text", clarity=2)
    one.refresh()
    assert (one.get("c_1", "run", "text").safety, one.get("c_1", "run", "text").clarity) == (5, 2)


def test_half_a_character_from_a_browser_does_no_harm(tmp_path):
    RatingBook(tmp_path, "a\ud83d").save("c_1", "run", "text\ud83d", note="odd \ud83d")
    [found] = read_ratings(tmp_path)[0]
    assert (found.rater, found.note) == ("a?", "odd ?")


@pytest.mark.parametrize(("name", "file"), [
    ("Ann", "ann"), ("王小明", "王小明"), ("José", "josé"), ("../../x", "%2e%2e%2f%2e%2e%2fx"), ("a/b", "a%2fb"),
    ("a\\b:c", "a%5cb%3ac"), (".hidden", "%2ehidden"), ("a\0b", "a%00b")])
def test_any_name_makes_a_safe_file(tmp_path, name, file):
    assert rater_file(tmp_path, name) == tmp_path / f"{file}.jsonl"
    RatingBook(tmp_path, name).save("c_1", "run", "text", safety=3)
    assert [p.name for p in tmp_path.iterdir()] == [f"{file}.jsonl"]


@pytest.mark.parametrize("name", ["", "  \n", "x" * 201, "😀" * 40])
def test_no_name_and_one_too_long_are_refused_in_a_sentence(tmp_path, name):
    with pytest.raises(ExpStarError, match="expected a name of 1 to 200 bytes"):
        RatingBook(tmp_path, name)


@given(NAMES, NAMES)
def test_two_raters_share_a_file_only_if_case_and_blanks_alone_tell_them_apart(one, other):
    def plain(name: str) -> str:
        return unicodedata.normalize("NFC", " ".join(name.split())).casefold()
    files = [rater_file(Path("r"), name) for name in (one, other)]
    assert all(file.parent == Path("r") and len(file.parts) == 2 for file in files)
    assert (files[0] == files[1]) == (plain(one) == plain(other))


def test_agreement_is_krippendorffs():
    found = agreement(rated(TABLE))
    assert found["safety"]["alpha"] == pytest.approx(0.815, abs=5e-4)
    assert (found["safety"]["raters"], found["safety"]["ratings"], found["safety"]["shared"]) == (4, 41, 11)
    assert found["clarity"] == {"ratings": 0, "raters": 0, "shared": 0, "mean": None, "alpha": None}


@pytest.mark.parametrize("table", [[(1, 2, 3)], [(1, None), (None, 2)], [(3, 3), (3, 3)]])
def test_agreement_that_is_not_defined_is_none(table):
    assert agreement(rated(table))["safety"]["alpha"] is None


def test_one_rater_under_two_spellings_does_not_agree_with_itself():
    rows = [Rating(id="c_1", run="r", text="t", rater=name, safety=score) for name, score in (("Ann", 1), ("ann ", 5))]
    assert agreement(rows)["safety"]["shared"] == 0


def test_mean_scores_of_every_run():
    rows = [Rating(id="c_1", run="r", text="t", rater="a", safety=1, clarity=4),
            Rating(id="c_1", run="r", text="t", rater="b", safety=2), Rating(id="c_1", run="s", text="t", rater="a", note="n")]
    assert scores_by_run(rows) == {"r": {"commentaries": 1, "correctness": None, "clarity": 4.0, "safety": 1.5},
                                   "s": {"commentaries": 1, "correctness": None, "clarity": None, "safety": None}}
