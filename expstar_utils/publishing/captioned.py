"""A video with its captions as one MP4: drawn into the pictures, or as a track that players show or hide; spoken where asked."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal

import av
import pysubs2
from av.subtitles.subtitle import SubtitleSet

from expstar_utils.cutting import COPIED_AUDIO
from expstar_utils.files import replacing
from expstar_utils.media import VideoInfo, probe
from expstar_utils.pictures import video_stream
from expstar_utils.publishing import soundtrack
from expstar_utils.publishing.documents import language_of
from expstar_utils.publishing.pen import Pen, upright
from expstar_utils.publishing.subtitles import Plan, plan, readable
from expstar_utils.publishing.voices import open_voice
from expstar_utils.records import ExpStarError

COPIED_VIDEO = ("h264", "hevc", "av1", "vp9", "mpeg4")
ENCODER = {"preset": "veryfast", "crf": "20", "bf": "0"}  # packets come in the order of showing
TIME_BASE = Fraction(1, 90_000)
LEAST_SIDE_PX = 480  # smaller pictures are enlarged before anything is written on them
STILL_S = 0.1  # a picture that stands longer than this is shown again where its caption changes
BREATH_MS = 350  # after each spoken note
LANGUAGES = {"en": "eng", "zh": "zho"}  # as MP4 names them
Timed = tuple[float, av.Packet]
Shown = tuple[float, av.VideoFrame]


def write_mp4(path: Path, video: Path, docs: Sequence[dict], how: Literal["burn", "track"] = "track", hold: bool = False,
              speak: bool = False) -> Plan:
    """Write a video with the captions of one document, or of two in different languages.

    Args:
        how: "burn" draws them into the pictures, "track" copies the pictures and adds a subtitle track. hold: the picture stands
            still at the end of a step until all its notes were read. speak: they are also spoken, in the first document's
            language; this holds the picture too.

    Returns:
        what is shown when.

    Raises:
        ExpStarError: the video cannot be read, is `path` itself, or no font or voice for the language is installed.
    """
    path, info = Path(path), probe(video)
    if path.exists() and path.samefile(video):
        raise ExpStarError(f"{path}: found the video itself, expected another file to write to; choose another folder")
    voice = open_voice(language_of(docs[0])) if speak else None
    say = lru_cache(maxsize=None)(lambda text: soundtrack.resampled(voice.say(text), voice.rate_hz))
    made = plan(docs, hold or speak, (lambda text: 1000 * len(say(text)) // soundtrack.RATE_HZ + BREATH_MS) if voice else None)
    speech = [(ms, say(note.texts[0])) for ms, note in made.spoken if note.texts[0]] if voice else []
    with replacing(path) as unfinished, av.open(str(unfinished), "w", format="mp4", options={
            "movflags": "+faststart", "fflags": "+bitexact"}) as out:
        out.metadata["title"] = docs[0]["title"]
        film = _Film(info, made, how, "+".join(language_of(doc) for doc in docs))
        film.write(out, speech)
    return made


class _Film:
    """One MP4 in the making."""

    def __init__(self, info: VideoInfo, made: Plan, how: str, language: str):
        self.info, self.made, self.how, self.language = info, made, how, language
        with av.open(str(info.path)) as source:
            stream = video_stream(source)
            self.origin_s = float((stream.start_time or 0) * stream.time_base)
            self.channels = min(max((s.codec_context.channels for s in source.streams.audio), default=1), 2)
        self.end_s = made.shown_s(max(info.duration_s, made.holds[-1][0] / 1000 if made.holds else 0))

    def write(self, out: av.container.OutputContainer, speech: soundtrack.Speech) -> None:
        """Write all streams, their packets in the order of time."""
        with av.open(str(self.info.path)) as source:
            copied = self.how == "track" and _copied(source)
            pictures = self._copied(out, source, [video_stream(source)]) if copied else self._encoded(out, source)
            sounds = list(source.streams.audio)
            same = not speech and not self.made.holds and all(s.codec_context.name in COPIED_AUDIO for s in sounds)
            with av.open(str(self.info.path)) as again:
                parts = [pictures]
                if sounds and same:
                    parts.append(self._copied(out, again, list(again.streams.audio)))
                elif sounds or speech:
                    parts.append(self._mixed(out, speech))
                if self.how == "track":
                    parts.append(self._track(out))
                out.start_encoding()
                for _, packet in heapq.merge(*parts, key=lambda item: item[0]):
                    out.mux(packet)

    def _copied(self, out: av.container.OutputContainer, source: av.container.InputContainer,
                streams: list[av.stream.Stream]) -> Iterator[Timed]:
        """Packets as they are, later by as long as pictures were held before them."""
        tracks = {stream.index: out.add_stream_from_template(stream) for stream in streams}
        def packets() -> Iterator[Timed]:
            """Packets of the source, at their new times."""
            for packet in with_read_times(source.demux(streams)):
                base = packet.time_base
                packet.pts, packet.dts = (round(self.made.shown_s(float(t * base) - self.origin_s) / base)
                                          for t in (packet.pts, packet.dts))
                packet.stream = tracks[packet.stream.index]
                yield float(packet.dts * base), packet
        return standing(packets(), self.end_s, self.info.fps) if self.made.holds else packets()

    def _encoded(self, out: av.container.OutputContainer, source: av.container.InputContainer) -> Iterator[Timed]:
        """Pictures encoded anew, upright, with captions drawn into them unless there is a track."""
        stream, info = video_stream(source), self.info
        factor = -(-LEAST_SIDE_PX // min(info.width_px, info.height_px)) if self.how == "burn" else 1
        width, height = (max(side * factor // 2 * 2, 2) for side in (info.width_px, info.height_px))
        track = out.add_stream("libx264", rate=stream.average_rate or Fraction(25), options=ENCODER)
        track.width, track.height, track.pix_fmt, track.codec_context.time_base = width, height, "yuv420p", TIME_BASE
        if stream.codec_context.pix_fmt == "yuv420p":
            for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
                setattr(track.codec_context, name, getattr(stream.codec_context, name))
        return standing(self._written(track, source, Pen(self.made.captions if self.how == "burn" else [], width, height)),
                        self.end_s, info.fps)

    def _written(self, track: av.VideoStream, source: av.container.InputContainer, pen: Pen) -> Iterator[Timed]:
        time_s = 0.0
        for time_s, frame in paced(self._decoded(source, video_stream(source)), self.made, self.end_s):
            picture = pen.written(upright(frame, self.info.rotation, pen.width, pen.height), time_s)
            picture.pts, picture.time_base = round(time_s / TIME_BASE), TIME_BASE
            yield from ((time_s, packet) for packet in track.encode(picture))
        yield from ((time_s, packet) for packet in track.encode(None))

    def _decoded(self, source: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Shown]:
        stream.thread_type = "AUTO"
        for frame in source.decode(stream):
            if frame.pts is not None:
                yield self.made.shown_s(float(frame.pts * stream.time_base) - self.origin_s), frame

    def _mixed(self, out: av.container.OutputContainer, speech: soundtrack.Speech) -> Iterator[Timed]:
        track = out.add_stream("aac", rate=soundtrack.RATE_HZ, layout="stereo" if self.channels == 2 else "mono")
        sound = soundtrack.frames(self.info.path, self.origin_s, self.end_s, self.made.holds, speech, self.channels)
        def packets() -> Iterator[Timed]:
            """Encoded sound, the voice mixed in."""
            time_s = 0.0
            for frame in sound:
                time_s = frame.time
                yield from ((time_s, packet) for packet in track.encode(frame))
            yield from ((time_s, packet) for packet in track.encode(None))
        return packets()

    def _track(self, out: av.container.OutputContainer) -> Iterator[Timed]:
        """Captions as timed text (3GPP TS 26.245), which MP4 players know as mov_text."""
        track = out.add_stream("mov_text")
        track.codec_context.subtitle_header = pysubs2.SSAFile().to_string("ass").encode()
        track.codec_context.time_base = track.time_base = Fraction(1, 1000)
        track.metadata["language"] = LANGUAGES.get(self.language, "mul" if "+" in self.language else "und")
        def packets() -> Iterator[Timed]:
            """One packet a caption."""
            for place, caption in enumerate(self.made.captions):
                text = f"{place},0,Default,,0,0,0,," + r"\N".join(map(readable, caption.lines))
                length = caption.end_ms - caption.start_ms
                packet = track.codec_context.encode_subtitle(SubtitleSet.create(text.encode(), 0, length, caption.start_ms))
                packet.pts = packet.dts = caption.start_ms
                packet.duration, packet.time_base, packet.stream = length, Fraction(1, 1000), track
                yield caption.start_ms / 1000, packet
        return packets()


def _copied(source: av.container.InputContainer) -> bool:
    """Whether MP4 takes the pictures as they are."""
    stream = video_stream(source)
    times = [(p.pts, p.dts) for p in source.demux(stream) if p.size] if stream.codec_context.name in COPIED_VIDEO else []
    source.seek(0)
    first = next((i for i, (_, dts) in enumerate(times) if dts is not None), None)
    return first is not None and all(pts is not None for pts, _ in times) and all(dts is not None for _, dts in times[first:])


def with_read_times(packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
    """Packets that hold something, each with a time of decoding; Matroska leaves out those of the first ones of a stream."""
    waiting: dict[int, list[av.Packet]] = {}
    for packet in packets:
        if packet.pts is None or not packet.size:
            continue
        early = waiting.setdefault(packet.stream.index, [])
        if packet.dts is None:
            early.append(packet)
            continue
        for back, one in enumerate(reversed(early), 1):
            one.dts = packet.dts - back * max(packet.duration or 0, 1)
        yield from (*early, packet)
        early.clear()


def paced(frames: Iterable[Shown], made: Plan, end_s: float) -> Iterator[Shown]:
    """(when it is shown, frame); one that stands for long comes again where its caption changes."""
    changes, before = sorted({ms / 1000 for c in made.captions for ms in (c.start_ms, c.end_ms)}), None
    for time_s, frame in chain(frames, [(end_s, None)]):
        if before:
            inside = slice(bisect_right(changes, before[0] + 1e-3), bisect_left(changes, time_s - STILL_S))
            yield from ((change, before[1]) for change in changes[inside])
        before = time_s, frame
        if frame:
            yield before


def standing(packets: Iterable[Timed], end_s: float, fps: float) -> Iterator[Timed]:
    """The same packets, the last one lasting to the end, or for one picture where the end is said to come before it."""
    last = None
    for item in packets:
        if last:
            yield last
        last = item
    if last:
        packet = last[1]
        left = round(end_s / packet.time_base) - packet.pts
        packet.duration = left if left > 0 else round(1 / fps / packet.time_base)
        yield last
