"""Rows of made-up commentary for the benchmark and the tests of the metrics: English and Chinese, some empty."""

from __future__ import annotations

import random
from collections.abc import Sequence

from expstar_utils.evaluation_rows import TextPair

_WORDS = """
the a of is heat heated heating oxygen flask beakers beaker copper sulfate solution turns turned blue pour slowly lamp light
lights reaction rapid quick quickly measure measured gas gases tube dry dried bubbles warm, cool. CO₂ 5.0 g NaOH isn't "hot"
(50 °C). water acid base mixture colour changes 2H₂+O₂→2H₂O wear goggles! burn ignite fire flame
"""
ENGLISH = tuple(_WORDS.split())
CHINESE = ("加热", "烧杯。", "二氧化碳", "慢慢，", "溶液变蓝", "注意安全！", "CO₂", "点燃")
SUBJECTS = ("chemistry", "physics", "biology", "kid", "electronic", "civil", "material")


def text(rng: random.Random, words: Sequence[str], length: int) -> str:
    """Tagged text of about `length` words; principle and safety are there in about half."""
    parts = []
    for tag in ("Narration", "Principle", "Safety"):
        if tag == "Narration" or rng.random() < 0.5:
            count = max(1, round(length * (0.6 if tag == "Narration" else 0.3)))
            parts.append(f"<{tag}>\n" + " ".join(rng.choice(words) for _ in range(count)))
    return "\n".join(parts) + "\n"


def changed(rng: random.Random, reference: str, words: Sequence[str], share: float = 0.5) -> str:
    """The reference with a share of its words exchanged and a few dropped; its lines stay."""
    def word(old: str) -> str:
        return old if old.startswith("<") or rng.random() > share else rng.choice([*words, ""])
    return "\n".join(" ".join(word(old) for old in line.split(" ")) for line in reference.split("\n"))


def pairs(count: int, length: int = 14, seed: int = 0) -> list[TextPair]:
    """Seeded rows over the seven published subjects; every tenth is Chinese, every 25th prediction empty."""
    rng, rows = random.Random(seed), []
    for at in range(count):
        words = CHINESE if at % 10 == 3 else ENGLISH
        reference = text(rng, words, max(1, round(length * rng.lognormvariate(0, 0.5))))
        prediction = ("", " \n")[at % 2] if at % 25 == 7 else changed(rng, reference, words)
        subject = SUBJECTS[at % len(SUBJECTS)]
        rows.append(TextPair(f"{subject}_{at}", prediction, reference, subject, subject))
    return rows
