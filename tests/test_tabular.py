"""Rows go into a table and come back as they were, whatever a row holds."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expstar_utils.files import dump_line, read_jsonl
from expstar_utils.records import ExpStarError, Sample
from expstar_utils.tabular import from_dataset, read_parquet, to_dataset, to_splits, write_parquet

DEMO = Path(__file__).parents[2] / "shared" / "expstar_demo"
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason=f"the published demo is not at {DEMO}")
ROW = {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "<video>"},
                    {"role": "assistant", "content": "A\n", "weight": 0}],
       "videos": ["a.mp4", {"video": "b.mp4", "start": 5, "end": 7.25}], "id": "u_1"}

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
time = st.one_of(st.integers(0, 10_000), st.floats(0, 1e4, allow_nan=False))
clip = st.one_of(text, st.fixed_dictionaries({"end": time, "video": text, "start": time}, optional={"note": text}))
message = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": text},
                                optional={"weight": st.sampled_from([0, 1]), "name": text})
rows = st.fixed_dictionaries({"id": text, "videos": st.lists(clip, max_size=2), "messages": st.lists(message, max_size=4)},
                             optional={"rejected_response": st.one_of(st.none(), text), "source": st.lists(st.integers())})


@given(st.lists(rows, min_size=1, max_size=4))
def test_rows_come_back_byte_for_byte(content):
    samples = [Sample.model_validate(row) for row in content]
    assert list(map(dump_line, from_dataset(to_dataset(samples)))) == list(map(dump_line, samples))


def test_columns_are_those_that_others_expect():
    table = to_dataset([Sample.model_validate(ROW)])
    assert table.column_names[:3] == ["id", "messages", "videos"]
    assert table[0]["messages"][1] == {"role": "user", "content": "<video>"}
    assert table[0]["videos"] == [{"video": "a.mp4", "start": None, "end": None}, {"video": "b.mp4", "start": 5.0, "end": 7.25}]


def test_parquet_is_written_whole_and_read_back(tmp_path):
    samples = [Sample.model_validate(ROW), Sample.model_validate(ROW | {"rejected_response": "No."})]
    path = write_parquet(tmp_path / "deep" / "train.parquet", samples)
    assert list(map(dump_line, read_parquet(path))) == list(map(dump_line, samples))
    assert [p.name for p in path.parent.iterdir()] == ["train.parquet"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ExpStarError, match="cannot be written"):
        write_parquet(tmp_path / "file" / "train.parquet", samples)


def test_splits_stand_side_by_side_even_when_one_is_empty():
    parts = to_splits({"train": [Sample.model_validate(ROW)], "val": []})
    assert {name: len(part) for name, part in parts.items()} == {"train": 1, "val": 0}


@needs_demo
@pytest.mark.parametrize("kind", ["3baseline_dataset", "4Expstar_dataset", "5Expstar_rl_dataset"])
def test_demo_rows_survive_a_table(kind, tmp_path):
    [source] = (DEMO / kind).glob("*.jsonl")
    samples = list(read_jsonl(source, Sample))
    assert list(map(dump_line, read_parquet(write_parquet(tmp_path / "rows.parquet", samples)))) == list(map(dump_line, samples))
