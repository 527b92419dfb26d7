"""De-occlusion: generate the part of a face that a hand or a microphone hides.

A clean picture of the same face is the reference image whose mouth is drawn anew. It is laid over
each frame by the landmarks outside the mask, and its colours are brought to the frame's along the
mask's edge. Beyond a narrow stripe around the mask pixels stay bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from stillspeak.conceal.compositing import head_place, lay_over
from stillspeak.conceal.concealer import Concealer, eyes_and_brows
from stillspeak.conceal.gap import Anchor, AnchorRenderer, fading
from stillspeak.conceal.masks import HIDDEN, Mask, MaskSource, values_at
from stillspeak.conceal.options import MEMORY, MotionKeywords, MotionOptions
from stillspeak.conceal.video import check_sound, picture_sound, rewriting
from stillspeak.dub.heard import HeardPoses, model_place
from stillspeak.dub.output import EditedVideo, OutputKeywords, OutputOptions, Progress
from stillspeak.errors import ConfigError, FaceError, InputError, NoFaceError, VideoError
from stillspeak.face.align import Transform, transform_points
from stillspeak.face.eyes import EYELIDS
from stillspeak.face.landmarks import Face, check_face, choose_face
from stillspeak.face.tracker import FaceTracker
from stillspeak.media.image import load_image
from stillspeak.media.video_editor import TimedFrame, check_rewrite, scan_video, timed_frames
from stillspeak.rendering.appearance import Appearance
from stillspeak.rendering.blend import GROW, blend
from stillspeak.rendering.raster import Picture
from stillspeak.rendering.video_mouth import VideoMouth

_MOSTLY = 0.5  # share of hidden landmarks from which the detector is shown a whole face


class OcclusionKeywords(MotionKeywords, OutputKeywords, total=False):
    """How a hidden face moves and how the video is written, as keywords."""


@dataclass(frozen=True)
class DeoccludedVideo(EditedVideo):
    """What was done to a video with a hidden face.

    hidden: mean share of the picture that was generated, in the frames with a generated part.
    lost_track: generated frames whose own landmarks were not found, drawn where the head was last.
    reference: which clean picture was used.
    """

    hidden: float
    lost_track: int
    reference: str

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


@dataclass(frozen=True, eq=False)
class _LocatedFrame:
    """A frame on its way: where the reference lies in it is known, or not."""

    frame: TimedFrame
    picture: Picture
    mask: Mask
    place: float
    to_frame: Transform | None = None


def uncover_video(
    video: str | Path,
    output: str | Path,
    mask: str | Path,
    *,
    reference: str | Path | int | None = None,
    grow: float = GROW,
    concealer: Concealer | None = None,
    progress: Progress = None,
    **options: Unpack[OcclusionKeywords],
) -> DeoccludedVideo:
    """Write a video again with the hidden part of its face generated.

    Args:
        video: a video with its sound.
        output: .mp4, .mov, .mkv or .webm.
        mask: see :class:`~stillspeak.conceal.masks.MaskSource`.
        reference: a picture of the same face, bare, or the number of a frame that shows it so;
            None looks for the first frame in which the mask does not touch the face.
        grow: see :func:`~stillspeak.rendering.blend.blend`.
        concealer: with the model; by default one is made.
        progress: told of every frame.
        options: seed, face (of the reference), blink and expression (where both eyes are hidden)
            as for ``animate``; crf, overwrite, mark, certificate, key: see
            :class:`~stillspeak.dub.output.OutputOptions`.

    Raises:
        VideoError, AudioError, ImageError, InputError: an input cannot be read or used.
        ConfigError: an option out of range.
        FaceError: no usable face in the reference, or none in any frame.
        OutputError, OutputExistsError: the output cannot be written.
    """
    kept: dict[str, Any] = {**options}
    written, motion = OutputOptions.out_of(kept), MotionOptions(**kept).motion
    if not 0 <= grow <= 1:
        raise ConfigError(f"grow {grow:g} is out of range; give 0 to 1 face widths")
    check_rewrite(video, output, overwrite=written.overwrite)
    scan = scan_video(video)
    check_sound(video, scan, "the hidden face is")
    first = next(timed_frames(video), None)
    if first is None:
        raise VideoError(f"{video}: holds no video frames; give another file")
    height, width = first.rgb().shape[:2]
    source = MaskSource(mask, (height, width))
    settings = {
        **motion.record("seed", "blink", "expression", "face"),
        "grow": grow,
        "part": "occlusion",
    }
    with rewriting(video, output, scan, concealer, settings, written) as (own, writer):
        chosen = _choose_reference(video, source, reference, own, motion.face)
        deoccluder = _Deoccluder(own, chosen, grow)
        generator, fps = own.generator, float(scan.fps)
        sound = picture_sound(video, scan.start, generator.config.sample_rate)
        heard = HeardPoses(generator, sound, eyes_and_brows(motion, generator.config))
        writer.start(first)

        def frames() -> Iterator[_LocatedFrame]:
            for frame, hidden in zip(timed_frames(video), source.masks(), strict=False):
                place = model_place(frame.time - scan.start, fps, generator)
                yield _LocatedFrame(frame, frame.rgb(), hidden, place)

        for one, picture in deoccluder.draw(deoccluder.located(frames()), heard):
            if picture is None:
                writer.keep(one.frame)
            else:
                writer.change(one.frame, one.picture, picture)
            if progress is not None:
                progress(writer.frames)
        if deoccluder.lost_track and not deoccluder.generated:
            raise NoFaceError(
                f"{video}: the face was found in none of the {deoccluder.lost_track} frames that "
                "hide it; too little of it is seen outside the mask"
            )
    return DeoccludedVideo(
        output=str(output),
        frames=writer.frames,
        fps=fps,
        width=width,
        height=height,
        generated=deoccluder.generated,
        hidden=round(deoccluder.hidden / max(deoccluder.generated, 1), 5),
        lost_track=deoccluder.lost_track,
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


class _Deoccluder:
    """One video on its way through."""

    def __init__(self, concealer: Concealer, reference: _Reference, grow: float) -> None:
        self._grow, self._concealer = grow, concealer
        self._points = reference.face.points
        self._width = float(np.ptp(self._points[:, 0]))
        self._index = reference.index
        mouth = VideoMouth(Appearance.gather([(reference.picture, self._points)]))
        anchor = Anchor(reference.picture, self._points, 0.0)
        self._renderer = AnchorRenderer(anchor, mouth, concealer.generator)
        self._fps = concealer.generator.config.fps
        self._last: Transform | None = None
        self._reference = reference.picture
        self.generated = self.lost_track = 0
        self.hidden = 0.0

    def located(self, frames: Iterable[_LocatedFrame]) -> Iterator[_LocatedFrame]:
        """Frames with where the head is in them, as far as they hide something."""
        tracker = FaceTracker(self._concealer.detector)
        for one, face in tracker.track(frames, self._shown):
            if not (one.mask > HIDDEN).any():
                yield one
                continue
            found = None
            if face is not None:
                found = head_place(self._points, face.points, one.mask > 0)
            if found is None:
                self.lost_track += 1
            else:
                self._last = found
            yield replace(one, to_frame=self._last)

    def _shown(self, one: _LocatedFrame) -> Picture:
        """What the detector is shown: a whole face, with its hidden part as it was last, where
        little is seen of it."""
        if self._last is None:
            return one.picture
        points = transform_points(self._points, self._last)
        if values_at(one.mask > 0, points).mean() <= _MOSTLY:
            return one.picture
        whole = lay_over(self._reference, self._last, self._points, one.picture)
        return blend(one.picture, whole, one.mask, self._face_width(self._last))

    def _face_width(self, to_frame: Transform) -> float:
        return self._width * math.sqrt(abs(float(np.linalg.det(to_frame[:, :2]))))

    @torch.inference_mode()
    def draw(
        self, frames: Iterator[_LocatedFrame], heard: HeardPoses
    ) -> Iterator[tuple[_LocatedFrame, Picture | None]]:
        """Each frame with its new picture, or None where nothing is hidden."""
        for index, one in enumerate(frames):
            heard.forget(one.place)
            if index == self._index:
                # From here on the difference between the sound and the camera is known.
                self._renderer.anchor = Anchor(self._reference, self._points, one.place)
                self._renderer.compare(heard)
            if one.to_frame is None:
                yield one, None
                continue
            places, since = np.array([one.place]), np.full(1, np.inf)
            if self._renderer.heard is not None:
                since = (places - self._renderer.anchor.place) / self._fps
            poses = self._renderer.joined(heard.at(places), fading(since, None, MEMORY)[0])
            curves = heard.curves(places)
            if not self._eyes_hidden(one):
                curves = torch.zeros_like(curves)
            (face,) = self._renderer.render(poses, curves, since)
            drawn = lay_over(face, one.to_frame, self._points, one.picture)
            self.generated += 1
            self.hidden += float((one.mask > HIDDEN).mean())
            width = self._face_width(one.to_frame)
            yield one, blend(one.picture, drawn, one.mask, width, self._grow)

    def _eyes_hidden(self, one: _LocatedFrame) -> bool:
        assert one.to_frame is not None
        lids = transform_points(self._points[list(EYELIDS)], one.to_frame)
        return bool((values_at(one.mask, lids) > HIDDEN).all())
