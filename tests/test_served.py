"""Inference through a server: the adaptive method by requests, probabilities from tokens, bad servers, runs that go on."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time

import numpy as np
import pytest
from endpoint import completion, refusal
from PIL import Image
from small_runs import noise_clips

from expstar_utils.datasets import Case
from expstar_utils.files import read_jsonl
from expstar_utils.inference import Settings, Step
from expstar_utils.media import sample_frames
from expstar_utils.predicted import cases_of_shard, gathered
from expstar_utils.prompts import NO_RETRIEVAL, RETRIEVAL, load_prompts, parse
from expstar_utils.records import ExpStarError, Message, Passage, Prediction
from expstar_utils.served import Reply, ServedCommentator, Server, chat_messages, decided, infer_served

PASSAGES = [Passage(id=f"p{i}", title=t, text=f"{t} burns with {t} light.")
            for i, t in enumerate(("Sodium", "Copper", "Lithium"))]
SETTINGS = Settings(passages=3, max_new_tokens=32, shown=1)


def case(number, experiment, step=1):
    return Case.model_validate({"id": f"chemistry_{number}", "experiment": experiment, "subject": "chemistry", "title": "Flames",
                                "step_number": step, "clip": f"{number}.mp4", "summary": "s", "narration": ["It glows."]})


CASES = [case(0, "chemistry/a"), case(1, "chemistry/a", 2), case(2, "chemistry/b"), case(3, "chemistry/b", 2)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return noise_clips(tmp_path_factory.mktemp("clips"), [3, 4, 2, 3])


def said(messages):
    """All texts of a request, one after the other."""
    parts = [m["content"] if isinstance(m["content"], list) else [{"type": "text", "text": m["content"]}] for m in messages]
    return [p["text"] for of_message in parts for p in of_message if p["type"] == "text"]


def teacher(messages):
    """A model that narrates, asks, and finds the passage on copper relevant."""
    last = said(messages)[-1]
    if "<paragraph>" not in last:
        return completion("<Narration>\nIt glows.\n[Retrieval]")
    if "Copper" in last:
        return completion("[Relevant]\n<Principle>\nCopper ions emit green light.\n")
    return completion("[Irrelevant]\n")


def commentator(url, settings=SETTINGS, find=lambda case, clip, k: PASSAGES[:k], **server):
    given = {"retries": 2, "timeout_s": 5.0} | server
    return ServedCommentator(Server(url, "m", **given), load_prompts(), find, settings)


def run(url, root, out, cases=CASES, **changes):
    return infer_served(commentator(url, **changes), cases, root, out, fps=1, max_frames=3, frame_size=(32, 32))


def test_the_adaptive_method_by_requests(endpoint, root, tmp_path):
    url, asked = endpoint(teacher)
    found, problems = run(url, root, tmp_path / "p.jsonl", CASES[:1])
    [prediction] = found
    assert problems == []
    data = prediction.evaluation_data
    assert prediction.full_dialogue == (
        "<Narration>\nIt glows.\n[Retrieval]\n[Relevant]\n<Principle>\nCopper ions emit green light.\n")
    assert parse(prediction.full_dialogue).well_formed
    assert data["passage_ids"] == ["p0", "p1", "p2"]
    assert data["relevance"] == [0.0, 1.0, 0.0]
    assert data["relevant_ids"] == ["p1"]
    assert len(asked) == 1 + 3 + 1
    assert len({json.dumps(a["messages"][:2]) for a in asked}) == 1  # one prefix, for the server's cache
    assert list(read_jsonl(tmp_path / "p.jsonl", Prediction)) == found


def test_no_retrieval_ends_the_step(endpoint, root, tmp_path):
    url, asked = endpoint(completion("<Narration>\nIt glows.\n[No Retrieval]"))
    [prediction], _ = run(url, root, tmp_path / "p.jsonl", CASES[:1])
    assert len(asked) == 1
    assert prediction.response == "<Narration>\nIt glows.\n"
    assert prediction.evaluation_data["is_retrieval"] is False
    always, _ = run(url, root, tmp_path / "q.jsonl", CASES[:1], settings=Settings(**(vars(SETTINGS) | {"knowledge": "always"})))
    assert always[0].evaluation_data["is_retrieval"] is True


def test_frames_are_sent_whole_with_their_times(root):
    frames = sample_frames(root / "1.mp4", 1.0, 4.0, fps=1, size_px=(32, 32))
    [system, user] = chat_messages([Message(role="system", content="s"), Message(role="user", content="a<video>b")], frames)
    assert system == {"role": "system", "content": "s"}
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", *["text", "image_url"] * 3, "text"]
    times = [part["text"] for part in user["content"][1:-1:2]]
    assert times == [f"<{t:.1f} seconds>" for t in frames.times_s - 1.0]
    for part, frame in zip(user["content"][2:-1:2], frames.pixels, strict=True):
        coded = part["image_url"]["url"].removeprefix("data:image/png;base64,")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(coded)))), frame)
    [video] = [p for p in chat_messages([Message(role="user", content="<video>")], frames, "video")[0]["content"]
               if p["type"] == "video_url"]
    assert video["video_url"]["url"].startswith("data:video/jpeg;base64,")
    assert video["video_url"]["url"].count(",") == 3


def tokens(*parts):
    """Tokens with their alternatives: text, or (text, {alternative: probability})."""
    listed = [(p, {p: 1.0}) if isinstance(p, str) else p for p in parts]
    return Reply("".join(text for text, _ in listed), tuple((text, {a: float(np.log(v)) for a, v in found.items()})
                                                           for text, found in listed))


@pytest.mark.parametrize(("reply", "expected"), [
    (tokens("Hi.\n", "[", ("Ret", {"Ret": 0.6, "No": 0.2, "x": 0.2}), "rieval]"), 0.75),
    (tokens("Hi.\n", ("[R", {"[R": 0.3, "[N": 0.1}), "etrieval]"), 0.75),
    (tokens("Hi.\n[", ("No", {"R": 0.1, "Ret": 0.1, "No": 0.6}), " Retrieval]"), 0.25),
    (tokens("Hi", (".\n[Ret", {".\n[Ret": 0.5, ".\n[No": 0.5, ".": 0.0001}), "rieval]"), 0.5),
    (Reply("Hi.\n[Retrieval]"), 1.0), (Reply("Hi.\n[No Retrieval]"), 0.0), (Reply("Hi."), None), (Reply(""), None),
    (Reply("[No Retrieval] or [Retrieval]"), 0.0)])
def test_a_decision_has_the_probability_of_its_token(reply, expected):
    assert decided(reply, RETRIEVAL, NO_RETRIEVAL) == (expected if expected is None else pytest.approx(expected))


def test_a_decision_by_log_probabilities_is_read_from_the_wire(endpoint, root):
    status, body = completion("Hi.\n[Retrieval]")
    alternatives = [{"token": t, "logprob": float(np.log(p)), "bytes": None} for t, p in (("Ret", 0.8), ("No", 0.2))]
    body["choices"][0]["logprobs"] = {"content": [
        {"token": t, "logprob": 0.0, "bytes": None, "top_logprobs": alternatives if t == "Ret" else []}
        for t in ("Hi", ".\n", "[", "Ret", "rieval", "]")]}
    url, asked = endpoint((status, body))

    async def ask():
        async with commentator(url) as client:
            step = Step(CASES[0], [], sample_frames(root / "0.mp4", size_px=(32, 32)))
            return await client.ask(load_prompts().prefix("chemistry", "x", []), step.frames, 8)
    reply = asyncio.run(ask())
    assert decided(reply, RETRIEVAL, NO_RETRIEVAL) == pytest.approx(0.8)
    assert reply.prompt_tokens == 100
    assert asked[0]["top_logprobs"] == 10


@pytest.mark.parametrize("bad", [refusal(429), refusal(500), refusal(503), (200, b"<html>busy</html>"), (200, {"choices": []}),
                                 (200, {"error": "x"}), (0, completion("half")[1]), (200, b"")],
                         ids=["429", "500", "503", "garbage", "no choice", "no completion", "half", "nothing"])
def test_what_goes_wrong_once_is_asked_again(endpoint, root, tmp_path, bad):
    url, asked = endpoint(bad, teacher)
    found, problems = run(url, root, tmp_path / "p.jsonl", CASES[:1])
    assert problems == []
    assert "Copper ions" in found[0].response
    assert len(asked) == 6


def test_a_server_that_hangs_is_left_after_the_timeout(endpoint, root, tmp_path):
    url, _ = endpoint(lambda messages: time.sleep(1.0) or completion("late"))
    started = time.monotonic()
    found, [problem] = run(url, root, tmp_path / "p.jsonl", CASES[:1], timeout_s=0.1, retries=1)
    assert found == []
    assert time.monotonic() - started < 5
    assert "Request timed out" in problem.found


@pytest.mark.parametrize("bad", [refusal(500), refusal(400), (200, b"garbage")], ids=["500", "400", "garbage"])
def test_one_experiment_that_fails_is_named_and_the_others_go_on(endpoint, root, tmp_path, bad):
    def half(messages):
        return bad if any("Step 2" in text for text in said(messages)) else teacher(messages)
    url, _ = endpoint(half)
    cases = [*CASES[:2], case(2, "chemistry/b")]
    found, [problem] = run(url, root, tmp_path / "p.jsonl", cases)
    assert [p.id for p in found] == ["chemistry_0", "chemistry_2"]
    assert problem.file == "chemistry_1"
    assert "expected a chat completion of 'm'" in problem.found
    whole, problems = run(endpoint(teacher)[0], root, tmp_path / "p.jsonl", cases)
    assert [p.id for p in whole] == [c.id for c in cases]
    assert problems == []
    assert whole[0] == found[0]  # what was there is kept


def test_what_is_there_is_not_asked_for_again(endpoint, root, tmp_path):
    url, asked = endpoint(teacher)
    first, _ = run(url, root, tmp_path / "p.jsonl")
    count = len(asked)
    again, _ = run(url, root, tmp_path / "p.jsonl")
    assert (again, len(asked)) == (first, count)
    text = (tmp_path / "p.jsonl").read_bytes()
    (tmp_path / "p.jsonl").write_bytes(text[:len(text) * 2 // 3])
    run(url, root, tmp_path / "p.jsonl")
    assert {p.id for p in read_jsonl(tmp_path / "p.jsonl", Prediction)} == {c.id for c in CASES}
    with pytest.raises(ExpStarError, match="made with tau=0.5, expected tau=0.9"):
        run(url, root, tmp_path / "p.jsonl", settings=Settings(**(vars(SETTINGS) | {"tau": 0.9})))


def test_shards_through_a_server_gathered_are_the_whole_to_the_byte(endpoint, root, tmp_path):
    """Whoever answers first: the file ends in the order of the experiments."""
    def late(messages):
        time.sleep(0.05 * any("Step 2" in text for text in said(messages)) + 0.02 * (len(asked) % 3))
        return teacher(messages)
    url, asked = endpoint(late)
    run(url, root, tmp_path / "whole.jsonl")
    for shard in range(2):
        run(url, root, tmp_path / f"p.shard-{shard}-of-2.jsonl", cases_of_shard(CASES, 1, shard, 2))
    count = len(asked)
    assert len(gathered(tmp_path / "p.jsonl", CASES, SETTINGS, 1)) == len(CASES)
    found, problems = run(url, root, tmp_path / "p.jsonl")
    assert (len(asked), problems) == (count, [])
    assert [p.id for p in found] == [c.id for c in CASES]
    assert (tmp_path / "p.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_history_is_what_the_server_said_before(endpoint, root, tmp_path):
    url, asked = endpoint(teacher)
    run(url, root, tmp_path / "p.jsonl", CASES[:2])
    second = [a for a in asked if any("Step 2" in text for text in said(a["messages"]))]
    assert second
    assert all(any("Step 1: It glows." in text for text in said(a["messages"])) for a in second)


def test_vllm_is_told_to_take_all_frames_at_their_times(endpoint, root, tmp_path):
    url, asked = endpoint(completion("<Narration>\nIt glows.\n[No Retrieval]"))
    run(url, root, tmp_path / "p.jsonl", CASES[1:2], frames="video")
    told = asked[0]["media_io_kwargs"]["video"]
    assert told == {"num_frames": -1, "fps": 0.75, "frames_indices": [0, 1, 2], "total_num_frames": 3, "duration": 4.0,
                    "do_sample_frames": False}


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_requests_at_once_than_allowed(endpoint, root, tmp_path, limit):
    running, most, lock = 0, 0, threading.Lock()

    def counted(messages):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return teacher(messages)
    url, _ = endpoint(counted)
    run(url, root, tmp_path / "p.jsonl", concurrency=limit)
    assert most == limit
