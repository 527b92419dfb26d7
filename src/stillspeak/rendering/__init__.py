"""From a photo and what the networks make of it to frames: everything without a network."""
