"""The inspector's player: the browser's side of video, frames and keys; a thin widget around `inspector.js`."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

WEBM = b"\x1aE\xdf\xa3"  # how such a file begins


class Player(anywidget.AnyWidget):
    """Plays a clip that Python sends as bytes, and tells of keys.

    clip: a whole file, mp4 or webm; empty shows none. message: why there is none. case_id: of the case that is looked at.
    rater, place: whose work it is and on what, which the browser remembers over a reload.

    Messages that it sends: `{kind: "hello", rater?, id?}` once it is there, with what the browser remembers; `{kind: "want", id}`
    when a case has stood still long enough to load its film; `{kind: "step", to: "next" | "previous"}` for a key.
    """

    _esm = Path(__file__).with_name("inspector.js")

    clip = traitlets.Bytes(b"").tag(sync=True)
    mime = traitlets.Unicode("video/mp4").tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)
    case_id = traitlets.Unicode("").tag(sync=True)
    rater = traitlets.Unicode("").tag(sync=True)
    place = traitlets.Unicode("").tag(sync=True)

    def play(self, clip: bytes, message: str = "") -> None:
        """Show a clip, or with no bytes a message in its place."""
        self.mime = "video/webm" if clip.startswith(WEBM) else "video/mp4"
        self.message, self.clip = message, clip
