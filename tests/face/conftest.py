"""The detector and the picture that it looks at."""

from fixtures_portrait import detector, portrait, portrait_face

__all__ = ["detector", "portrait", "portrait_face"]
