"""Step clips as files: what lies behind a key frame is copied, only the edges are encoded, first and last frame exact.

An H.264 track may hold several parameter sets. The edges are encoded under an id that the source does not use, and all sets stand
in the track's header, so that a player decodes copied and encoded pictures alike. What cannot be cut so is encoded as a whole.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from expstar_utils.media import check_span, probe
from expstar_utils.pictures import video_stream

ENCODER = {"preset": "ultrafast", "crf": "17", "bf": "0"}
COPIED_AUDIO = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
LAYOUTS = {1: "mono", 2: "stereo"}  # where a file tells only how many channels there are
PARAMETERS_ID = 7  # of the edges' parameter sets; encoders number theirs from 0
NEVER = 1 << 62


@dataclass(frozen=True)
class Clip:
    """A stretch to cut out: seconds from the video's first frame, the end excluded; path of the new mp4."""

    start_s: float
    end_s: float
    path: Path


@dataclass(frozen=True)
class Groups:
    """Groups of pictures that can be copied, in the stream's time base, and the reason why not, empty where they can.

    keys: when each is shown. shown, read: when every frame is shown and decoded, in the order of decoding. delay: between them.
    """

    keys: list[int] = field(default_factory=list)
    shown: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    read: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    delay: int = 0
    reason: str = ""

    def copied_to(self, key: int, end: int) -> int:
        """Up to when frames of the group from `key` on can be copied, so that all shown before `end` come along.

        Frames are copied in the order of decoding until one that is shown at `end` or later; what must come after it, because
        it is predicted from it, has to be encoded: a few frames, or none (then the answer is `end`).
        """
        at = int(np.flatnonzero(self.shown == key)[0])
        late = np.flatnonzero(self.shown[at:] >= end)
        stop = at + int(late[0]) if len(late) else len(self.shown)
        rest = self.shown[stop:][self.shown[stop:] < end]
        first = int(rest.min()) if len(rest) else end
        fits = self.shown[at:stop].max() < first and self.read[stop - 1] < first - self.delay
        return first if fits or not len(rest) else key


def cut_clips(video: Path, clips: Sequence[Clip]) -> list[str]:
    """Cut clips out of one video, replacing files of their names; each appears whole or not at all.

    Returns:
        for each clip "" when whole groups were copied, else why all of it was encoded.

    Raises:
        ExpStarError: see `media.probe`; also when a clip lies outside the file.
    """
    for clip in clips:
        check_span(probe(video), clip.start_s, clip.end_s)
    with av.open(str(video)) as source:
        groups = find_groups(source, video_stream(source))
        for clip in clips:
            clip.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = clip.path.with_name(f".{clip.path.stem[:40]}.{os.getpid()}.part")
            try:
                if groups.reason:
                    encode_whole(source, clip, unfinished)
                else:
                    _Cutter(source, groups, clip).write(unfinished)
                os.replace(unfinished, clip.path)
            finally:
                with suppress(FileNotFoundError):
                    unfinished.unlink()
    return [groups.reason] * len(clips)


def find_groups(source: av.container.InputContainer, stream: av.VideoStream) -> Groups:
    """Groups of pictures of a video, from its packets alone."""
    if reason := _not_copied(stream.codec_context, [s.codec_context.name for s in source.streams.audio]):
        return Groups(reason=reason)
    keys, shown, read, delay = [], [], [], 0
    source.seek(0)
    for packet in source.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None or packet.dts is None:
            return Groups(reason="it has packets without time")
        if packet.is_keyframe and shown and packet.pts < max(shown[-32:]):
            return Groups(reason="its key frames are shown out of order")
        if keys and packet.pts < keys[-1]:
            return Groups(reason="its groups of pictures are open")
        if packet.is_keyframe:
            keys.append(packet.pts)
            delay = max(delay, packet.pts - packet.dts)
        shown.append(packet.pts)
        read.append(packet.dts)
    return Groups(keys, np.array(shown, np.int64), np.array(read, np.int64), delay, "" if keys else "it has no key frame")


def _not_copied(context: av.VideoCodecContext, sounds: Sequence[str]) -> str:
    if context.name != "h264":
        return f"its codec is {context.name}, not h264"
    if context.pix_fmt not in ("yuv420p", "yuvj420p"):
        return f"its pixels are {context.pix_fmt}, not yuv420p"
    if odd := [name for name in sounds if name not in COPIED_AUDIO]:
        return f"its sound is {odd[0]}, which mp4 does not take"
    header = context.extradata or b""
    return "" if header[:1] == b"\x01" and len(header) > 8 and header[4] & 3 == 3 else "its parameter sets stand in no header"


def both_headers(source: bytes, edges: bytes) -> bytes:
    """The source's `avcC` header with the parameter sets of the edges (start codes between them) added.

    Source: ISO/IEC 14496-15, 5.3.3.1.
    """
    sets, at = [], 5
    for mask in (0x1F, 0xFF):
        count, at, found = source[at] & mask, at + 1, []
        for _ in range(count):
            size = int.from_bytes(source[at:at + 2], "big")
            found.append(source[at + 2:at + 2 + size])
            at += 2 + size
        sets.append(found)
    for unit in units(edges):
        kind = {7: 0, 8: 1}.get(unit[0] & 0x1F)
        if kind is not None:
            sets[kind].append(unit)
    first, second = (b"".join(len(u).to_bytes(2, "big") + u for u in found) for found in sets)
    return source[:5] + bytes([0xE0 | len(sets[0])]) + first + bytes([len(sets[1])]) + second + source[at:]


def units(stream: bytes) -> list[bytes]:
    """Parts of an H.264 byte stream, without their start codes."""
    return [unit for unit in re.split(rb"\x00{2,}\x01", stream) if unit]


class _Edge:
    """Frames with first <= time < end, decoded and encoded again."""

    def __init__(self, cutter: _Cutter, first: int, end: int):
        context = cutter.stream.codec_context
        self.decoder = av.CodecContext.create(context.name, "r")
        self.decoder.extradata, self.decoder.thread_type = context.extradata, "AUTO"
        self.encoder, self.cutter, self.first, self.end = cutter.new_encoder(), cutter, first, end

    def feed(self, packet: av.Packet | None) -> Iterator[av.Packet]:
        """Encoded packets; None ends the edge."""
        for frame in self.decoder.decode(packet):
            if frame.pts is not None and self.first <= frame.pts < self.end:
                frame.pict_type, frame.time_base = 0, self.cutter.stream.time_base
                yield from map(self._packet, self.encoder.encode(frame))
        if packet is None:
            yield from map(self._packet, self.encoder.encode(None))

    def _packet(self, encoded: av.Packet) -> av.Packet:
        packet = av.Packet(b"".join(len(u).to_bytes(4, "big") + u for u in units(bytes(encoded))))
        packet.pts, packet.time_base, packet.is_keyframe = encoded.pts, self.cutter.stream.time_base, encoded.is_keyframe
        packet.dts = encoded.pts - self.cutter.groups.delay  # no B-frames here; copied packets are decoded so much earlier
        return packet


class _Cutter:
    """Writes one clip: frames before its first key frame are encoded, what follows is copied, but for a few at its end."""

    def __init__(self, source: av.container.InputContainer, groups: Groups, clip: Clip):
        self.source, self.stream, self.groups = source, video_stream(source), groups
        origin, base, keys = self.stream.start_time or 0, self.stream.time_base, groups.keys
        first, self.end = (origin + int(np.ceil(t / base - 1e-3)) for t in (clip.start_s, clip.end_s))
        inside = groups.shown[(first <= groups.shown) & (groups.shown < self.end)]
        self.first = int(inside.min()) if len(inside) else first
        own = [key for key in keys if self.first <= key < self.end]
        self.copy_from, self.last_key = (own[0], own[-1]) if own else (NEVER, NEVER)
        self.copy_to = groups.copied_to(self.last_key, self.end) if own else NEVER
        self.seek_to = keys[max(bisect_right(keys, self.first) - 1, 0)]

    def write(self, path: Path) -> None:
        """Write the clip."""
        with av.open(str(path), "w", format="mp4") as out:
            tracks = {self.stream.index: self._video_track(out)}
            tracks |= {sound.index: out.add_stream_from_template(sound) for sound in self.source.streams.audio}
            out.start_encoding()
            for index, packet in self._packets(list(tracks)):
                zero = int(self.first * self.stream.time_base / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - zero, packet.dts - zero, tracks[index]
                out.mux(packet)

    def _video_track(self, out: av.container.OutputContainer) -> av.VideoStream:
        track = out.add_stream_from_template(self.stream)
        track.codec_context.extradata = both_headers(self.stream.codec_context.extradata, self.new_encoder().extradata)
        return track

    def new_encoder(self) -> av.VideoCodecContext:
        """Encoder of one edge; all of them write the same parameter sets."""
        context, encoder = self.stream.codec_context, av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = context.width, context.height, context.pix_fmt
        encoder.time_base, encoder.framerate = self.stream.time_base, self.stream.average_rate or Fraction(25)
        encoder.color_range, encoder.colorspace = context.color_range, context.colorspace
        encoder.color_primaries, encoder.color_trc = context.color_primaries, context.color_trc
        encoder.options = ENCODER | {"x264-params": f"sps-id={PARAMETERS_ID}"}
        encoder.flags |= av.codec.context.Flags.global_header
        encoder.open()
        return encoder

    def _packets(self, indices: list[int]) -> Iterator[tuple[int, av.Packet]]:
        """(input stream, packet) for the clip, times as in the source."""
        video = self.stream.index
        head: _Edge | None = _Edge(self, self.first, min(self.end, self.copy_from))
        tail = _Edge(self, self.copy_to, self.end) if self.copy_to < self.end else None
        for packet in self._read(indices):
            if packet.stream.index != video:
                yield packet.stream.index, packet
            elif packet.pts < self.copy_from and head:
                yield from ((video, p) for p in head.feed(packet))
            else:
                if head:
                    yield from ((video, p) for p in head.feed(None))
                    head = None
                again = list(tail.feed(packet)) if tail and packet.pts >= self.last_key else []  # muxing changes its times
                if packet.pts < self.copy_to:
                    yield video, packet
                yield from ((video, p) for p in again)
        for edge in filter(None, (head, tail)):
            yield from ((video, p) for p in edge.feed(None))

    def _read(self, indices: list[int]) -> Iterator[av.Packet]:
        """Packets of the streams from the key frame before the clip until all of them have passed its end."""
        self.source.seek(self.seek_to, stream=self.stream, backward=True)
        streams, base, passed = [self.source.streams[i] for i in indices], self.stream.time_base, set()
        for packet in self.source.demux(streams):
            if packet.pts is None or packet.dts is None or not packet.size:
                continue
            if packet.dts * packet.time_base >= self.end * base:
                passed.add(packet.stream.index)
                if len(passed) == len(streams):
                    return
            elif packet.stream is self.stream or (packet.pts + (packet.duration or 0)) * packet.time_base > self.first * base:
                yield packet


def encode_whole(source: av.container.InputContainer, clip: Clip, path: Path) -> None:
    """Write a clip by encoding all of it: H.264 in even size, AAC; frames and sound keep their times."""
    stream = video_stream(source)
    base, context, origin = stream.time_base, stream.codec_context, stream.start_time or 0
    first, end = (origin + int(np.ceil(t / base - 1e-3)) for t in (clip.start_s, clip.end_s))
    with av.open(str(path), "w", format="mp4") as out:
        track = out.add_stream("libx264", rate=stream.average_rate or Fraction(25), options=ENCODER)
        track.width, track.height, track.pix_fmt = context.width // 2 * 2, context.height // 2 * 2, "yuv420p"
        track.codec_context.time_base = base
        track.set_display_rotation(probe(Path(source.name)).rotation)
        sounds = {s.index: out.add_stream("aac", rate=s.rate, layout=LAYOUTS.get(s.codec_context.channels, s.layout.name))
                  for s in source.streams.audio}
        out.start_encoding()
        for packet in _from_before(source, stream, first):
            for frame in packet.decode():
                if frame.pts is None or not first * base <= frame.pts * frame.time_base < end * base:
                    continue
                if packet.stream is stream:
                    frame = frame.reformat(track.width, track.height, track.pix_fmt)
                    frame.pict_type = 0
                frame.pts -= int(first * base / frame.time_base)
                out.mux((track if packet.stream is stream else sounds[packet.stream.index]).encode(frame))
            if packet.dts is not None and packet.stream is stream and packet.dts >= end + int(1 / base):
                break
        for written in (track, *sounds.values()):
            out.mux(written.encode(None))


def _from_before(source: av.container.InputContainer, stream: av.VideoStream, first: int) -> Iterator[av.Packet]:
    """Packets of pictures and sound from a key frame that is shown no later than `first`."""
    for at in (first, first - int(10 / stream.time_base), stream.start_time or 0):
        source.seek(max(at, 0), stream=stream, backward=True)
        packets, ahead = source.demux(stream, *source.streams.audio), []
        for packet in packets:
            ahead.append(packet)
            if packet.stream is stream and packet.pts is not None:
                break
        if ahead and (ahead[-1].pts or 0) <= first:
            break  # else a transport stream, sought by bytes, that landed too late
    yield from ahead
    yield from packets
