"""Fill one gap: from the good frame before it to the good frame after it.

Each good frame is the still of its own rendering: the model's motion moves its pixels. What the
model would make of a good frame's own moment is not what the camera saw; that difference, known at
both ends of the gap, is taken out of the motion and fades inwards, so that the generated frames
meet the real ones. Both renderings follow the head's drift and are mixed by nearness. In a gap of
a frame or two no mouth gets far, and the optical flow between its ends alone fills it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillspeak.conceal.encodings import Encodings
from stillspeak.conceal.motion import Maps, dense_flow, pull, without_speech
from stillspeak.face.align import smoothstep
from stillspeak.models.decoders import Decoded, Motion
from stillspeak.models.generator import Generator
from stillspeak.rendering.portrait import Portrait
from stillspeak.rendering.renderer import FaceRenderer
from stillspeak.synthesis import CHUNK

Picture = npt.NDArray[np.uint8]

Gesticulate = Callable[[npt.NDArray[np.float64], float | None, float | None], Tensor]

MEMORY = 0.4
"""Seconds in which the difference between the model and the camera loses all but 1/e."""

SHORT = 0.12
"""Seconds from good frame to good frame up to which the picture's own movement between them says
more than the sound does: gaps of two frames at 25 a second."""

RISE = 0.12
"""Seconds from a good frame, the other end of the gap being unknown, in which the model's motion
comes up: so near to it the mouth that was seen is a better guess than one that is heard."""

OPENING = (0.04, 0.2)
"""Seconds from a good frame in which the eyes are shut at which they begin to open and are open."""


def fading(
    since: npt.NDArray[np.float64], until: npt.NDArray[np.float64] | None, memory: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How much of the difference at each end of a gap still counts within it.

    The difference is taken for a process that forgets: known at both ends, its expectation
    between them is linear in a gap shorter than ``memory`` and falls off exponentially from both
    ends in a longer one.

    Args:
        since: (T,) seconds since the good frame before the gap.
        until: (T,) seconds to the one after it; None: it is not known.
        memory: seconds, positive; 0: the ends do not count.

    Returns:
        Twice (T,) in [0, 1]: for the end before and the end after.
    """
    if memory <= 0:
        return np.zeros_like(since), np.zeros_like(since)
    if until is None:
        return np.exp(-since / memory), np.zeros_like(since)
    whole = since + until

    # sinh(a) / sinh(b) without its large numbers
    def share(part: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        above = -np.expm1(-2 * part / memory)
        below = -np.expm1(-2 * whole / memory)
        return np.asarray(np.exp((part - whole) / memory) * above / below)

    return share(until), share(since)


@dataclass(frozen=True, eq=False)
class Anchor:
    """A good frame beside a gap.

    picture: (H, W, 3) uint8.
    points: (478, 2) landmarks of the speaking face; None: no face can be used.
    place: its time in model frames.
    """

    picture: Picture
    points: npt.NDArray[np.float32] | None
    place: float


@dataclass(frozen=True, eq=False)
class Difference:
    """What the model makes of an anchor's own moment, instead of what the camera saw."""

    decoded: Decoded
    still: Tensor  # (1, 1, 3, H, W), what the camera saw, as the model sees it


class Side:
    """Draws frames out of one anchor."""

    def __init__(self, anchor: Anchor, generator: Generator) -> None:
        assert anchor.points is not None
        self.anchor = anchor
        self.difference: Difference | None = None
        self.opened: Side | None = None
        """The same with its eyes open, where they are shut in the anchor."""
        self._generator = generator
        self._portrait = Portrait.of(anchor.picture, anchor.points, generator)
        self._renderer = FaceRenderer(self._portrait)

    @torch.inference_mode()
    def compare(self, encodings: Encodings) -> None:
        """Find out what the model would have made of the anchor's own moment."""
        heard = encodings.at(np.array([self.anchor.place]))
        self.difference = Difference(self.decode(heard), self._portrait.still[:, None])

    def decode(self, encodings: tuple[Tensor, Tensor]) -> Decoded:
        """What the model makes of some moments, one grid for all of the face."""
        decoded = self._generator.decode(self._portrait.prepared, *encodings)
        if decoded.motion is None:
            return decoded
        return Decoded(decoded.frames, decoded.motion.flat())

    def render(self, decoded: Decoded, curves: Tensor | None) -> Iterator[Picture]:
        """Whole pictures."""
        yield from self._renderer.render(decoded, None, curves)


def corrected(decoded: Decoded, ends: list[tuple[Difference, npt.NDArray[np.float64]]]) -> Decoded:
    """Take the differences at a gap's ends out of what the model made.

    Args:
        decoded: T frames.
        ends: differences with their shares (T,), see :func:`fading`.
    """
    motion = decoded.motion
    if motion is None:
        frames = decoded.frames
        for end, share in ends:
            weight = _as_weight(share, frames)
            frames = frames + weight * (end.still - end.decoded.frames)
        return Decoded(frames.clamp(-1, 1), None)
    flow, mask = motion.flow, motion.mask
    for end, share in ends:
        assert end.decoded.motion is not None
        weight = _as_weight(share, flow)
        flow = flow - weight * end.decoded.motion.flow
        mask = mask - weight * end.decoded.motion.mask
    return Decoded(decoded.frames, Motion(flow, mask.clamp(0, 1), motion.colour))


def risen(decoded: Decoded, share: npt.NDArray[np.float64], still: Tensor) -> Decoded:
    """What the model made, a share (T,) of it; the rest is ``still`` (1, 1, 3, H, W) as it is."""
    motion = decoded.motion
    if motion is None:
        frames = decoded.frames
        return Decoded(still + _as_weight(share, frames) * (frames - still), None)
    weight = _as_weight(share, motion.flow)
    moved = motion._replace(flow=motion.flow * weight, mask=motion.mask * weight)
    return Decoded(decoded.frames, moved)


def _as_weight(share: npt.NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(share).to(like)[None, :, None, None, None]


class Bridge:
    """Generates the frames of one gap.

    Args:
        encodings: of the sound.
        generator: in evaluation mode.
        before: the good frame before the gap, or None at the beginning; an anchor without a face
            is only mixed and held.
        after: the good frame after it, or None where it is not known. Sides have been compared.
        memory: see :func:`fading`, in seconds.
        mixing_from: the place from which the frame after takes part, in a gap whose first
            frames were made without it; None: from the frame before on.
    """

    def __init__(
        self,
        encodings: Encodings,
        generator: Generator,
        before: Side | Anchor | None,
        after: Side | Anchor | None,
        *,
        memory: float = MEMORY,
        mixing_from: float | None = None,
    ) -> None:
        if before is None and after is None:
            raise ValueError("a gap needs a good frame beside it")
        self._encodings = encodings
        self._fps = generator.config.fps
        self._memory = memory
        self._mixing_from = mixing_from
        self._ends: tuple[Side | Anchor | None, Side | Anchor | None] = (before, after)
        first, second = _anchor(before), _anchor(after)
        self._short = (
            first is not None
            and second is not None
            and mixing_from is None
            and (second.place - first.place) / self._fps < 1.05 * SHORT  # clocks of milliseconds
        )
        if self._short:
            self._ends = (first, second)
        self._differences = [
            side.difference if isinstance(side, Side) else None for side in self._ends
        ]
        self._flows = self._drift()

    @torch.inference_mode()
    def draw(
        self, places: npt.NDArray[np.float64], gestures: Gesticulate | None = None
    ) -> Iterator[Picture]:
        """Pictures (H, W, 3) uint8 at places (T,) in model frames, in order.

        Args:
            places: within the gap.
            gestures: gives the curves (T, 2) of eyes and brows at places, told where the good
                frames are, see :mod:`stillspeak.rendering.eyelids`; None leaves them.
        """
        before, after = (_anchor(end) for end in self._ends)
        known = [None if end is None else end.place for end in (before, after)]
        for start in range(0, len(places), CHUNK):
            part = places[start : start + CHUNK]
            yield from self._chunk(part, None if gestures is None else gestures(part, *known))

    def _chunk(self, places: npt.NDArray[np.float64], curves: Tensor | None) -> Iterator[Picture]:
        before, after = (_anchor(end) for end in self._ends)
        since = None if before is None else (places - before.place) / self._fps
        until = None if after is None else (after.place - places) / self._fps
        if since is None:
            assert until is not None
            backwards, _ = fading(until, None, self._memory)
            shares = (np.zeros_like(backwards), backwards)
            nearness = np.ones(len(places))
        else:
            shares = fading(since, until, self._memory)
            nearness = np.zeros(len(places))
            if until is not None and before is not None and after is not None:
                start = before.place if self._mixing_from is None else self._mixing_from
                nearness = np.clip((places - start) / (after.place - start), 0, 1)
        ends = [
            (difference, share)
            for difference, share in zip(self._differences, shares, strict=True)
            if difference is not None
        ]
        drawn: list[Iterator[Picture] | None] = []
        for end in self._ends:
            if isinstance(end, Side):
                distance = since if end.anchor is before else until
                assert distance is not None
                drawn.append(self._rendered(end, places, distance, ends, curves))
            elif end is not None:
                drawn.append(iter([end.picture] * len(places)))
            else:
                drawn.append(None)
        for share in nearness:
            yield self._mixed([None if one is None else next(one) for one in drawn], float(share))

    def _rendered(
        self,
        side: Side,
        places: npt.NDArray[np.float64],
        distance: npt.NDArray[np.float64],
        ends: list[tuple[Difference, npt.NDArray[np.float64]]],
        curves: Tensor | None,
    ) -> Iterator[Picture]:
        """One side's pictures, with eyes that open a moment away from it."""
        opened = side.opened
        open_: npt.NDArray[np.floating] = np.zeros(len(places))
        if opened is not None:
            open_ = smoothstep((distance - OPENING[0]) / (OPENING[1] - OPENING[0]))
        made = corrected(side.decode(self._encodings.at(places)), ends)
        alone = None in self._ends
        if alone and self._memory > 0 and side.difference is not None and distance.min() < RISE:
            made = risen(made, np.clip(distance / RISE, 0, 1), side.difference.still)
        asleep = None if opened is None or curves is None else torch.zeros_like(curves)
        shut = side.render(made, curves if opened is None else asleep)
        if opened is None or not open_.any():
            yield from shut
            return
        # The mouth is the same in both, and so is what the model makes of it.
        awake = opened.render(made, curves)
        for first, second, share in zip(shut, awake, open_, strict=True):
            yield _mean(first, second, float(share))

    def _mixed(self, pictures: list[Picture | None], share: float) -> Picture:
        """The two sides' pictures of one moment, a share of ``share`` being that of after."""
        first, second = pictures
        if first is None or second is None:
            only = second if first is None else first
            assert only is not None
            return only
        if self._flows is not None:
            first = pull(first, self._flows[0], share)
            second = pull(second, self._flows[1], 1 - share)
        return _mean(first, second, share)

    def _drift(self) -> tuple[Maps, Maps] | None:
        before, after = (_anchor(end) for end in self._ends)
        if before is None or after is None:
            return None
        flows = []
        for one, other in ((before, after), (after, before)):
            flow = dense_flow(one.picture, other.picture)
            if not self._short and one.points is not None and other.points is not None:
                flow = without_speech(flow, one.points)
            flows.append(flow)
        return flows[0], flows[1]


def pass_over(first: Picture, second: Picture, share: float) -> Picture:
    """A picture between two of one scene, what moved being on its way: (H, W, 3) uint8.

    Args:
        first, second: (H, W, 3) uint8.
        share: of the second, in [0, 1].
    """
    there, back = dense_flow(first, second), dense_flow(second, first)
    return _mean(pull(first, there, share), pull(second, back, 1 - share), share)


def _mean(first: Picture, second: Picture, share: float) -> Picture:
    if share <= 0:
        return first
    if share >= 1:
        return second
    mixed = first.astype(np.float32)
    mixed += share * (second.astype(np.float32) - mixed)
    return np.asarray(np.rint(mixed), np.uint8)


def _anchor(end: Side | Anchor | None) -> Anchor | None:
    return end.anchor if isinstance(end, Side) else end
