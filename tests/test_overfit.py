"""Four clips under one title are learned by heart and told apart by their pictures alone: training and inference fit together."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from small_runs import small_profile

from expstar_utils import models, training
from expstar_utils.datasets import Case, expstar_sample
from expstar_utils.inference import Commentator, Settings, infer
from expstar_utils.prompts import load_prompts
from expstar_utils.records import Passage

WORDS = ("amber", "a deep violet", "green, then grey", "no light at all")
PASSAGE = Passage(id="p", text="Copper burns green.")
EVERYTHING = r".*(text_model|language_model).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


COLOURS = ((230, 40, 30), (20, 60, 220), (40, 200, 60), (20, 20, 20))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder of four clips of 2 s, each of one colour."""
    folder = tmp_path_factory.mktemp("colours")
    for n, colour in enumerate(COLOURS):
        with av.open(str(folder / f"{n}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=4)
            stream.width = stream.height = 56
            stream.pix_fmt = "yuv420p"
            frame = np.full((56, 56, 3), colour, np.uint8)
            for _ in range(8):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    return folder


def cases():
    """One step each of four experiments that share subject and title; two of them need knowledge."""
    shared = {"subject": "chemistry", "title": "Flames", "step_number": 1, "summary": "s"}
    return [Case.model_validate({"id": f"chemistry_{n}", "experiment": f"chemistry/{n}", "clip": f"{n}.mp4", **shared,
                                 "narration": [f"The flame shows {word}."],
                                 "principle": [f"It emits {word}."] if n % 2 else []}) for n, word in enumerate(WORDS)]


def test_four_clips_are_learned_and_their_text_comes_back(base, root, tmp_path):
    prompts = load_prompts()
    rows = [expstar_sample(c, [], prompts, [PASSAGE] if c.needs_retrieval else None, relevant=True) for c in cases()]
    setting = small_profile(base, lora_r=32, lora_alpha=64, lora_target=EVERYTHING, sft_epochs=90, sft_lr=3e-3, batch_size=4,
                            max_length=2048, save_steps=1000, packed=True)
    model, processor = models.load(str(base))
    torch.manual_seed(0)
    adapter = training.train_sft(model, processor, rows, root, setting, tmp_path, str(base))
    tuned = models.load(str(base), adapter)
    for blank, right in ((False, 4), (True, 1)):
        settings = Settings(max_new_tokens=40, passages=1, blank=blank)
        made = infer(Commentator(*tuned, prompts, lambda *_: [PASSAGE], settings), cases(), root, tmp_path / f"{blank}.jsonl",
                     fps=setting.fps, max_frames=setting.max_frames_sft, frame_size=setting.frame_size)
        same = [p.response.strip() == c.reference().strip() for p, c in zip(made, cases(), strict=True)]
        assert sum(same) == right if not blank else sum(same) <= right, [p.full_dialogue for p in made]
