"""The paper's numbers, and the leaderboard that holds them apart from ours."""

from __future__ import annotations

import pytest

from expstar_utils.published import PUBLISHED, leaderboard, own_columns, published
from expstar_utils.records import ExpStarError

OWN = [{"model": "weak", "rows": 3, "BLEU-4": 1.0, "BERTScore-F1 (MiniLM)": 30.0},
       {"model": "strong", "rows": 3, "BLEU-4": 90.0, "BERTScore-F1 (MiniLM)": 95.0}]


def test_published_and_own_rows_stand_apart():
    board = leaderboard(OWN, "own data")
    assert [row["data"] for row in board] == [PUBLISHED] * 19 + ["own data"] * 2
    assert [row["model"] for row in board[-2:]] == ["strong", "weak"]  # though the first is better than any published one
    scores = [row["BLEU-4"] for row in board[:19]]
    assert scores == sorted(scores, reverse=True)
    assert board[-2]["BERTScore"] == 95.0
    assert "METEOR" not in board[-1]
    assert not any(row["kind"] == "Ours" for row in board)  # the authors' word for themselves


def test_our_columns_say_of_which_model_they_are():
    ours = ["BLEU-4", "BERTScore-P (x)", "BERTScore-F1 (x)"]
    assert own_columns(["BLEU-4", "BERTScore"], ours) == ["BLEU-4", "BERTScore-F1 (x)"]


def test_a_table_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ExpStarError, match="found no table 'results'"):
        published("results")
    with pytest.raises(ExpStarError, match="none.csv: cannot be read as published numbers"):
        published("main_results", tmp_path / "none.csv")
