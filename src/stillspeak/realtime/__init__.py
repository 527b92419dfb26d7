"""A talking face in real time: sound in at any pace, audio and video frames out on a clock."""
