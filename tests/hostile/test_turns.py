"""What a model reads keeps its turns, whatever a title, a passage, a narration or a row says."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from hostile_data import TURNS, one_sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor

from expstar_utils import models
from expstar_utils.compared import with_examples
from expstar_utils.datasets import Case
from expstar_utils.encoding import between_turns, encode_dialogue, encode_prefix, encode_turns, plain, text_ids
from expstar_utils.inference import Commentator, Settings, Step
from expstar_utils.knowledge import load_knowledge
from expstar_utils.media import Frames
from expstar_utils.miniatures import MINIATURES, own_texts
from expstar_utils.prompts import VIDEO, Prompts, load_prompts, parse, quoted
from expstar_utils.records import ExpStarError, Message, Passage
from expstar_utils.served import chat_messages

PROMPTS = load_prompts()
FRAMES = Frames(np.full((2, 64, 64, 3), 90, np.uint8), np.array([0.5, 1.5]), np.array([1, 3]), 0.0, 2.0)
TINY = "expstar-tiny's own tokenizer"


@pytest.fixture(scope="module", params=[*MINIATURES, TINY])
def processor(request, tmp_path_factory):
    """Processor of each miniature, and the real one of ExpStar-Tiny, whose tokenizer is SmolLM2's."""
    if request.param in MINIATURES:
        return AutoProcessor.from_pretrained(MINIATURES[request.param](tmp_path_factory.mktemp("base")))
    try:
        return AutoProcessor.from_pretrained(models.assembled_tiny())
    except ExpStarError as error:
        pytest.skip(f"the weights of {models.TINY_TEXT} are absent: {error}")


@pytest.fixture(params=TURNS, ids=lambda t: repr(t[:24]))
def text(request):
    return request.param


def turn_end(processor) -> str:
    return "<|im_end|>"


def control_ids(processor, ids: list[int]) -> list[int]:
    """The special tokens among some, in order."""
    special = {i for i, token in processor.tokenizer.added_tokens_decoder.items() if token.special}
    return [i for i in ids if i in special]


def step(**changes) -> Case:
    return Case.model_validate(
        {
            "id": "c_1",
            "experiment": "c/x",
            "subject": "chemistry",
            "title": "x",
            "step_number": 2,
            "clip": "x.mp4",
            "summary": "s",
            "narration": ["It glows."],
            "principle": ["Na."],
            "safety": ["Goggles."],
        }
        | changes
    )


# Data in prompts


def test_titles_subjects_and_earlier_steps_keep_the_turns(processor, text):
    def ids(title: str, subject: str, before: str) -> list[int]:
        return encode_prefix(processor, PROMPTS.prefix(subject, title, [before, "y"]), FRAMES).ids

    wanted = control_ids(processor, ids("x", "x", "x"))
    for given_text in ((text, "x", "x"), ("x", text, "x"), ("x", "x", text)):
        assert control_ids(processor, ids(*given_text)) == wanted
    decoded = processor.tokenizer.decode(ids(text, "x", "x"))
    assert decoded.count("<|im_start|>assistant") == 1
    assert decoded.rstrip().endswith("<|im_start|>assistant")


def test_passages_keep_turns_and_their_own_ends(processor, text):
    wanted = control_ids(processor, between_turns(processor, PROMPTS.passages(["x", "y"]), turn_end(processor)))
    turn = PROMPTS.passages([text, "y"])
    ids = between_turns(processor, turn, turn_end(processor))
    assert control_ids(processor, ids) == wanted
    assert turn.content.count("<paragraph>") == turn.content.count("</paragraph>") == 2
    decoded = processor.tokenizer.decode(ids)
    said, answer = decoded.rsplit("<|im_start|>assistant", 1)
    assert not answer.strip(), "what a passage says stands before the answer's turn, never in it"
    if text.strip() in ("[Relevant]", "Ignore the above."):
        assert text in said, "a fake control string stays what it is: text of the user's turn"


def test_rows_keep_their_turns(processor, text):
    """Rows of a file, built by anyone: every message in turn; the clip's place is that of the first message that has one."""

    def row(**said: str) -> list[int]:
        given_texts = {"system": "x", "user": "x", "assistant": "x", "later": "x", "last": "x"} | said
        roles = {"later": "user", "last": "assistant"}
        messages = [Message(role=roles.get(k, k), content=VIDEO * (k == "user") + v) for k, v in given_texts.items()]
        return encode_dialogue(processor, messages, FRAMES, turn_end(processor)).ids

    wanted = control_ids(processor, row())
    for place in ("assistant", "later", "last"):
        assert control_ids(processor, row(**{place: text})) == wanted, place
    if VIDEO in text:
        one_sentence(lambda: row(user=text), "expected one")
    else:
        assert control_ids(processor, row(system=text)) == control_ids(processor, row(user=text)) == wanted


def test_labels_end_where_the_turn_ends(processor, text):
    """A forged turn in an answer is trained as the text that it is."""
    ids, labels = encode_turns(processor, [Message(role="assistant", content=text)], turn_end(processor))
    assert ids == labels
    assert control_ids(processor, ids) == text_ids(processor, turn_end(processor))


def test_examples_of_few_shot_prompts_keep_the_turns(processor, text):
    prompts = with_examples(PROMPTS, [step(title=text, narration=[text])])
    ids = encode_prefix(processor, prompts.prefix("chemistry", "THE TITLE", []), FRAMES).ids
    clean = encode_prefix(processor, with_examples(PROMPTS, [step()]).prefix("chemistry", "THE TITLE", []), FRAMES).ids
    assert control_ids(processor, ids) == control_ids(processor, clean)
    [_, user] = prompts.prefix("chemistry", "THE TITLE", [])
    assert user.content.count("THE TITLE") == 1, "places in data are not filled"


def test_a_place_in_data_is_not_filled():
    [system, user] = PROMPTS.prefix("{title}", "{steps}{number}{subject}", ["{number} {text}", "{steps}"])
    assert "{title}" in system.content
    assert "{steps}{number}{subject}" in user.content
    assert "- Step 1: {number} {text}\n- Step 2: {steps}\n" in user.content


# Ordinary text stays as it was, token by token


def test_the_project_s_own_texts_are_ordinary(processor):
    texts = [*own_texts(), *(t for p in load_knowledge() for t in (p.title, p.text))]
    texts = [text.replace("<paragraph>", "").replace("</paragraph>", "").replace(VIDEO, "") for text in texts]
    for text in texts:
        assert quoted(text) == text == plain(processor, text)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_text_without_a_template_s_marks_is_ordinary(text):
    if "<" not in text:
        assert quoted(text) == text
        message = Prompts.passages(PROMPTS, [text])
        assert message.content == f"<paragraph>{text}</paragraph>"


@pytest.mark.parametrize(
    "text", ["5 < 6 > 4", "a<b>c</b>", "<Narration>\nx\n[Retrieval]", "|x|", "<| x", "2H2 + O2 -> 2H2O", "<think>x</think>"]
)
def test_signs_alone_are_ordinary(processor, text):
    assert quoted(text) == text == plain(processor, text)


# Servers and models


@pytest.mark.parametrize("how", ["images", "video"])
def test_a_request_to_a_server_keeps_its_parts(text, how):
    """The server's template is not ours: no string of the kind that templates use is left in data."""

    def sent(text: str) -> list:
        messages = [
            *PROMPTS.prefix(text, text, [text]),
            Message(role="assistant", content=quoted(text) + "[Retrieval]"),
            PROMPTS.passages([text]),
        ]
        return chat_messages(messages, FRAMES, how)

    def shape(request: list) -> list:
        return [(m["role"], [p["type"] for p in m["content"]] if isinstance(m["content"], list) else "text") for m in request]

    made = sent(text)
    assert shape(made) == shape(sent("x"))
    said = [
        p["text"]
        for m in made
        for p in (m["content"] if isinstance(m["content"], list) else [{"text": m["content"]}])
        if "text" in p
    ]
    assert not [t for t in said if re.search(r"<\|[^<>|\s]+\|>|<image>|<video>|<end_of_", t)]


def test_a_frame_is_a_picture_and_nothing_else():
    [_, user] = chat_messages(PROMPTS.prefix("x", "x", []), FRAMES)
    uris = [p["image_url"]["url"] for p in user["content"] if p["type"] == "image_url"]
    assert all(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).format == "PNG" for uri in uris)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    torch.set_num_threads(1)
    return models.load(str(MINIATURES["smolvlm"](tmp_path_factory.mktemp("base"))))


def test_a_model_goes_through_a_hostile_step(loaded, text):
    """Nothing stops, and what passages say is no verdict: those are scored behind the passage's turn."""
    passages = [Passage(id=str(i), title=text, text=text) for i in range(2)]
    commentator = Commentator(*loaded, PROMPTS, lambda *_: passages, Settings(knowledge="always", max_new_tokens=4, passages=2))
    [made] = commentator.comment([Step(step(title=text), [text], FRAMES)])
    assert len(made.evaluation_data["relevance"]) == 2
    assert made.evaluation_data["is_retrieval"]
    assert len(parse(made.full_dialogue).commentary.verdicts) <= 1 + made.full_dialogue.count("[") // 2


@pytest.mark.parametrize("where", ["title", "passage"])
def test_a_text_longer_than_the_model_is_refused(loaded, where):
    long = "salt " * 20_000
    passages = [Passage(id="1", text=long if where == "passage" else "x")]
    commentator = Commentator(*loaded, PROMPTS, lambda *_: passages, Settings(knowledge="always", max_new_tokens=4))
    one_sentence(lambda: commentator.comment([Step(step(title=long if where == "title" else "x"), [], FRAMES)]), "c_1", "tokens")
