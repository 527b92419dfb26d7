"""How a face moves: head, eyes, brows and mood, from the sound; as numbers, without a picture."""
