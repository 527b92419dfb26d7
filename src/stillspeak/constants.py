"""The numbers that everything else derives from, stated once.

Sources are in ``docs/how-it-works.md``; the paper gives the audio window (section 2.1),
its authors' released code the frame size and rate.
"""

VIDEO_FPS = 25
"""Video frames in a second, all through the system."""

SAMPLE_RATE = 16_000
"""Audio samples in a second inside the system (mono, float32 in [-1, 1])."""

AUDIO_WINDOW_SECONDS = 0.16
"""Length of the audio window that each video frame sees (paper, section 2.1)."""

FRAME_HEIGHT = 128
FRAME_WIDTH = 96
"""Height and width of the aligned crop in pixels."""

EXPRESSION_DIM = 2
"""Of each frame, relative to the still: how much further the eyes are closed (mean of the two
eyeBlink blendshapes, 1 being shut), and how much higher the brows are (units of BROW_PIXELS)."""

BROW_PIXELS = 2.0
"""Pixels of the 128 x 96 crop to a unit of the brows' height."""

BLINK_PEAK = (0.47, 0.60)
"""Closures that blinks reach: the middle half of 300 blinks of GRID's training speakers."""
