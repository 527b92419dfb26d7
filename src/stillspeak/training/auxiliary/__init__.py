"""Training of the networks beside the generator, and of the default model's parts."""
