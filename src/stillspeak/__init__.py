"""stillspeak: one face image and one speech clip become a talking-face video."""

__version__ = "0.1.0"
