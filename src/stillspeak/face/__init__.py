"""Find a face and bring it to the canonical crop."""
