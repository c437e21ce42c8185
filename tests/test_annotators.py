"""A chat model as annotator: whatever the endpoint does, the answer is whole and checked, or one sentence says what is wrong."""

import json
import time

import pytest
from endpoint import completion, refusal

from expstar_utils.annotators import ChatAnnotator
from expstar_utils.records import AsrFile, ExpStarError

SAID = AsrFile.model_validate({"subtitles": [
    {"id": n, "startTime": f"0:00:0{n}", "endTime": f"0:00:0{n}.800", "text": text}
    for n, text in enumerate(["大家好", "打开活塞", "点燃气体", "火焰是蓝色的"], 1)]})
DRAFT = {"title_zh": "气体的燃烧", "title_en": "Burning a Gas", "summary": "点燃气体。",
         "steps": [{"step_zh": "打开活塞", "step_en": "Open the tap", "ASR_id": [2]},
                   {"step_zh": "点燃", "step_en": "Light the gas", "ASR_id": [3, 4]}],
         "lines": [{"id": 2, "text_en": "Open the tap"}, {"id": 3, "text_en": "Light the gas"},
                   {"id": 4, "text_en": "The flame is blue", "principle_en": "CO burns.", "principle_zh": "一氧化碳燃烧。",
                    "safety_en": " ", "equation": "2CO + O2 → 2CO2"}]}


GOOD = completion(json.dumps(DRAFT, ensure_ascii=False))


def annotator(url, tmp_path, **changes):
    return ChatAnnotator(url, "m", tmp_path / "cache", **{"api_key": "none", "timeout_s": 5.0, "retries": 2} | changes)


def test_steps_and_notes_come_out_in_the_raw_formats(endpoint, tmp_path):
    url, asked = endpoint(GOOD)
    steps, said = annotator(url, tmp_path).annotate("气体", SAID)
    assert (steps.title_en, steps.summary) == ("Burning a Gas", "点燃气体。")
    assert [(s.step, s.step_en, s.ASR_id, s.startTime, s.endTime) for s in steps.steps] == [
        (1, "Open the tap", [2], "0:00:02", "0:00:02.800"), (2, "Light the gas", [3, 4], "0:00:03", "0:00:04.800")]
    greeting, *_, last = said.subtitles
    assert greeting.to_dict() == SAID.subtitles[0].to_dict() | {"text_en": ""}
    assert (last.step, last.text, last.text_en, last.equation) == (2, "火焰是蓝色的", "The flame is blue", "2CO + O2 → 2CO2")
    assert "safety_en" not in last.to_dict()
    told = json.loads(asked[0]["messages"][1]["content"])
    assert [line["text"] for line in told["lines"]] == [s.text for s in SAID.subtitles]


def test_a_server_of_ones_own_needs_no_key(endpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    url, _ = endpoint(GOOD)
    assert len(annotator(url, tmp_path, api_key=None).annotate("气体", SAID)[0].steps) == 2


def test_an_answer_is_asked_for_once_and_counted(endpoint, tmp_path):
    url, asked = endpoint(GOOD)
    first = annotator(url, tmp_path, prices=(1.0, 4.0))
    again = annotator(url, tmp_path)
    assert first.annotate("气体", SAID)[0].to_dict() == again.annotate("气体", SAID)[0].to_dict()
    assert len(asked) == 1
    assert (first.usage.answers, first.usage.prompt_tokens, first.usage.completion_tokens) == (1, 100, 50)
    assert first.usage.cost == pytest.approx(0.0003)
    assert (again.usage.answers, again.usage.kept, again.usage.cost) == (0, 1, 0)
    again.annotate("另一个标题", SAID)
    annotator(url, tmp_path).annotate("气体", AsrFile(subtitles=SAID.subtitles[1:]))
    assert len(asked) == 3


@pytest.mark.parametrize("first", [refusal(429), refusal(500), refusal(503), completion("Sure! Here are the steps you wanted."),
                                   completion(json.dumps(DRAFT)[:90]), completion(""), completion("{}"),
                                   completion(json.dumps(DRAFT | {"steps": []})),
                                   completion(json.dumps(DRAFT | {"steps": [DRAFT["steps"][0] | {"ASR_id": [9]}]})),
                                   completion(json.dumps(DRAFT | {"lines": [{"id": 77}]})),
                                   completion(json.dumps(DRAFT | {"steps": DRAFT["steps"][::-1]})),
                                   completion(json.dumps(DRAFT | {"steps": [DRAFT["steps"][1]] * 2}))])
def test_a_bad_answer_is_followed_by_another_try(endpoint, tmp_path, first):
    url, asked = endpoint(first, GOOD)
    steps, _ = annotator(url, tmp_path).annotate("气体", SAID)
    assert len(steps.steps) == 2
    assert len(asked) == 2
    if first[0] == 200:
        assert "cannot be used" in asked[1]["messages"][-1]["content"]
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("wrapped", ["```json\n{}\n```", "Here you are:\n{}\nGood luck!"])
def test_json_is_found_in_what_is_written_around_it(endpoint, tmp_path, wrapped):
    url, _ = endpoint(completion(wrapped.replace("{}", json.dumps(DRAFT))))
    assert len(annotator(url, tmp_path).annotate("气体", SAID)[0].steps) == 2


@pytest.mark.parametrize(("answer", "sentence"), [
    (refusal(500), r"气体: http://127\.0\.0\.1:\d+/v1 gives no answer \(.*500.*\), expected a chat completion; start the server"),
    (refusal(401), r"gives no answer \(.*401.*check address, key and model"),
    (completion("I would rather not."), r"气体: m gave no usable answer in 3 tries \(no JSON object\)"),
    (completion(json.dumps(DRAFT | {"lines": [{"id": 77}]})), r"\(ids \[77\] are of no line\)")])
def test_an_endpoint_that_never_gives_one_is_told_in_a_sentence(endpoint, tmp_path, answer, sentence):
    url, _ = endpoint(answer)
    with pytest.raises(ExpStarError, match=sentence):
        annotator(url, tmp_path).annotate("气体", SAID)
    assert not (tmp_path / "cache").is_dir()


def test_an_endpoint_that_is_down_or_slow_is_told_in_a_sentence(endpoint, tmp_path):
    with pytest.raises(ExpStarError, match=r"http://127\.0\.0\.1:9/v1 gives no answer"):
        annotator("http://127.0.0.1:9/v1", tmp_path, retries=0).annotate("气体", SAID)
    url, asked = endpoint(lambda _: time.sleep(0.6) or GOOD)
    with pytest.raises(ExpStarError, match=r"gives no answer \(.*timed out"):
        annotator(url, tmp_path, timeout_s=0.2, retries=1).annotate("气体", SAID)
    assert len(asked) == 2


def test_silence_is_told_in_a_sentence(tmp_path):
    with pytest.raises(ExpStarError, match="气体: found no speech"):
        annotator("http://127.0.0.1:9/v1", tmp_path).annotate("气体", AsrFile(subtitles=[]))
