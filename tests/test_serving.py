"""A real server on the loopback address: the prompt it reads is ours, its words are those of the model in process."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from endpoint import completion
from small_runs import noise_clips

from expstar_utils import models
from expstar_utils.datasets import Case
from expstar_utils.inference import Settings
from expstar_utils.media import sample_frames
from expstar_utils.miniatures import MINIATURES
from expstar_utils.profiles import load_profile
from expstar_utils.prompts import load_prompts
from expstar_utils.records import ExpStarError, Passage
from expstar_utils.served import ServedCommentator, Server, chat_messages, infer_served
from expstar_utils.serving import adapter_name, preflight, vllm_command

MESSAGES = load_prompts().prefix("chemistry", "Flames", ["It glows."])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return noise_clips(tmp_path_factory.mktemp("clips"), [3, 4])


@pytest.fixture(scope="module", params=["smolvlm", "qwen2_5_vl"])
def serving(request, tmp_path_factory):
    """(folder of a miniature, address of `transformers serve` that serves it)."""
    folder = MINIATURES[request.param](tmp_path_factory.mktemp("served") / request.param)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = open(folder / "serve.log", "w")  # noqa: SIM115
    command = [Path(sys.executable).with_name("transformers"), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port),
               "--device", "cpu"]
    process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                assert process.poll() is None, (folder / "serve.log").read_text()[-2000:]
                time.sleep(0.5)
        yield folder, f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def in_process(folder, sent, count):
    """(tokens of the prompt, text of `count` greedy tokens) of the same messages through the model's own processor."""
    torch.set_num_threads(1)
    model, processor = models.load(str(folder))
    inputs = processor.apply_chat_template(_with_images(sent), tokenize=True, add_generation_prompt=True, return_dict=True,
                                           return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=count, do_sample=False)[0, inputs["input_ids"].shape[1]:]
    return inputs["input_ids"].shape[1], processor.decode(ids, skip_special_tokens=True)


def _with_images(sent):
    """Chat messages as processors take them: a text is a part of its own, a picture has its address as `url`."""
    return [{"role": m["role"], "content": [
        {"type": "image", "url": p["image_url"]["url"]} if p["type"] == "image_url" else p
        for p in (m["content"] if isinstance(m["content"], list) else [{"type": "text", "text": m["content"]}])]} for m in sent]


def test_the_server_reads_our_prompt_and_says_what_the_model_says(serving, root):
    folder, url = serving
    frames = sample_frames(root / "1.mp4", fps=1, max_frames=3, size_px=(56, 56))

    async def ask():
        async with ServedCommentator(Server(url, str(folder)), load_prompts(), None, Settings()) as client:
            return await client.ask(MESSAGES, frames, 12)
    reply = asyncio.run(ask())
    prompt_tokens, text = in_process(folder, chat_messages(MESSAGES, frames), 12)
    assert reply.prompt_tokens == prompt_tokens
    assert reply.text.strip() == text.strip()
    assert text.strip()


def test_a_whole_run_through_a_real_server(serving, root, tmp_path):
    folder, url = serving
    step = {"subject": "chemistry", "title": "Flames", "step_number": 1, "summary": "s", "narration": ["x"]}
    cases = [Case.model_validate({"id": f"chemistry_{n}", "experiment": f"chemistry/{n}", "clip": f"{n}.mp4", **step})
             for n in range(2)]
    settings = Settings(max_new_tokens=8, passages=2, knowledge="always")
    found = [Passage(id="p", text="Copper burns green."), Passage(id="q", text="Sodium burns yellow.")]
    made = ServedCommentator(Server(url, str(folder), concurrency=2), load_prompts(), lambda *_: found, settings)
    predictions, problems = infer_served(made, cases, root, tmp_path / "p.jsonl", fps=1, max_frames=2, frame_size=(56, 56))
    assert problems == []
    assert [p.id for p in predictions] == ["chemistry_0", "chemistry_1"]
    assert all(p.evaluation_data["passage_ids"] == ["p", "q"] for p in predictions)


def test_preflight_asks_a_real_server_for_its_models(serving):
    folder, url = serving
    with pytest.raises(ExpStarError, match="answers as .* does, expected an adapter that changes something"):
        preflight(Server(url, str(folder)), str(folder))
    with pytest.raises(ExpStarError, match="expected 'expstar-1'; start it with that model"):
        preflight(Server(url, "expstar-1"), str(folder))


def test_preflight_tells_an_adapter_from_its_base(endpoint):
    url, asked = endpoint(lambda messages: completion(f"answer {len(asked)}"))
    preflight(Server(url, "m"), "m")
    assert len(asked) == 2
    same, _ = endpoint(completion("the same"))
    with pytest.raises(ExpStarError, match="expected an adapter that changes something"):
        preflight(Server(same, "m"), "m")
    with pytest.raises(ExpStarError, match="expected a running server"):
        preflight(Server("http://127.0.0.1:9/v1", "m", retries=0, timeout_s=1), "m")


def test_the_command_names_an_adapter_by_its_weights(tmp_path):
    names = []
    for content in (b"a", b"b", b"a"):
        (tmp_path / "adapter_model.safetensors").write_bytes(content)
        names.append(adapter_name(tmp_path))
    assert names[0] == names[2] != names[1]
    command = vllm_command(load_profile("paper"), tmp_path)
    assert command.startswith("vllm serve Qwen/Qwen2.5-VL-7B-Instruct --host 127.0.0.1 --data-parallel-size 4")
    assert f"--lora-modules {names[2]}={tmp_path}" in command
