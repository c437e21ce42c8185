"""Frozen results: they come back as they were, and not at all where they were changed or belong to another query."""

import pytest

from expstar_utils.datasets import Case
from expstar_utils.files import read_json, write_jsonl
from expstar_utils.frozen import finder, freeze, hash_file, thaw
from expstar_utils.records import ExpStarError, RetrievalResult


def result(name, query="Which salt?"):
    documents = [{"id": "p", "title": "t", "section": "", "text": "A flame.", "relevant": 5}]
    return RetrievalResult.model_validate({"id": name, "query": query, "video_path": "v", "is_rag": True, "documents": documents})


def test_results_come_back_with_what_they_came_from(tmp_path):
    path = freeze(tmp_path / "val.jsonl", [result("a"), result("b")], index="abc")
    assert thaw(path, {"a": "Which salt?", "b": "Which salt?", "c": "?"}) == {"a": result("a"), "b": result("b")}
    assert read_json(hash_file(path))["index"] == "abc"
    freeze(tmp_path / "test.jsonl", [result("c")])
    assert sorted(thaw(tmp_path)) == ["a", "b", "c"]


def test_changed_results_are_refused(tmp_path):
    path = freeze(tmp_path / "val.jsonl", [result("a")])
    path.write_text(path.read_text().replace('"relevant": 5', '"relevant": 1'))
    with pytest.raises(ExpStarError, match=r"val\.jsonl: was changed since it was frozen"):
        thaw(path)


def test_results_of_another_query_are_refused_with_or_without_a_hash(tmp_path):
    frozen = freeze(tmp_path / "val.jsonl", [result("a")])
    bare = write_jsonl(tmp_path / "bare" / "val.jsonl", [result("a")])
    for path in (frozen, bare):
        assert thaw(path, {"a": "Which salt?"})
        with pytest.raises(ExpStarError, match="a was found for 'Which salt\\?', expected 'Which lens\\?'"):
            thaw(path, {"a": "Which lens?"})


def test_doubles_and_missing_files_are_named(tmp_path):
    freeze(tmp_path / "one.jsonl", [result("a")])
    freeze(tmp_path / "two.jsonl", [result("a")])
    with pytest.raises(ExpStarError, match=r"two\.jsonl: a stands twice"):
        thaw(tmp_path)
    with pytest.raises(ExpStarError, match=r"absent\.jsonl: no such file"):
        thaw(tmp_path / "absent.jsonl")


def test_what_was_found_is_given_again_whatever_is_narrated():
    find = finder({"a": result("a")})
    def case(name):
        return Case.model_validate({"id": name, "experiment": "e", "subject": "chemistry", "title": "t", "step_number": 1,
                                    "clip": "v", "summary": "", "narration": ["Something else."]})
    assert [p.id for p in find(case("a"), None, 8)] == ["p"]
    assert find(case("a"), None, 0) == find(case("b"), None, 8) == []
