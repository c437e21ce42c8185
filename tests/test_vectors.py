"""Vectors of a stored knowledge base: part by part on several machines, one array, and an index that fits them or is refused."""

import multiprocessing
import random
import time

import numpy as np
import pytest

from benchmarks.wiki_dump import write_dump
from expstar_utils import retrieval, shards, vectors
from expstar_utils.encoders import TextEncoder, load_encoder
from expstar_utils.files import read_json, write_json
from expstar_utils.profiles import load_profile
from expstar_utils.records import ExpStarError
from expstar_utils.retrieval import open_knowledge, open_retriever
from expstar_utils.searches import Query
from expstar_utils.shards import StoredPassages
from expstar_utils.vectors import encode_shard, index_folder, merge, merged


class Counting:
    """An encoder whose vectors depend on the text alone, and that takes a moment for each."""

    name, dimensions, sees, pause_s = "counting: test", 16, False, 0.0

    def encode_texts(self, texts):
        time.sleep(self.pause_s * len(texts))
        rows = np.array([np.random.default_rng(sum(map(ord, text))).normal(size=16) for text in texts], np.float32)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).reshape(-1, 16)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two shards of some parts each."""
    folder = tmp_path_factory.mktemp("built")
    dump = write_dump(folder / "wiki.xml", 100)
    sizes, shards.PART_PASSAGES = shards.PART_PASSAGES, 40
    for shard in range(2):
        shards.build(dump, folder / "kb", shard=shard, num_shards=2)
    shards.PART_PASSAGES = sizes
    return folder / "kb"


@pytest.fixture
def kb(built, tmp_path):
    import shutil
    return StoredPassages(shutil.copytree(built, tmp_path / "kb"))


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# Passages on disk

def test_stored_passages_are_those_that_were_built(kb, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_PASSAGES", shards.GROUP_PASSAGES)
    whole = list(kb)
    assert len(kb) == len(whole) > 200
    assert len(kb.parts) > 4
    order = random.Random(0).sample(range(len(kb)), 60)
    assert [kb[i] for i in order] == [whole[i] for i in order]
    for wrong in (-1, len(kb)):
        with pytest.raises(IndexError):
            kb[wrong]


def test_groups_of_rows_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_PASSAGES", 7)
    shards.build(write_dump(tmp_path / "wiki.xml", 30), tmp_path / "kb")
    stored = StoredPassages(tmp_path / "kb")
    assert [stored[i].id for i in range(len(stored))] == [p.id for p in stored]


def test_a_folder_of_shards_and_one_of_lines_are_opened_alike(kb):
    assert isinstance(open_knowledge(kb.folder), StoredPassages)
    assert isinstance(open_knowledge(), list)


def test_another_text_is_another_base(kb, tmp_path):
    shards.build(write_dump(tmp_path / "wiki.xml", 101), tmp_path / "other")
    assert StoredPassages(tmp_path / "other").sha256 != kb.sha256 == StoredPassages(kb.folder).sha256


def test_a_base_that_is_not_whole_is_refused(kb, tmp_path):
    (kb.folder / "shard-001-of-002" / "done.json").unlink()
    with pytest.raises(ExpStarError, match="shard-001-of-002 is not there as a whole"):
        StoredPassages(kb.folder)
    with pytest.raises(ExpStarError, match="shard-000-of-001 is not there"):
        StoredPassages(tmp_path / "nothing")
    kb.parts[0].write_bytes(b"no parquet")
    with pytest.raises(ExpStarError, match="a part cannot be read"):
        StoredPassages(kb.folder)


# Encoding

def test_shards_of_two_machines_are_merged_in_order(kb):
    encoder = Counting()
    with pytest.raises(ExpStarError, match=r"has no vectors of counting: test yet, \d+ of \d+ parts are missing"):
        merge(kb, encoder)
    assert encode_shard(kb, encoder, 0, 2) + encode_shard(kb, encoder, 1, 2) == len(kb.parts)
    assert encode_shard(kb, encoder) == 0
    array = merge(kb, encoder)
    assert isinstance(array, np.memmap)
    assert array.dtype == np.float16
    np.testing.assert_allclose(array, encoder.encode_texts([f"{p.title}. {p.text}" for p in kb]), atol=1e-3)
    assert not list(index_folder(kb.folder, encoder).glob("shard-*")), "parts are not kept twice"
    assert encode_shard(kb, encoder) == 0
    np.testing.assert_array_equal(merged(kb, encoder), array)


def killed_encoding(folder):
    Counting.pause_s = 0.002
    encode_shard(StoredPassages(folder), Counting())


def test_encoding_killed_at_ten_moments_ends_like_one_that_was_not(kb, tmp_path, built):
    import shutil
    other = StoredPassages(shutil.copytree(built, tmp_path / "whole"))
    encode_shard(other, Counting())
    context, rng, stopped = multiprocessing.get_context("fork"), random.Random(1), 0
    for _ in range(10):
        process = context.Process(target=killed_encoding, args=(kb.folder,))
        process.start()
        process.join(rng.uniform(0.05, 0.4))
        stopped += process.is_alive()
        process.kill()
        process.join()
    assert stopped
    encode_shard(kb, Counting())
    mine, its = ({n: b for n, b in content(x.folder / "vectors").items() if not n.endswith(".part")} for x in (kb, other))
    assert mine == its


def test_vectors_of_other_passages_are_made_anew(kb):
    encode_shard(kb, Counting())
    about = vectors._part_files(kb, Counting(), 0)[1]
    write_json(about, {"encoder": "another"})
    assert encode_shard(kb, Counting()) == 1


def test_a_vector_that_is_none_names_its_passage(kb, monkeypatch):
    monkeypatch.setattr(Counting, "encode_texts", lambda self, texts: np.full((len(texts), 16), np.nan, np.float32))
    with pytest.raises(ExpStarError, match=r"part-00000\.parquet: vector 0 of '.+' has length nan"):
        encode_shard(kb, Counting())
    assert not list(kb.folder.rglob("*.npy"))


def test_a_full_disk_leaves_the_parts_before(kb, monkeypatch):
    saved, save = [], np.save
    def failing(file, array):
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        saved.append(1)
        save(file, array)
    monkeypatch.setattr(np, "save", failing)
    with pytest.raises(ExpStarError, match="No space left on device"):
        encode_shard(kb, Counting())
    monkeypatch.setattr(np, "save", save)
    assert encode_shard(kb, Counting()) == len(kb.parts) - 2


@pytest.mark.parametrize(("shard", "count"), [(-1, 2), (2, 2), (0, 0)])
def test_a_shard_that_is_none_is_refused(kb, shard, count):
    with pytest.raises(ExpStarError, match="shard is"):
        encode_shard(kb, Counting(), shard, count)


# From the command line to answers

@pytest.fixture
def profile(kb, tmp_path):
    source = (load_profile("tiny").model_dump(mode="json") | {
        "knowledge_base": str(kb.folder), "retrievers": [{"name": "bm25"}, {"name": "text"}], "index_kind": "hnsw"})
    return str(write_json(tmp_path / "stored.yaml", source))


def test_a_stored_base_is_encoded_merged_indexed_and_asked(kb, profile, monkeypatch, capsys):
    setting = load_profile(profile)
    with pytest.raises(ExpStarError, match="its passages have no vectors of text:"):
        open_retriever(setting)
    for more in ([], ["--merge"]):
        monkeypatch.setattr("sys.argv", ["vectors", str(kb.folder), "--profile", profile, *more])
        vectors.main()
    assert f"{len(kb)} vectors" in capsys.readouterr().out
    with pytest.raises(ExpStarError, match=r"manifest\.json: no such file"):
        open_retriever(setting)
    tuning = [Query(p.title, p.text[:60]) for p in list(kb)[:20]]
    retriever = open_retriever(setting, tuning=tuning)
    again = open_retriever(setting)
    sought = kb[123]
    asked = Query(sought.title, sought.text)
    assert retriever.find(asked, 8)[0] == sought
    assert [p.id for p in again.find(asked, 8)] == [p.id for p in retriever.find(asked, 8)]
    assert again.searches[1][0].nearest.manifest.kind == "hnsw"
    assert retrieval.content_hash(kb) == kb.sha256


@pytest.fixture
def few(tmp_path):
    """Two shards of a few passages, and a profile that searches them by MiniLM."""
    dump = write_dump(tmp_path / "few.xml", 9)
    for shard in range(2):
        shards.build(dump, tmp_path / "few", shard=shard, num_shards=2)
    return StoredPassages(tmp_path / "few"), load_profile("tiny", knowledge_base=str(tmp_path / "few"),
                                                          retrievers=[{"name": "bm25"}, {"name": "text"}])


@pytest.mark.parametrize("kind", ["hnsw", None])
def test_what_shards_encoded_is_joined_and_not_encoded_again(few, monkeypatch, kind):
    """As notebook 03 opens it, and then 05: with an index, or few passages that are compared one by one."""
    stored, setting = few[0], few[1].model_copy(update={"index_kind": kind})
    assert [encode_shard(stored, load_encoder("text"), shard, 2) for shard in range(2)] == [1, 1]
    encode, said = TextEncoder.encode_texts, []
    def noted(self, texts):
        said.extend(texts)
        return encode(self, texts)
    monkeypatch.setattr(TextEncoder, "encode_texts", noted)
    tuning = [Query(p.title, p.text[:60]) for p in list(stored)[:5]]
    made = open_retriever(setting, tuning=tuning)
    again = open_retriever(setting)
    assert not set(said) & {f"{p.title}. {p.text}" for p in stored}
    assert len(merged(stored, load_encoder("text"))) == len(stored)
    assert made.rank(tuning, 8) == again.rank(tuning, 8)


def test_notebook_03_says_which_shard_is_missing(few):
    stored, setting = few[0], few[1].model_copy(update={"index_kind": "hnsw"})
    encode_shard(stored, load_encoder("text"), 0, 2)
    with pytest.raises(ExpStarError, match=r"part-\d+\.parquet: has no vectors of text:.+ 1 of 2 parts .+ for its shard"):
        open_retriever(setting, tuning=[Query("Light")])


def test_course_notes_need_no_more_than_their_passages(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    for n, said in enumerate(("Bunsen burners need a clear bench and tied hair before they are lit at all.",
                              "A lens of glass bends light toward its thicker part, whatever its colour may be.")):
        (notes / f"{n}.md").write_text(f"# Lesson {n}\n\n{said}\n")
    shards.build(notes, tmp_path / "kb")
    setting = load_profile("tiny", knowledge_base=str(tmp_path / "kb"))
    retriever = open_retriever(setting)
    assert retriever.find(Query("Optics", "The lens bends the light."), 8)[0].section == "Lesson 1"
    assert len(retriever.find(Query("Optics", "The lens."), 8)) == 2


def test_another_base_in_the_same_folder_is_indexed_anew(kb, profile, monkeypatch):
    for more in ([], ["--merge"]):
        monkeypatch.setattr("sys.argv", ["vectors", str(kb.folder), "--profile", profile, *more])
        vectors.main()
    tuning = [Query(p.title, p.text[:60]) for p in list(kb)[:20]]
    open_retriever(load_profile(profile), tuning=tuning)
    manifest = next(kb.folder.rglob("manifest.json"))
    write_json(manifest, read_json(manifest) | {"passages_sha256": "other"})
    with pytest.raises(ExpStarError, match="passages_sha256 is 'other'"):
        open_retriever(load_profile(profile))
    open_retriever(load_profile(profile), tuning=tuning)
    assert read_json(manifest)["passages_sha256"] == kb.sha256


def test_the_command_line_ends_with_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["vectors", str(tmp_path)])
    with pytest.raises(SystemExit, match="is not there as a whole"):
        vectors.main()
