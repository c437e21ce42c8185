"""The tagged text: building and parsing are inverse; nothing that a model writes breaks the parser."""

from hypothesis import given
from hypothesis import strategies as st

from expstar_utils import prompts
from expstar_utils.prompts import CONTROLS, SECTIONS, Commentary, build, load_prompts, parse

TAGS = [*SECTIONS, *CONTROLS]
lines = st.text(min_size=1, max_size=60).map(str.strip).filter(
    lambda s: s and len(s.splitlines()) == 1 and not any(s.startswith(t) or s.endswith(t) for t in TAGS))
sections = st.lists(lines, min_size=1, max_size=4).map(tuple)
notes = st.one_of(st.just(()), sections)


@st.composite
def commentaries(draw):
    retrieve = draw(st.sampled_from([None, True, False]))
    verdicts = tuple(draw(st.lists(st.booleans(), max_size=8))) if retrieve else ()
    return Commentary(draw(sections), draw(notes), draw(notes), retrieve, verdicts)


@given(commentaries())
def test_parse_undoes_build(commentary):
    parsed = parse(build(commentary))
    assert parsed.commentary == commentary
    assert parsed.well_formed


@given(st.lists(st.one_of(st.text(max_size=30), st.sampled_from([*TAGS, "\n", " "])), max_size=30).map("".join))
def test_no_model_output_breaks_the_parser(text):
    parsed = parse(text)
    assert all(isinstance(line, str) and line for line in parsed.commentary.narration)
    if not any(tag in text for tag in SECTIONS):
        assert "no section tag at all" in parsed.faults


def test_faults_are_named():
    assert parse("The gas burns.").faults == ("text before any tag: 'The gas burns.'", "no section tag at all")
    assert parse("<Narration>\nA\n<Narration>\nB").faults == ("<Narration> stands twice",)
    assert parse("<Principle>\nA").faults == ("no <Narration>",)
    assert parse("<Narration>\n<Safety>\nA").faults == ("nothing under <Narration>",)
    assert parse("<Narration>\nA\n<Safety>\nB\n<Principle>\nC").faults == ("sections out of order",)
    assert parse("<Narration>\nA\n[Retrieval]\n[No Retrieval]").faults == ("more than one decision about retrieval",)


def test_published_one_line_form_is_read():
    parsed = parse("<Narration>\nBase cards\n[Retrieval] [Irrelevant]\n<Principle>\nA=T and G=C")
    assert parsed.commentary == Commentary(("Base cards",), ("A=T and G=C",), (), True, (False,))


def test_prompt_carries_title_history_and_braces_as_they_are():
    messages = load_prompts().prefix("chemistry", 'A "{steps}" title', ["one {text}"])
    assert messages[1].content.startswith(prompts.VIDEO)
    assert 'A "{steps}" title' in messages[1].content
    assert "- Step 1: one {text}" in messages[1].content
    assert "Now proceeding with Step 2:" in messages[1].content
