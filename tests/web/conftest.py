"""The fixtures of tests/support/web.py, for the tests in this folder."""

from support.web import client, make_app, picture_bytes, sound_bytes, weights_file

__all__ = ["client", "make_app", "picture_bytes", "sound_bytes", "weights_file"]
