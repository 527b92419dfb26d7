"""The temporal GAN: losses, discriminators and the step of all networks."""
