"""Speech out of a video: timed subtitle lines from Whisper, on the CPU and offline."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from tqdm.auto import tqdm

from expstar_utils.listening import SAMPLE_RATE_HZ, Whisper, Word, load, spans
from expstar_utils.media import probe
from expstar_utils.pictures import video_stream
from expstar_utils.records import AsrFile, ExpStarError, Subtitle, format_time

# Whisper writes the words it has just read: without these it hears 储气瓶 (gas holder) as everyday homophones.
GLOSSARY = {
    "zh": ("试管", "烧杯", "锥形瓶", "导管", "活塞", "储气瓶", "酒精灯", "火柴", "火焰", "澄清石灰水", "浑浊", "溶液", "沉淀",
           "滴管", "滑动变阻器", "电流表", "电压表", "线圈", "显微镜", "盖玻片"),
    "en": ("test tube", "beaker", "flask", "tubing", "stopcock", "gas holder", "burner", "match", "flame", "limewater",
           "cloudy", "solution", "precipitate", "pipette", "rheostat", "ammeter", "voltmeter", "coil", "microscope",
           "cover slip"),
}
_ALL_NAMES = {name for names in GLOSSARY.values() for name in names}
OPENING = {"zh": "以下是普通话的实验讲解。", "en": "Commentary of a science experiment."}
# Written by Whisper over silence and music, because its training data ends that way (openai/whisper#928, faster-whisper#521).
CREDITS = re.compile(
    r"字幕\s*(由|志愿|制作|組|组|by|提供|校对|翻译|:|：)|amara\.?\s*org|点赞.{0,6}(订阅|转发)|(订阅|转发).{0,6}(点赞|打赏)|打赏支持|明镜与点点|"
    r"(谢谢|感谢|多谢)(您的|大家|你的|各位)?(观看|收看|收听)|优优独播|词曲|作曲|索兰娅|"
    r"thank(s| you)( so much| very much)? for (watching|listening|viewing)|subtitles? (by|provided)|captions? by|"
    r"(like and|please) subscribe|subscribe to (my|our|the) channel|transcri(bed|ption) by|copyright", re.IGNORECASE)
SENTENCE_END = "。！？!?.…"
CLAUSE_END = SENTENCE_END + "，,;；:：、"
PAUSE_S = 0.45        # a silence that begins a new line
CLAUSE_WIDTH = 24     # a line at least so wide may end at a comma; a Chinese character counts 2
MAX_WIDTH = 84        # two rows of a subtitle
ECHO_NAMES = 4        # a line of so many glossary names and nothing else is Whisper reading its prompt aloud
MAX_WIDTH_PER_S = 40  # nobody speaks faster: such a line was made up over a silence


def transcribe(path: Path, title: str = "", glossary: Sequence[str] = (), language: str | None = None, model: str = "",
               progress: bool = True, english: bool = False, engine: str = "faster-whisper") -> AsrFile:
    """What is said in a video, as subtitle lines in order.

    Args:
        title: of the experiment; with `glossary` it tells Whisper which words to expect.
        glossary: more names to expect; the built-in apparatus names of the language are always given.
        language: of the speech ("zh", "en", ...); None detects it.
        engine, model: see `listening.load`.
        progress: show a bar over the seconds of audio.
        english: let Whisper translate each line of another language into `text_en`; Whisper base makes nonsense of Chinese lines,
            so nothing asks for it by default.

    Returns:
        AsrFile; ids from 1, times from the start of the file with milliseconds, Chinese in simplified characters;
        `text_en` equals `text` for English and is otherwise empty without `english`. No audio track, or no speech: no subtitles.

    Raises:
        ExpStarError: the file is not a readable video, Whisper does not know the language, or the weights cannot be had.
    """
    info = probe(path)
    audio = _decode(path) if info.has_audio else np.zeros(0, np.float32)
    voiced = _voiced(audio)
    if not len(voiced):
        return AsrFile(subtitles=[])
    whisper = load(engine, model)
    language = _known(language, whisper) if language else whisper.detect(voiced)
    segments = whisper.segments(audio, language, prompt(title, glossary, language), progress)
    delay_s = _delay_s(path)
    lines = list(_subtitles(segments, language, delay_s))
    if english and language != "en":
        _translate(whisper, audio, lines, language, delay_s, progress)
    return AsrFile(subtitles=lines)


def prompt(title: str, glossary: Sequence[str], language: str) -> str:
    """Text that Whisper is told came before: punctuated, in the language of the speech, with the title and the glossary.

    A title in the other script is left out: it would pull the transcript into the wrong language.
    """
    chinese = language == "zh"
    title = title if bool(re.search(r"[\u4e00-\u9fff]", title)) == chinese else ""
    names = [*glossary, *GLOSSARY.get(language, ())]
    stop, comma = ("。", "、") if chinese else (". ", ", ")
    parts = [OPENING.get(language, ""), title.strip().rstrip("。.") + stop if title.strip() else "", comma.join(names)]
    return "".join(p if p.endswith(stop) or not p else p.rstrip() + stop for p in parts).strip()


def is_made_up(text: str, duration_s: float = math.inf) -> bool:
    """Whether a line is what Whisper writes over silence: a subtitle credit, its own prompt, or words too many for the time.

    Args:
        text: the line. duration_s: seconds it is said to last.
    """
    names = [part.strip().lower() for part in re.split(r"[,，、。.]\s*", text) if part.strip()]
    echo = len(names) >= ECHO_NAMES and all(name in _ALL_NAMES for name in names)
    return bool(CREDITS.search(text)) or echo or _width(text) > MAX_WIDTH_PER_S * duration_s


def simplified(text: str) -> str:
    """The text with traditional Chinese characters replaced by simplified ones."""
    return _converter().convert(text)


@lru_cache(maxsize=1)
def _converter():
    from opencc import OpenCC
    return OpenCC("t2s")


def _known(language: str, whisper: Whisper) -> str:
    """Whisper's code of a language: "zh-CN" is "zh"."""
    code = language.strip().lower().split("-")[0]
    if code not in whisper.languages:
        raise ExpStarError(f"language: found {language!r}, expected a code such as zh or en; leave it empty to have it detected")
    return code


def _decode(path: Path) -> np.ndarray:
    """Mono audio, float32 in [-1, 1] at SAMPLE_RATE_HZ; empty when the track holds no sound."""
    from faster_whisper import decode_audio
    try:
        return decode_audio(str(path), SAMPLE_RATE_HZ).astype(np.float32)
    except (av.FFmpegError, ValueError, IndexError, TypeError):
        # the pictures are readable (probe said so): a broken sound track is the same as none
        return np.zeros(0, np.float32)


def _delay_s(path: Path) -> float:
    """Seconds by which the sound track starts after the pictures; 0 in most files."""
    with av.open(str(path)) as container:
        sound, pictures = container.streams.audio[0], video_stream(container)
        return float((sound.start_time or 0) * sound.time_base - (pictures.start_time or 0) * pictures.time_base)


def _voiced(audio: np.ndarray) -> np.ndarray:
    """Only the parts with a voice in them, joined; empty when there are none."""
    return np.concatenate([audio[:0], *(audio[span["start"]:span["end"]] for span in spans(audio))])


def _translate(whisper: Whisper, audio: np.ndarray, lines: Sequence[Subtitle], language: str, delay_s: float,
               progress: bool) -> None:
    """Fill `text_en`, each line on its own: in a whole transcript, English sentences do not end where the lines do."""
    for line in tqdm(lines, desc="Translating", unit="line", disable=not progress):
        start, end = (round(max(at_s - delay_s, 0.0) * SAMPLE_RATE_HZ) for at_s in (line.start_s, line.end_s))
        text = whisper.translated(audio[start:end], language)
        line.text_en = "" if is_made_up(text, line.end_s - line.start_s) else text


def _all_credit(words: Sequence[Word]) -> bool:
    """Whether a segment is one made-up line; a sentence may run on from one segment into the next, a credit does not."""
    return len(split_lines(words)) == 1 and is_made_up(simplified(_text(words)))


def _text(words: Iterable[Word]) -> str:
    return "".join(w.word for w in words).strip()


def _subtitles(segments: Iterable[Sequence[Word]], language: str, delay_s: float) -> Iterator[Subtitle]:
    number = 0
    for line in split_lines([word for words in segments if not _all_credit(words) for word in words]):
        text = simplified(_text(line)) if language in ("zh", "yue") else _text(line)
        if not text.strip(CLAUSE_END + " ") or is_made_up(text, line[-1].end - line[0].start):
            continue
        number += 1
        start, end = (format_time(max(t + delay_s, 0.0)) for t in (line[0].start, line[-1].end))
        yield Subtitle(id=number, startTime=start, endTime=end, text=text, text_en=text if language == "en" else "")


def split_lines(words: Sequence[Word]) -> list[list[Word]]:
    """Words grouped into subtitle lines: cut at pauses, at sentence ends, at commas of a long line, and when too wide."""
    lines = [[words[0]]] if words else []
    for before, word in pairwise(words):
        if _line_ends(lines[-1], before, word):
            lines.append([])
        lines[-1].append(word)
    return lines


def _line_ends(line: Sequence[Word], before: Word, word: Word) -> bool:
    said = before.word.strip()
    if word.start - before.end >= PAUSE_S or said.endswith(tuple(SENTENCE_END)):
        return not (said.endswith(".") and word.word[:1].isdigit())  # 0.5 is no end of a sentence
    width = _width(_text(line))
    return width + _width(word.word) > MAX_WIDTH or (width >= CLAUSE_WIDTH and said.endswith(tuple(CLAUSE_END)))


def _width(text: str) -> int:
    return sum(2 if ord(c) >= 0x2E80 else 1 for c in text.strip())


def word_error_rate(said: str, heard: str) -> float:
    """Insertions, deletions and substitutions over the number of words said, without case and punctuation.

    Returns:
        float >= 0; each Chinese character counts as a word. Nothing said: the number of words heard.
    """
    reference, found = (re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", text.lower()) for text in (said, heard))
    row = list(range(len(found) + 1))
    for i, word in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1] / max(len(reference), 1)
