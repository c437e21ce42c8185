"""ExpStar: commentary for science-experiment videos. The notebooks tell the story; what they share lives here."""

__version__ = "0.1.0"
