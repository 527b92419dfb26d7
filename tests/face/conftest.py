"""The detector and the picture that it looks at."""

from support.portrait import detector, portrait, portrait_face

__all__ = ["detector", "portrait", "portrait_face"]
