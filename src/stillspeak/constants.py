"""The numbers that everything else derives from, stated once.

Sources are in ``docs/how-it-works.md``; the paper gives the audio window (section 2.1),
its authors' released code the frame size and rate.
"""

VIDEO_FPS = 25
"""Video frames in a second that the models know."""

SAMPLE_RATE = 16_000
"""Audio samples in a second inside the system (mono, float32 in [-1, 1])."""

AUDIO_WINDOW_SECONDS = 0.16
"""Length of the audio window that each video frame sees (paper, section 2.1)."""

FRAME_HEIGHT = 128
FRAME_WIDTH = 96
"""Height and width of the aligned crop in pixels."""

BLINK_PEAK = (0.47, 0.60)
"""How much further blinks close the eyes, in the mean of the two eyeBlink blendshapes: the middle
half of 300 blinks of GRID's training speakers."""
