"""A face's motion in the measures that eyes, brows and head are drawn by."""

from __future__ import annotations

import torch
from torch import Tensor

from stillspeak.constants import BROW_PIXELS
from stillspeak.motion.frames import FaceMotion, unit

_BROW_PIXELS = 4.2  # of the crop: what a brow raiser at 1 is
_SHIFT = 0.5  # pixels of the crop by which a degree of turn or nod moves the face


def eye_curves(motion: FaceMotion) -> Tensor:
    """(T, 4) closure, brows' height and gaze, see ``rendering.eyes``."""
    raised = motion.units[:, unit("inner_brow_raiser")] - motion.units[:, unit("brow_lowerer")]
    heights = torch.from_numpy(raised * (_BROW_PIXELS / BROW_PIXELS))[:, None]
    closure = torch.from_numpy(motion.closure)[:, None]
    return torch.cat((closure, heights, torch.from_numpy(motion.gaze)), 1)


def head_poses(motion: FaceMotion) -> Tensor:
    """(T, 3) tilt and shift, see ``rendering.head``."""
    head = torch.from_numpy(motion.head)
    return torch.stack((head[:, 2], _SHIFT * head[:, 0], _SHIFT * head[:, 1]), 1)
