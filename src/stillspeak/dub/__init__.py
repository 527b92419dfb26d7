"""New speech for a video: its face is tracked, and each frame gets the mouth that is heard."""
