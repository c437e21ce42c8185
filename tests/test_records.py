"""File formats and files: the published demo survives byte for byte, writing is whole or not at all, bad input is named."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expstar_utils import files, records
from expstar_utils.files import (
    append_jsonl,
    dump_line,
    inside,
    read_json,
    read_jsonl,
    read_record,
    write_json,
    write_jsonl,
    write_text,
)
from expstar_utils.records import (
    AsrFile,
    EvaluationRow,
    ExpStarError,
    Message,
    Pair,
    Passage,
    Prediction,
    Sample,
    StepsFile,
    Subtitle,
    VirtualClip,
    format_time,
    parse_time,
)

DEMO = Path(__file__).parents[2] / "shared" / "expstar_demo"
KINDS = {"1data/asr-*.json": AsrFile, "1data/step-*.json": StepsFile, "2pair-data/*/*.json": Pair,
         "3baseline_dataset/*.jsonl": Sample, "4Expstar_dataset/*.jsonl": Sample, "5Expstar_rl_dataset/*.jsonl": Sample,
         "6Expstar_result/*.jsonl": Prediction, "7eval/*.jsonl": EvaluationRow}
DEMO_FILES = [(path, kind) for pattern, kind in KINDS.items() for path in sorted(DEMO.glob(pattern))]
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason=f"the published demo is not at {DEMO}")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-10**9, 10**9) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(st.none() | st.booleans() | numbers | texts,
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# Round trips

@needs_demo
def test_every_file_of_the_demo_has_a_format():
    known = {path for path, _ in DEMO_FILES}
    assert {p for p in DEMO.rglob("*") if p.suffix in (".json", ".jsonl")} == known
    assert len({kind for _, kind in DEMO_FILES}) == 6


@needs_demo
@pytest.mark.parametrize(("path", "kind"), DEMO_FILES, ids=lambda value: value.name if isinstance(value, Path) else "")
def test_demo_file_survives_byte_for_byte(path, kind, tmp_path):
    published = path.read_bytes()
    if path.suffix == ".json":
        second_line = published.decode("utf8").splitlines()[1]
        indent = len(second_line) - len(second_line.lstrip())
        written = write_json(tmp_path / path.name, read_record(path, kind), indent).read_bytes()
    else:
        lines = published.decode("utf8").split("\n")
        assert [dump_line(row) for row in read_jsonl(path, kind)] == [line for line in lines if line]
        written = write_jsonl(tmp_path / path.name, read_jsonl(path, kind)).read_bytes().rstrip(b"\n")
        published = published.rstrip(b"\n")
    assert written == published


@st.composite
def subtitle_rows(draw):
    """Rows of an ASR file in any order of keys, with keys that the format does not know."""
    known = {"id": draw(st.integers(0, 99)), "startTime": draw(st.sampled_from(["0:00:01", "1:02:03.5", 7, 7.25])),
             "endTime": draw(st.sampled_from(["0:00:09", 9, 9.5]))}
    optional = draw(st.fixed_dictionaries({}, optional={
        "text": texts, "text_en": texts, "step": st.none() | st.integers(), "equation": st.none() | texts}))
    unknown = draw(st.dictionaries(texts.filter(lambda k: k not in Subtitle.model_fields), plain, max_size=4))
    row = known | optional | unknown
    return {key: row[key] for key in draw(st.permutations(list(row)))}


@given(subtitle_rows())
def test_keys_keep_their_order_and_unknown_ones_stay(row):
    assert dump_line(Subtitle.model_validate(row)) == json.dumps(row, ensure_ascii=False)


@given(st.lists(subtitle_rows(), max_size=3), st.permutations(["subtitles", "source", "用户"]))
def test_nested_rows_keep_theirs_too(rows, order):
    whole = {"subtitles": rows, "source": "x", "用户": {"b": 1, "a": 2}}
    whole = {key: whole[key] for key in order}
    assert dump_line(AsrFile.model_validate(whole)) == json.dumps(whole, ensure_ascii=False)


def test_numbers_keep_the_form_they_were_written_in():
    for row in ({"video": "a.mp4", "start": 1, "end": 2.0}, {"end": 2, "start": 0.5, "video": "a"}):
        assert dump_line(VirtualClip.model_validate(row)) == json.dumps(row)


def test_changed_and_added_fields_are_written():
    message = Message.model_validate({"content": "a", "role": "user"})
    message.content = "b"
    assert dump_line(message) == '{"content": "b", "role": "user"}'
    passage = Passage.model_validate({"text": "t", "id": "1"})
    passage.relevant = 4
    assert dump_line(passage) == '{"text": "t", "id": "1", "relevant": 4}'


# Times

@given(st.integers(0, 10**9))
def test_format_time_and_parse_time_are_inverse_to_the_millisecond(ms):
    text = format_time(ms / 1000)
    assert round(parse_time(text) * 1000) == ms
    assert format_time(parse_time(text)) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (16.0, "0:00:16"), (16.25, "0:00:16.250"), (65, "0:01:05"),
                                               (59.9996, "0:01:00"), (3723.004, "1:02:03.004"), (36000, "10:00:00")])
def test_times_are_written_as_published_with_milliseconds_only_where_there_are_some(seconds, text):
    assert format_time(seconds) == text


@given(st.floats(0, 10**6))
def test_formatting_a_time_moves_it_by_half_a_millisecond_at_most(seconds):
    assert abs(parse_time(format_time(seconds)) - seconds) <= 0.0005 + 1e-9


@pytest.mark.parametrize(("text", "seconds"), [
    ("0:00:16", 16), ("1:02:03", 3723), ("0:00:16.25", 16.25), ("0:00:16,250", 16.25), ("02:03", 123), (" 7 ", 7),
    ("7.5", 7.5), (7, 7)])
def test_times_are_read_in_every_published_form(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "1:2:3:4", "0:00:-5", None, True])
def test_what_is_no_time_is_named(text):
    with pytest.raises(ValueError, match="found .*, expected a time"):
        parse_time(text)


# JSONL: torn lines, appending

ROWS = [Passage(id=str(i), text="水 and ice") for i in range(3)]
WHOLE = "".join(dump_line(row) + "\n" for row in ROWS).encode("utf8")
LAST = WHOLE.rindex(b"\n", 0, -1) + 1
NEW = Passage(id="new", text="x")


@pytest.mark.parametrize("end", range(LAST, len(WHOLE) - 1))
def test_line_torn_at_any_byte_is_dropped_on_read_and_on_append(end, tmp_path):
    """Also inside a character of three bytes."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(WHOLE[:end])
    assert [row.id for row in read_jsonl(path, Passage)] == ["0", "1"]
    append_jsonl(path, NEW)
    assert path.read_bytes() == WHOLE[:LAST] + dump_line(NEW).encode() + b"\n"


def test_last_row_that_lacks_only_its_line_end_is_kept_by_both(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(WHOLE[:-1])
    assert [row.id for row in read_jsonl(path, Passage)] == ["0", "1", "2"]
    append_jsonl(path, NEW)
    assert path.read_bytes() == WHOLE + dump_line(NEW).encode() + b"\n"


def test_appending_makes_the_file_that_writing_makes(tmp_path):
    for row in ROWS:
        append_jsonl(tmp_path / "new folder" / "a.jsonl", row)
    assert (tmp_path / "new folder" / "a.jsonl").read_bytes() == WHOLE == write_jsonl(tmp_path / "b", ROWS).read_bytes()


def test_byte_order_mark_blank_lines_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE.replace(b"\n", b"\r\n\r\n"))
    assert list(read_jsonl(path, Passage)) == ROWS


# Atomic writing

@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_full_disk_leaves_the_old_file_and_nothing_else(step, tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(files.os, step, full)
    with pytest.raises(ExpStarError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_text(tmp_path / "a.txt", "new")
    assert contents(tmp_path) == {"a.txt": b"old"}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_interrupted_write_leaves_the_old_file_and_nothing_else(stop, tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")

    def interrupt(_):
        raise stop
    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(stop):
        write_text(tmp_path / "a.txt", "new")
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_text_that_is_no_unicode_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        write_json(tmp_path / "a.json", "\ud800")
    assert contents(tmp_path) == {"a.json": b'"old"'}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs of 64 KiB needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a tmpfs of 64 KiB needs root")
def test_really_full_disk_loses_nothing(small_disk):
    write_text(small_disk / "a.txt", "old")
    with pytest.raises(ExpStarError, match="No space left on device"):
        write_text(small_disk / "a.txt", "new" * 100_000)
    assert contents(small_disk) == {"a.txt": b"old"}
    write_jsonl(small_disk / "rows.jsonl", ROWS)
    with pytest.raises(ExpStarError, match=r"rows\.jsonl: cannot be appended to \(No space left on device\)"):
        append_jsonl(small_disk / "rows.jsonl", Passage(id="big", text="x" * 100_000))
    assert list(read_jsonl(small_disk / "rows.jsonl", Passage)) == ROWS
    append_jsonl(small_disk / "rows.jsonl", NEW)
    assert (small_disk / "rows.jsonl").read_bytes() == WHOLE + dump_line(NEW).encode() + b"\n"


def test_names_with_chinese_blanks_and_quotes_are_ordinary(tmp_path):
    name = "02-一氧化碳 'of' \"燃烧\" .. " + "长" * 60 + ".json"
    assert read_json(write_json(tmp_path / name, {"名": 1})) == {"名": 1}


# Paths

@pytest.fixture
def root(tmp_path):
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "data" / "link").symlink_to(tmp_path)
    (tmp_path / "data" / "round").symlink_to("round")
    return tmp_path / "data"


@pytest.mark.parametrize("path", ["..", "../secret.txt", "sub/../../secret.txt", "/etc/passwd", "link/secret.txt", "link",
                                  "../data2/a", "sub/\0", "round/a"])
def test_path_that_leaves_the_root_is_refused(path, root):
    with pytest.raises(ExpStarError, match="expected one inside the data set"):
        inside(root, path)


@pytest.mark.parametrize("path", ["a.mp4", "sub/../a.mp4", "sub/..a/b..c", "中文 'x'/\"y\".mp4", "."])
def test_path_inside_the_root_is_the_same_path(path, root):
    assert inside(root, path) == Path(os.path.normpath(root / path))


# Bad input

@pytest.mark.parametrize(("line", "said"), [
    ('{"id": "2"}', "text is missing, expected: Field required"),
    ('{"id": "2", "text": 5}', "text is 5, expected: Input should be a valid string"),
    ('{"id": "2", "text": "a", "relevant": "much"}', "relevant is 'much', expected: Input should be a valid integer"),
    ("[1]", "value is [1], expected: "),
    ("{'id': 2}", "found text that is not JSON ("),
    ('{"id": "2", "text": "a"', "found text that is not JSON ("),
    ('{"id": "2", "text": "\udcff"}', "found text that is not JSON ("),
])
def test_bad_line_is_one_sentence_with_file_line_and_field(line, said, tmp_path):
    path = tmp_path / "my rows.jsonl"
    path.write_bytes(f'{{"id": "1", "text": "a"}}\n{line}\n{{"id": "3", "text": "c"}}\n'.encode("utf8", "surrogateescape"))
    rows = read_jsonl(path, Passage)
    assert next(rows).id == "1"
    with pytest.raises(ExpStarError) as caught:
        next(rows)
    assert str(caught.value).startswith(f"{path}, line 2: {said}")
    assert "\n" not in str(caught.value)


def test_nested_field_is_named_with_its_place(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": [{"role": "user", "content": "a"}, {"role": "boss", "content": "b"}],
                                               "videos": [], "id": "1"}])
    with pytest.raises(ExpStarError, match=r"a\.jsonl, line 1: messages\.1\.role is 'boss', expected: Input should be 'system'"):
        list(read_jsonl(path, Sample))


@pytest.mark.parametrize("field", ["clip_start", "clip_end"])
def test_time_that_is_none_is_named_when_a_pair_is_read(field, tmp_path):
    pair = {"original_video": "v", "clip_start": "0:00:01", "clip_end": "0:00:02", "step_number": 1, "clip_video_path": "v",
            "subject": "chemistry", "annotations": []}
    read_record(write_json(tmp_path / "good.json", pair), Pair)
    with pytest.raises(ExpStarError, match=rf"bad\.json: {field}.* is 'soon', expected"):
        read_record(write_json(tmp_path / "bad.json", pair | {field: "soon"}), Pair)


@pytest.mark.parametrize("read", [read_json, lambda path: list(read_jsonl(path, Passage)), lambda path: read_record(path, Pair)])
def test_missing_file_folder_and_wrong_encoding_are_named(read, tmp_path):
    for name in ("none.json", "folder", "utf16.json"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "utf16.json").write_bytes('{"a": 1}\n'.encode("utf-16"))
        with pytest.raises(ExpStarError) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_subjects_are_twenty_one_in_three_disciplines():
    assert len(records.SUBJECTS) == len(set(records.SUBJECTS)) == 21
    assert [len(subjects) for subjects in records.DISCIPLINES.values()] == [7, 7, 7]
