"""Commentary as people read, watch and hear it: page, subtitles, captioned and spoken films."""
