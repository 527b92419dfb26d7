"""The networks. This package needs torch, and NumPy for pictures that go in and out."""
