"""The commentary as one HTML page: works from disk without a network, runs no script but its own, prints."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from PIL import Image

from expstar_utils.media import probe, sample_frames
from expstar_utils.publishing.documents import KINDS, clean, language_of, same_steps
from expstar_utils.publishing.subtitles import subtitles
from expstar_utils.records import ExpStarError

EMBEDDED_BYTES = 24 << 20  # a longer video stays beside the page
STILL_PX = 320  # width of a step's picture
TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm", ".ogv": "video/ogg",
         ".mkv": "video/x-matroska"}
NAMES = {"en": "English", "zh": "中文"}
LANGUAGE_TAGS = {"en": "en", "zh": "zh-Hans"}
WORDS = {
    "en": {"step": "Step {}", "play": "▶ Play", "principle": "Principle", "safety": "Safety",
           "sources": "Written from:", "relevance": "relevance {:.2f}", "pausing": "Pause after each step",
           "following": "Scroll along", "one": "1 step", "count": "{} steps",
           "trouble": "This browser cannot play the video. Is it still where it was? If so, convert it to MP4 (H.264).",
           "no_video": "The video was not there when this page was made.",
           "check": "Written by a model. Check it, and the safety notes above all, before you use it."},
    "zh": {"step": "步骤 {}", "play": "▶ 播放", "principle": "原理", "safety": "安全", "sources": "依据：",
           "relevance": "相关度 {:.2f}", "pausing": "每步结束后暂停", "following": "随视频滚动", "one": "共 1 步",
           "count": "共 {} 步", "trouble": "浏览器无法播放该视频。请确认视频仍在原处；若在，请转换为 MP4（H.264）。",
           "no_video": "生成本页时未找到视频。",
           "check": "本文由模型撰写，使用前请核对，安全提示尤须核对。"},
}


def page(docs: Sequence[dict], folder: Path, embed: bool | None = None) -> str:
    """One HTML page of one document, or of two in different languages side by side.

    Args:
        folder: where the page will lie; a video that is not embedded is linked from there. embed: whether the page holds the
            video itself; None embeds one of at most EMBEDDED_BYTES. A video that is not there is left out, and the page says so.

    Raises:
        ExpStarError: the documents are not of the same steps, or the video cannot be read.
    """
    same_steps(docs)
    video = Path(docs[0]["video"])
    there = video.is_file()
    words, style, script = WORDS.get(language_of(docs[0]), WORDS["en"]), _own("page.css"), _own("page.js")
    stills = _stills(video, docs[0]["steps"]) if there else [b""] * len(docs[0]["steps"])
    film = _film(docs, video, folder, embed, stills, words) if there else f'<p class="trouble">{escape(words["no_video"])}</p>\n'
    steps = "".join(_step([doc["steps"][i] for doc in docs], docs, still, there) for i, still in enumerate(stills))
    titles = "".join(f'<h1 lang="{_tag(doc)}">{_text(doc["title"])}</h1>\n' for doc in docs)
    count = words["one"] if len(stills) == 1 else words["count"].format(len(stills))
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf8"))
    return template.substitute(
        language=_tag(docs[0]), policy=_policy(style, script), title=_text(docs[0]["title"]), titles=titles, style=style,
        script=script, lead=f"{escape(count)} · {_text(video.name)}", film=film, steps=steps, check=escape(words["check"]))


def _own(name: str) -> str:
    return "\n" + Path(__file__).with_name(name).read_text(encoding="utf8")


def _policy(style: str, script: str) -> str:
    """Content-Security-Policy: nothing from outside, only this style and this script, by their hashes."""
    css, js = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    return (f"default-src 'none'; img-src data:; media-src 'self' file: data:; style-src 'sha256-{css}'; "
            f"script-src 'sha256-{js}'; base-uri 'none'; form-action 'none'")


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _text(text: str) -> str:
    return escape(clean(text))


def _tag(doc: dict) -> str:
    return LANGUAGE_TAGS.get(language_of(doc), escape(language_of(doc)))


def _stills(video: Path, steps: Sequence[dict]) -> list[bytes]:
    """A small JPEG of the middle of each step; nothing for a step that lies behind the end of the video."""
    info, stills = probe(video), []
    size = max(round(STILL_PX * info.height_px / info.width_px), 1), STILL_PX
    for step in steps:
        try:
            [pixels] = sample_frames(video, step["start_s"], step["end_s"], max_frames=1, size_px=size).pixels
        except ExpStarError:
            stills.append(b"")
            continue
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=80)
        stills.append(file.getvalue())
    return stills


def _source(video: Path, folder: Path, embed: bool | None) -> str:
    """Address of the video: itself, or where it lies as seen from the page."""
    if video.stat().st_size <= EMBEDDED_BYTES if embed is None else embed:
        return _data(TYPES.get(video.suffix.lower(), "video/mp4"), video.read_bytes())
    try:
        way = Path(os.path.relpath(video.resolve(), Path(folder).resolve()))
    except ValueError:  # another drive
        return video.resolve().as_uri()
    return quote(way.as_posix()) if way.parts[0] == ".." else "./" + quote(way.as_posix())


def _film(docs: Sequence[dict], video: Path, folder: Path, embed: bool | None, stills: Sequence[bytes], words: dict) -> str:
    sets = [docs] if len(docs) == 1 else [docs, *([doc] for doc in docs)]
    tracks = "".join(_track(shown, default=shown is sets[0]) for shown in sets)
    poster = f' poster="{_data("image/jpeg", stills[0])}"' if stills and stills[0] else ""
    boxes = "".join(f'<label><input type="checkbox" id="{name}"{checked}>{escape(words[name])}</label>\n'
                    for name, checked in (("pausing", ""), ("following", " checked")))
    source, trouble = _source(video, folder, embed), escape(words["trouble"])
    return (f'<div class="film">\n<video controls playsinline preload="metadata"{poster} src="{source}">\n{tracks}</video>\n'
            f'<div class="tools">\n{boxes}</div>\n<p class="trouble" hidden>{trouble}</p>\n</div>\n')


def _track(docs: Sequence[dict], default: bool) -> str:
    names = " + ".join(NAMES.get(language_of(doc), language_of(doc)) for doc in docs)
    captions = _data("text/vtt", subtitles(*docs).to_string("vtt").encode())
    return (f'<track kind="subtitles" label="{escape(names)}" srclang="{_tag(docs[0])}" src="{captions}"'
            f'{" default" if default else ""}>\n')


def clock(seconds: float) -> str:
    """`M:SS`, from an hour on `H:MM:SS`."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02d}"


def _step(steps: Sequence[dict], docs: Sequence[dict], still: bytes, playable: bool) -> str:
    """One step: its heading, what is done, principle and safety in boxes, what it was written from."""
    first, words = steps[0], [WORDS.get(language_of(doc), WORDS["en"]) for doc in docs]
    name = " · ".join(dict.fromkeys(w["step"].format(first["step"]) for w in words))
    picture = f'<img alt="" src="{_data("image/jpeg", still)}">' if still else ""
    tag = 'button type="button"' if playable else "span"
    play = f'<span class="go">{escape(words[0]["play"])}</span>' if playable else ""
    span = f"{clock(first['start_s'])}–{clock(first['end_s'])}"
    head = (f'<h2><{tag} class="head">{picture}<span><b>{escape(name)}</b><time>{escape(span)}</time></span>{play}'
            f"</{tag.split()[0]}></h2>\n")
    boxes = "".join(_box(kind, steps, docs, words) for kind in KINDS)
    used = [f"{_text(p['title'])} ({_text(p['id'])}, {words[0]['relevance'].format(p['relevance'])})"
            for p in first["passages"] if p["used"]]
    sources = f'<p class="sources">{escape(words[0]["sources"])} {"; ".join(used)}</p>\n' if used else ""
    return f'<li class="step" id="step-{first["step"]}" data-start="{first["start_s"]:.3f}">\n{head}{boxes}{sources}</li>\n'


def _box(kind: str, steps: Sequence[dict], docs: Sequence[dict], words: Sequence[dict]) -> str:
    """Notes of one kind, a column a language; nothing where there are none."""
    columns = ["".join(f"<p>{_text(note)}</p>" for note in step[kind] if clean(note)) for step in steps]
    if not any(columns):
        return ""
    text = "\n".join(f'<div lang="{_tag(doc)}">{column}</div>' for doc, column in zip(docs, columns))
    pair = f'<div class="pair">{text}</div>' if len(docs) > 1 else text
    if kind == "narration":
        return f'<div class="words">{pair}</div>\n'
    heading = escape(" · ".join(dict.fromkeys(w[kind] for w in words)))
    return f'<div class="box {kind}"><h3>{"⚠ " if kind == "safety" else ""}{heading}</h3>{pair}</div>\n'
