"""Training of the networks that score: lip reader and sync network."""
