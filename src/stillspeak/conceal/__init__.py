"""Generate what a video lost: missing frames, and the part of a face that something hides."""
