"""Generate the part of a face that a hand or a microphone hides; the rest stays the real picture.

A clean picture of the same face is the still whose mouth is drawn anew. It is laid over each frame
by the landmarks outside the mask, its colours are brought to the frame's along the mask's edge, and
it shows where the mask is white. Beyond a narrow stripe around the mask pixels stay bit for bit.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from stillspeak.conceal.concealer import Concealer, Gestures, model_place
from stillspeak.conceal.gap import MEMORY, Anchor, Picture, Side, fading
from stillspeak.conceal.mouth import joined_shapes
from stillspeak.conceal.poses import HeardPoses
from stillspeak.conceal.video import Progress, picture_sound
from stillspeak.errors import (
    AudioError,
    ConfigError,
    FaceError,
    ImageError,
    InputError,
    NoFaceError,
    VideoError,
)
from stillspeak.face.align import (
    FloatArray,
    Transform,
    face_transform,
    invert_transform,
    resample,
    similarity_transform,
    smoothstep,
    transform_points,
)
from stillspeak.face.eyes import EYELIDS
from stillspeak.face.landmarks import Face, check_face, choose_face
from stillspeak.face.mouth import LIPS
from stillspeak.media.image import load_image
from stillspeak.media.video_editor import (
    Rewriter,
    TimedFrame,
    check_rewrite,
    scan_video,
    timed_frames,
)
from stillspeak.options import AnimateOptions

Mask = npt.NDArray[np.float32]
"""(H, W) float32 in [0, 1]: 1 where the face is hidden."""

GROW = 0.04
"""By how much the mask is widened, in face widths: what hides a face has a blurred border, and the
real picture and the generated one need a stripe to pass into each other."""

RING = 0.08
"""Width of the ring beyond that whose colours are matched, in face widths."""

STEADY = 5
"""Frames over which the head's place is averaged, centred: the landmarks tremble."""

HIDDEN = 0.5
"""Share of white from which a pixel counts as hidden."""

LEAP = 0.25
"""Face widths by which a head may move, and shares by which it may grow or shrink, from frame to
frame; the landmarks of a face of which little is seen are sometimes anywhere."""

_FEWEST = 25  # landmarks outside the mask that place the head
_MOSTLY = 0.5  # share of hidden landmarks from which the detector is shown a whole face
_RECTANGLE = re.compile(r"^\s*\d+\s*,\s*\d+\s*,\s*\d+\s*,\s*\d+\s*$")
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

# The skin that a mouth, a jaw or a lid moves does not say where the head is.
_MOVING = frozenset(LIPS) | frozenset(EYELIDS)


@dataclass(frozen=True)
class Uncovered:
    """What became of a video.

    frames: written; ``generated`` of them with a generated part.
    hidden: mean share of the picture that was generated, in those.
    lost_track: generated frames whose own landmarks were not found, drawn where the head was last.
    reference: what the clean picture was.
    """

    output: str
    frames: int
    fps: float
    width: int
    height: int
    generated: int
    hidden: float
    lost_track: int
    reference: str

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)

    def summary(self) -> str:
        """The same in a line."""
        if not self.generated:
            return f"{self.frames} frames, nothing hidden in any of them"
        text = (
            f"{self.generated} of {self.frames} frames with {100 * self.hidden:.1f} % of the "
            f"picture generated from {self.reference}"
        )
        if self.lost_track:
            text += f"; the head was not found in {self.lost_track}"
        return text


# --- masks --------------------------------------------------------------------------------------


class MaskSource(Protocol):
    """What is hidden, frame by frame."""

    def masks(self) -> Iterator[Mask]:
        """One mask a frame, from the first on."""
        ...


class StillMask:
    """The same in every frame. ``mask`` (H, W) float32 in [0, 1]."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask

    def masks(self) -> Iterator[Mask]:
        """See :class:`MaskSource`."""
        while True:
            yield self._mask


class MaskVideo:
    """A video of masks, as many frames as the video has, white where hidden."""

    def __init__(self, path: str | Path, size: tuple[int, int]) -> None:
        self._path, self._size = path, size

    def masks(self) -> Iterator[Mask]:
        """See :class:`MaskSource`.

        Raises:
            VideoError: it cannot be read, has another size, or ends too early.
        """
        count = 0
        for frame in timed_frames(self._path):
            yield _as_mask(frame.rgb(), self._size, str(self._path))
            count += 1
        raise VideoError(
            f"{self._path}: the mask ends after {count} frames, before the video does; give a "
            "mask of the same length"
        )


def open_mask(mask: str | Path, size: tuple[int, int]) -> MaskSource:
    """A mask by its name.

    Args:
        mask: a picture or a video, white where the face is hidden, or ``x,y,width,height``.
        size: height and width of the video.

    Raises:
        ImageError, VideoError: the file cannot be read or has another size.
        InputError: a rectangle outside the picture.
    """
    text = str(mask)
    if _RECTANGLE.match(text):
        x, y, width, height = (int(part) for part in text.split(","))
        if not (width and height and x < size[1] and y < size[0]):
            raise InputError(
                f"--occlusion {text}: no part of a picture of {size[1]}x{size[0]}; give "
                "x,y,width,height in pixels"
            )
        drawn = np.zeros(size, np.float32)
        drawn[y : y + height, x : x + width] = 1.0
        return StillMask(drawn)
    if Path(text).suffix.lower() in _PICTURES:
        return StillMask(_as_mask(load_image(text), size, text))
    return MaskVideo(mask, size)


def _as_mask(picture: Picture, size: tuple[int, int], name: str) -> Mask:
    if picture.shape[:2] != size:
        height, width = picture.shape[:2]
        kind = ImageError if Path(name).suffix.lower() in _PICTURES else VideoError
        raise kind(
            f"{name}: the mask has {width}x{height} pixels and the video {size[1]}x{size[0]}; "
            "give one of the same size"
        )
    # What a codec makes of black and white is black and white again.
    level = picture.astype(np.float32).mean(axis=2) / 255
    return np.asarray(np.clip((level - 0.1) / 0.8, 0, 1), np.float32)


# --- one frame ----------------------------------------------------------------------------------


def head_place(
    reference: FloatArray, points: FloatArray, hidden: npt.NDArray[np.bool_]
) -> Transform | None:
    """The similarity that lays the reference's face over a frame's, by what is not hidden.

    Args:
        reference: (478, 2) landmarks of the reference picture.
        points: (478, 2) landmarks found in the frame.
        hidden: (H, W) bool.

    Returns:
        (2, 3) reference pixels -> frame pixels; None where too little of the face is seen.
    """
    rows = np.rint(points[:, 1]).astype(int)
    columns = np.rint(points[:, 0]).astype(int)
    inside = (rows >= 0) & (rows < hidden.shape[0]) & (columns >= 0) & (columns < hidden.shape[1])
    seen = inside.copy()
    seen[inside] = ~hidden[rows[inside], columns[inside]]
    seen[list(_MOVING)] = False
    if seen.sum() < _FEWEST:
        return None
    first, second = (np.asarray(p, np.float64)[seen] for p in (reference, points))
    fit = similarity_transform(first, second)
    # A second look without the worst: the model guesses near what is hidden.
    error = np.linalg.norm(transform_points(first, fit) - second, axis=1)
    good = error <= np.quantile(error, 0.7)
    if good.sum() < _FEWEST:
        return fit
    return similarity_transform(first[good], second[good])


def lay_over(face: Picture, to_frame: Transform, points: FloatArray, frame: Picture) -> Picture:
    """A reference's picture moved to where the head is in a frame; away from it the frame's place.

    Args:
        face: (h, w, 3) uint8, the reference with its face moved.
        to_frame: (2, 3) reference pixels -> frame pixels.
        points: (478, 2) landmarks of the reference.
        frame: (H, W, 3) uint8; gives the size.

    Returns:
        (H, W, 3) uint8.
    """
    import cv2

    height, width = frame.shape[:2]
    back = invert_transform(to_frame)
    step = math.sqrt(abs(float(np.linalg.det(back[:, :2]))))
    if face.shape != frame.shape or step > 1.5:
        # Another picture than the video's own: its background has no place in the frame.
        return np.asarray(resample(face, back, height, width), np.uint8)
    x = np.arange(width, dtype=np.float32)[None]
    y = np.arange(height, dtype=np.float32)[:, None]
    (a, b, c), (d, e, f) = back.astype(np.float32)
    across, down = a * x + b * y + c - x, d * x + e * y + f - y
    (p, q, r), (s, t, u) = (face_transform(points) @ _with_row(back)).astype(np.float32)
    from_middle = np.hypot((p * x + q * y + r - 48) / 96, (s * x + t * y + u - 64) / 128)
    share = smoothstep((1.3 - from_middle) / 0.5).astype(np.float32)
    moved = cv2.remap(
        face, x + share * across, y + share * down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.uint8)


def _with_row(transform: Transform) -> Transform:
    return np.vstack([transform, [0.0, 0.0, 1.0]])


def blend(
    frame: Picture, drawn: Picture, mask: Mask, face_width: float, grow: float = GROW
) -> Picture:
    """Show a drawing where a mask is white, its colours brought to the frame's around it.

    Args:
        frame: (H, W, 3) uint8.
        drawn: (H, W, 3) uint8, of the same place.
        mask: (H, W) float32 in [0, 1]; where it is 1 the drawing alone shows.
        face_width: pixels.
        grow: face widths beyond the mask over which the drawing fades out; at least two pixels,
            unless it is 0.

    Returns:
        (H, W, 3) uint8, equal to ``frame`` from ``grow`` beyond the mask on.
    """
    import cv2

    hidden = (mask > 0).astype(np.uint8)
    out = frame.copy()
    if not hidden.any():
        return out
    stripe = max(grow * face_width, 2.0) if grow else 0.0
    ring = max(RING * face_width, 3.0)
    x, y, w, h = cv2.boundingRect(hidden)
    margin = math.ceil(stripe + ring) + 2
    rows = slice(max(y - margin, 0), min(y + h + margin, frame.shape[0]))
    columns = slice(max(x - margin, 0), min(x + w + margin, frame.shape[1]))
    hidden = np.ascontiguousarray(hidden[rows, columns])
    real, made = (part[rows, columns].astype(np.float32) for part in (frame, drawn))
    # Pixels from the mask: 0 in it, 1 for its neighbours.
    away = cv2.distanceTransform(1 - hidden, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    around = ((away > stripe) & (away <= stripe + ring)).astype(np.float32)
    made += _spread(real - made, around)
    beyond = (
        smoothstep(1 - away.astype(np.float32) / (stripe + 1e-6)) if stripe else np.zeros_like(away)
    )
    share = np.where(hidden > 0, mask[rows, columns] if not stripe else 1.0, beyond)
    real += share[..., None].astype(np.float32) * (made - real)
    out[rows, columns] = np.clip(np.rint(real), 0, 255).astype(np.uint8)
    return out


def _spread(values: npt.NDArray[np.float32], known: Mask) -> npt.NDArray[np.float32]:
    """Continue values (H, W, 3) smoothly from where they are known into where they are not.

    From coarse to fine: each level fills from its known neighbours, the next coarser one the rest.
    """
    import cv2

    if not known.any():
        return np.zeros_like(values)
    height, width = known.shape
    if min(height, width) <= 2:
        mean = (values * known[..., None]).sum((0, 1)) / known.sum()
        return np.broadcast_to(mean, values.shape).astype(np.float32)
    half = (max(width // 2, 1), max(height // 2, 1))
    weight = cv2.resize(known, half, interpolation=cv2.INTER_AREA)
    total = cv2.resize(values * known[..., None], half, interpolation=cv2.INTER_AREA)
    mean = np.asarray(total / np.maximum(weight, 1e-6)[..., None], np.float32)
    coarse = _spread(mean, np.asarray(np.minimum(weight * 4, 1), np.float32))
    filled = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))
    share = known[..., None] * 0.5
    return np.asarray(filled + share * (values - filled), np.float32)


# --- a video ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Seen:
    """A frame on its way: where the reference lies in it is known, or not."""

    frame: TimedFrame
    picture: Picture
    mask: Mask
    place: float
    to_frame: Transform | None


def uncover_video(
    video: str | Path,
    output: str | Path,
    mask: str | Path,
    *,
    reference: str | Path | int | None = None,
    concealer: Concealer | None = None,
    seed: int = AnimateOptions.seed,
    face: int | None = None,
    blink: float = AnimateOptions.blink,
    expression: float = AnimateOptions.expression,
    grow: float = GROW,
    crf: int = 12,
    overwrite: bool = False,
    mark: bool = True,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    progress: Progress | None = None,
) -> Uncovered:
    """Write a video again with the hidden part of its face generated.

    Args:
        video: a video with its sound.
        output: .mp4, .mov, .mkv or .webm.
        mask: see :func:`open_mask`.
        reference: a picture of the same face, bare, or the number of a frame that shows it so;
            None looks for the first frame in which the mask does not touch the face.
        concealer: with the model; by default one is made.
        seed: decides when it blinks and moves its brows.
        face: which face, 0 being the largest of the reference.
        blink, expression: as for ``animate``, where both eyes are hidden.
        grow: see :func:`blend`.
        crf: picture quality on H.264's scale, 0 being lossless.
        overwrite: replace what is there.
        mark: leave content credentials that say that parts are generated, where the format has a
            place for them (MP4, MOV).
        certificate, key: as for ``Animation.save``.
        progress: told of every frame.

    Raises:
        VideoError, AudioError, ImageError, InputError: an input cannot be read or used.
        FaceError: no usable face in the reference, or none in any frame.
        OutputError, OutputExistsError: the output cannot be written.
    """
    options = AnimateOptions(face=face, seed=seed, blink=blink, expression=expression)
    if not 0 <= grow <= 1:
        raise ConfigError(f"grow {grow:g} is out of range; give 0 to 1 face widths")
    check_rewrite(video, output, overwrite=overwrite)
    scan = scan_video(video)
    if scan.sound_start is None:
        raise AudioError(
            f"{video}: has no sound track, and the hidden face is made from the sound; give a "
            "video with its sound"
        )
    first = next(timed_frames(video), None)
    if first is None:
        raise VideoError(f"{video}: holds no video frames; give another file")
    size = first.rgb().shape[:2]
    source = open_mask(mask, (size[0], size[1]))
    own = concealer or Concealer()
    settings = {
        **options.record("seed", "blink", "expression", "face"),
        "grow": grow,
        "part": "occlusion",
    }
    marks = own.marks(video, settings, certificate, key) if mark else None
    try:
        chosen = _choose_reference(video, source, reference, own, face)
        uncoverer = _Uncoverer(own, chosen, options, grow)
        generator = own.generator
        rate = generator.config.sample_rate
        heard = HeardPoses(generator, picture_sound(video, scan.start, rate))
        fps = float(scan.fps)
        with Rewriter(video, output, scan, overwrite=overwrite, crf=crf, marks=marks) as writer:
            writer.start(first)

            def seen() -> Iterator[_Seen]:
                for frame, hidden in zip(timed_frames(video), source.masks(), strict=False):
                    place = model_place(frame.time - scan.start, fps, generator)
                    yield uncoverer.look(frame, hidden, place)

            for one, picture in uncoverer.draw(_steady(seen()), heard):
                if picture is None:
                    writer.keep(one.frame)
                else:
                    writer.change(one.frame, picture, (picture != one.picture).any(axis=2))
                if progress is not None:
                    progress(writer.frames)
            uncoverer.check(str(video))
            frames = writer.frames
    finally:
        if concealer is None:
            own.close()
    return Uncovered(
        output=str(output),
        frames=frames,
        fps=fps,
        width=int(size[1]),
        height=int(size[0]),
        generated=uncoverer.generated,
        hidden=round(uncoverer.hidden / max(uncoverer.generated, 1), 5),
        lost_track=uncoverer.lost_track,
        reference=chosen.name,
    )


@dataclass(frozen=True, eq=False)
class _Reference:
    """A clean picture of the face. place: in model frames, None for a picture of its own."""

    picture: Picture
    face: Face
    name: str
    index: int | None


def _choose_reference(
    video: str | Path,
    source: MaskSource,
    reference: str | Path | int | None,
    concealer: Concealer,
    face: int | None,
) -> _Reference:
    index: int | None = None
    if isinstance(reference, int) or (reference is not None and str(reference).isdecimal()):
        index = int(str(reference))
        picture = next(
            (frame.rgb() for k, frame in enumerate(timed_frames(video)) if k == index), None
        )
        if picture is None:
            raise InputError(f"{video}: has no frame {index}; give a smaller number")
        name = f"{video}, frame {index}"
    elif reference is not None:
        picture, name = load_image(reference, name=str(reference)), str(reference)
    else:
        return _first_clean(video, source, concealer, face)
    found = choose_face(concealer.detector.detect(picture), face, name=name)
    check_face(found, name=name)
    return _Reference(picture, found, name if index is None else f"frame {index}", index)


def _first_clean(
    video: str | Path, source: MaskSource, concealer: Concealer, face: int | None
) -> _Reference:
    """The first frame whose face the mask leaves alone."""
    for index, (frame, mask) in enumerate(zip(timed_frames(video), source.masks(), strict=False)):
        hidden = mask > 0
        # Where much is hidden and the last frames showed no clean face, this one will hardly.
        if hidden.any() and index % 5:
            continue
        picture = frame.rgb()
        try:
            found = choose_face(concealer.detector.detect(picture), face)
            check_face(found)
        except FaceError:
            continue
        x0, y0, x1, y1 = (max(round(edge), 0) for edge in found.box)
        if not hidden[y0 : y1 + 1, x0 : x1 + 1].any():
            return _Reference(picture, found, f"frame {index}", index)
    raise InputError(
        f"{video}: the mask covers the face in every frame; give a picture of the bare face with "
        "--reference"
    )


class _Uncoverer:
    """One video on its way through."""

    def __init__(
        self,
        concealer: Concealer,
        reference: _Reference,
        options: AnimateOptions,
        grow: float,
    ) -> None:
        self._grow = grow
        self._concealer = concealer
        self._points = reference.face.points
        self._width = float(np.ptp(self._points[:, 0]))
        self._index = reference.index
        self._side = Side(Anchor(reference.picture, self._points, 0.0), concealer.generator)
        self._fps = concealer.generator.config.fps
        self._gestures = Gestures(options, self._fps)
        self._last: Transform | None = None
        self._age = 1  # frames since then
        self._reference = reference.picture
        self.generated = 0
        self.hidden = 0.0
        self.lost_track = 0

    def look(self, frame: TimedFrame, mask: Mask, place: float) -> _Seen:
        """Find the head in a frame that hides something."""
        picture = frame.rgb()
        if not (mask > HIDDEN).any():
            self._age += 1
            return _Seen(frame, picture, mask, place, None)
        hidden = mask > 0
        found = None if self._mostly_hidden(hidden) else self._find(picture, hidden)
        if found is None and self._last is not None:
            # With the face as it was last the detector sees a whole one.
            whole = lay_over(self._reference, self._last, self._points, picture)
            found = self._find(blend(picture, whole, mask, self._face_width(self._last)), hidden)
        if found is None:
            self.lost_track += 1
            self._age += 1
        else:
            self._last, self._age = found, 1
        return _Seen(frame, picture, mask, place, self._last)

    def _find(self, picture: Picture, hidden: npt.NDArray[np.bool_]) -> Transform | None:
        faces = self._concealer.detector.detect(np.ascontiguousarray(picture))
        if not faces:
            return None
        if self._last is not None:
            middle = transform_points(self._points.mean(axis=0), self._last)
            faces.sort(key=lambda face: float(np.hypot(*(face.points.mean(axis=0) - middle))))
        found = head_place(self._points, faces[0].points, hidden)
        return None if found is None or self._leaps(found) else found

    def _mostly_hidden(self, hidden: npt.NDArray[np.bool_]) -> bool:
        """Whether little is seen of the face where it was last."""
        if self._last is None or self._age > STEADY:
            return False
        points = np.rint(transform_points(self._points, self._last)).astype(int)
        rows = points[:, 1].clip(0, hidden.shape[0] - 1)
        columns = points[:, 0].clip(0, hidden.shape[1] - 1)
        return bool(hidden[rows, columns].mean() > _MOSTLY)

    def _leaps(self, found: Transform) -> bool:
        """Whether a head would have jumped since it was seen last."""
        if self._last is None:
            return False
        width, other = self._face_width(self._last), self._face_width(found)
        middle = self._points.mean(axis=0)
        way = transform_points(middle, found) - transform_points(middle, self._last)
        most = LEAP * self._age
        return float(np.hypot(*way)) > most * width or abs(math.log(other / width)) > most

    def _face_width(self, to_frame: Transform) -> float:
        return self._width * math.sqrt(abs(float(np.linalg.det(to_frame[:, :2]))))

    @torch.inference_mode()
    def draw(
        self, frames: Iterator[_Seen], heard: HeardPoses
    ) -> Iterator[tuple[_Seen, Picture | None]]:
        """Each frame with its new picture, or None where nothing is hidden."""
        for index, one in enumerate(frames):
            heard.forget(one.place)
            if index == self._index:
                # From here on the difference between the sound and the camera is known.
                self._side.anchor = Anchor(self._reference, self._points, one.place)
                self._side.compare(heard)
            if one.to_frame is None or not (one.mask > HIDDEN).any():
                yield one, None
                continue
            places = np.array([one.place])
            ends, since = [], np.full(1, np.inf)
            if self._side.heard is not None:
                since = (places - self._side.anchor.place) / self._fps
                share, _ = fading(since, None, MEMORY)
                ends = [(self._side.heard, share)]
            shapes = joined_shapes(heard.at(places), ends, [self._side.seen])
            curves = self._gestures.at(places, None, None)
            if not self._eyes_hidden(one):
                curves = torch.zeros_like(curves)
            (face,) = self._side.render(shapes, curves, since)
            drawn = lay_over(face, one.to_frame, self._points, one.picture)
            self.generated += 1
            self.hidden += float((one.mask > HIDDEN).mean())
            width = self._face_width(one.to_frame)
            yield one, blend(one.picture, drawn, one.mask, width, self._grow)

    def _eyes_hidden(self, one: _Seen) -> bool:
        assert one.to_frame is not None
        lids = np.rint(transform_points(self._points[list(EYELIDS)], one.to_frame)).astype(int)
        rows = lids[:, 1].clip(0, one.mask.shape[0] - 1)
        columns = lids[:, 0].clip(0, one.mask.shape[1] - 1)
        return bool((one.mask[rows, columns] > HIDDEN).all())

    def check(self, name: str) -> None:
        """Refuse a video in none of whose hidden frames a head was found.

        Raises:
            NoFaceError: so it is.
        """
        if self.lost_track and not self.generated:
            raise NoFaceError(
                f"{name}: the face was found in none of the {self.lost_track} frames that hide "
                "it; too little of it is seen outside the mask"
            )


def _steady(frames: Iterator[_Seen]) -> Iterator[_Seen]:
    """Average where the head is over :data:`STEADY` frames, the frame's own in the middle."""
    reach = STEADY // 2
    window: deque[_Seen] = deque()
    first = 0  # number of the window's first frame
    count = 0  # frames that came in
    at = 0  # number of the next frame to go out

    def averaged() -> _Seen:
        one = window[at - first]
        if one.to_frame is None:
            return one
        near = [
            other.to_frame
            for number, other in enumerate(window, start=first)
            if abs(number - at) <= reach and other.to_frame is not None
        ]
        return _Seen(one.frame, one.picture, one.mask, one.place, np.mean(near, axis=0))

    for frame in frames:
        window.append(frame)
        count += 1
        while at + reach < count:
            yield averaged()
            at += 1
            while first < at - reach:
                window.popleft()
                first += 1
    while at < count:
        yield averaged()
        at += 1
        while first < at - reach:
            window.popleft()
            first += 1
