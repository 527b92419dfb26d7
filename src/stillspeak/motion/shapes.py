"""What a mouth's pose and a face's motion are in the names of other tools: ARKit's blendshapes, and
visemes.

Blendshapes of jaw and mouth come from the pose by a linear map that was fitted to MediaPipe's
scores (``scripts/fit_blendshapes.py``); what that map cannot tell stays 0. Those of brows, lids,
eyes and moods follow from the action units by definition.
"""

from __future__ import annotations

import json
from collections import deque
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stillspeak.constants import BLINK_PEAK
from stillspeak.motion.frames import FaceMotion, unit
from stillspeak.motion.process import LID_UNIT

BLENDSHAPES = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight",
    "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft",
    "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft",
    "noseSneerRight", "tongueOut",
)  # fmt: skip
"""ARKit's 52, in the order of columns here. Left is the person's own left."""

UNIT_SHAPES = {
    "inner_brow_raiser": ("browInnerUp",),
    "outer_brow_raiser": ("browOuterUpLeft", "browOuterUpRight"),
    "brow_lowerer": ("browDownLeft", "browDownRight"),
    "upper_lid_raiser": ("eyeWideLeft", "eyeWideRight"),
    "cheek_raiser": ("cheekSquintLeft", "cheekSquintRight"),
    "lid_tightener": ("eyeSquintLeft", "eyeSquintRight"),
    "nose_wrinkler": ("noseSneerLeft", "noseSneerRight"),
    "upper_lip_raiser": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "lip_corner_puller": ("mouthSmileLeft", "mouthSmileRight"),
    "lip_corner_depressor": ("mouthFrownLeft", "mouthFrownRight"),
    "chin_raiser": ("mouthShrugLower",),
    "lip_stretcher": ("mouthStretchLeft", "mouthStretchRight"),
    "lip_tightener": ("mouthPressLeft", "mouthPressRight"),
    "jaw_drop": ("jawOpen",),
}
"""The blendshapes that show an action unit; both are 1 where people show it as strongly as they
can."""

GAZE_FULL = 30.0
"""Degrees that an eye looks aside where its eyeLook shape is 1."""

VISEMES = {
    "sil": ("sil",),
    "PP": ("PP",),
    "FF": ("FF",),
    "ou": ("ou", "oh", "RR"),
    "E": ("E", "aa", "ih", "kk", "CH"),
    "DD": ("DD", "nn", "SS", "TH"),
}
"""The classes that lips tell, by one of their members, and which of the 15 visemes of Oculus each
stands for: within a class lips look alike. Rest; lips shut; lip at teeth; lips rounded; mouth open;
and what the tongue makes behind teeth that are nearly shut."""

CONTEXT = 1
"""Frames before and after one that its viseme is judged by."""

Floats = npt.NDArray[np.float64]


def blendshapes(poses: Floats, motion: FaceMotion) -> npt.NDArray[np.float32]:
    """Weights (T, 52) float32 in [0, 1] of :data:`BLENDSHAPES`, of poses (T, 41, 2) and a motion of
    as many frames."""
    told, weights = _mouth_map()
    out = np.zeros((len(poses), len(BLENDSHAPES)))
    out[:, told] = poses.reshape(len(poses), len(weights)) @ weights
    for name, shown in UNIT_SHAPES.items():
        out[:, columns(shown)] += np.maximum(motion.units[:, unit(name), None], 0)
    # Lids that sink are an upper lid raiser below 0.
    sunk = np.maximum(-motion.units[:, unit("upper_lid_raiser")], 0) * LID_UNIT
    out[:, columns(("eyeBlinkLeft", "eyeBlinkRight"))] += (motion.closure + sunk)[
        :, None
    ] / BLINK_PEAK[0]
    right, down = motion.gaze.T / GAZE_FULL  # the picture's right is the person's left
    for shown, much in (
        (("eyeLookOutLeft", "eyeLookInRight"), right),
        (("eyeLookInLeft", "eyeLookOutRight"), -right),
        (("eyeLookDownLeft", "eyeLookDownRight"), down),
        (("eyeLookUpLeft", "eyeLookUpRight"), -down),
    ):
        out[:, columns(shown)] += much[:, None]
    return np.clip(out, 0, 1).astype(np.float32)


def columns(names: tuple[str, ...]) -> list[int]:
    """Places in :data:`BLENDSHAPES`."""
    return [BLENDSHAPES.index(name) for name in names]


def moving() -> set[str]:
    """The blendshapes that are not always 0."""
    told = {BLENDSHAPES[index] for index in _mouth_map()[0]}
    eyes = {name for name in BLENDSHAPES if name.startswith(("eyeBlink", "eyeLook"))}
    return told | eyes | {name for shown in UNIT_SHAPES.values() for name in shown}


class Viseme(NamedTuple):
    """A stretch of one class of :data:`VISEMES`, in seconds."""

    name: str
    start: float
    end: float


class VisemeReader:
    """Reads visemes from poses, frame by frame; it is :data:`CONTEXT` frames late.

    Args:
        fps: frames a second.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._poses: deque[Floats] = deque(maxlen=2 * CONTEXT + 1)
        self._judged = self._began = 0
        self._name: str | None = None

    def feed(self, pose: Floats) -> list[Viseme]:
        """What ended with the next pose (41, 2): nothing or one viseme."""
        if not self._poses:
            self._poses.extend([pose] * CONTEXT)
        self._poses.append(pose)
        return self._judge() if len(self._poses) > 2 * CONTEXT else []

    def finish(self) -> list[Viseme]:
        """What ends where the poses do."""
        last = self._poses[-1] if self._poses else None
        ended = [one for _ in range(CONTEXT) if last is not None for one in self.feed(last)]
        if self._name is not None:
            ended.append(Viseme(self._name, self._began / self._fps, self._judged / self._fps))
        return ended

    def _judge(self) -> list[Viseme]:
        weights, bias = _viseme_map()
        name = list(VISEMES)[int((weights @ np.ravel(self._poses) + bias).argmax())]
        ended = []
        if name != self._name:
            if self._name is not None:
                start, end = self._began / self._fps, self._judged / self._fps
                ended.append(Viseme(self._name, start, end))
            self._name, self._began = name, self._judged
        self._judged += 1
        return ended


@cache
def _mouth_map() -> tuple[list[int], Floats]:
    """Which blendshapes a pose tells, and the map (82, n) to them."""
    stored, info = _stored("blendshapes")
    return columns(tuple(info["names"])), stored["shapes"].astype(np.float64).T


@cache
def _viseme_map() -> tuple[Floats, Floats]:
    """(V, 3 * 82) and (V,): log odds of :data:`VISEMES`, of three poses in a row."""
    stored, info = _stored("visemes")
    assert info["names"] == list(VISEMES)
    return stored["weight"].astype(np.float64), stored["bias"].astype(np.float64)


def _stored(name: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Tensors and header of a resource."""
    from safetensors import safe_open

    path = resources.files("stillspeak").joinpath(f"resources/{name}.safetensors")
    with resources.as_file(path) as file, safe_open(file, "np") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        return tensors, json.loads(opened.metadata()["info"])
