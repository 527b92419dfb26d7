"""New speech for a video file: streaming from file to file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack

from stillspeak.dub.dubber import Dubber, DubFrame, DubStats
from stillspeak.dub.frames import BURSTS, fitted, sampled_bursts, shown_seconds
from stillspeak.dub.heard import model_place
from stillspeak.dub.options import DubOptionKeywords, DubOptions
from stillspeak.dub.output import EditedVideo, OutputKeywords, OutputOptions
from stillspeak.dub.sound import (
    Speech,
    heard_by_model,
    seconds_of,
    speech_track,
    with_background,
)
from stillspeak.errors import AudioError, VideoError
from stillspeak.media.audio import Waveform, load_audio
from stillspeak.media.dynamic_range import CURVES
from stillspeak.media.marks.origin import describe_speech
from stillspeak.media.sound import SoundSource
from stillspeak.media.video import VIDEO_FORMATS, decode, open_video
from stillspeak.media.video_editor import (
    Box,
    Rewriter,
    TimedFrame,
    VideoScan,
    check_rewrite,
    scan_video,
)
from stillspeak.rendering.raster import Picture
from stillspeak.system.threads import WorkBehind, read_ahead
from stillspeak.weights import DEFAULT_MODEL

MAX_PIXELS = 4096 * 2304
"""Of a frame."""

PRESET = "veryfast"
"""x264's, by measure: next to ``medium`` 2.5 times as fast at the same size, for 1.2 dB of 54."""

_IN_FLIGHT = 96 * 2**20  # bytes of frames that wait between two stages


T = TypeVar("T")

StageProgress = Callable[[str, int, int], None]


class DubKeywords(DubOptionKeywords, OutputKeywords, total=False):
    """The fields of :class:`DubOptions` and of :class:`OutputOptions` as keywords."""


@dataclass(frozen=True)
class DubbedVideo(EditedVideo):
    """What was done to a video that got new speech.

    seconds: how long it is.
    without_face: frames that stayed as they were; ``reasons`` tells of how many why.
    cuts: frames that begin another scene.
    notes: what the output does not keep of the video.
    """

    seconds: float
    without_face: int
    reasons: dict[str, int]
    cuts: int
    notes: tuple[str, ...]

    def summary(self) -> str:
        """The same in a line."""
        text = f"{self.generated} of {self.frames} frames with a new mouth, {self.seconds:.2f} s"
        if self.reasons:
            why = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
            text += f"; as they were: {why}"
        return text


def dub(
    video: str | Path,
    speech: Speech,
    output: str | Path,
    *,
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    dubber: Dubber | None = None,
    progress: StageProgress | None = None,
    **options: Unpack[DubKeywords],
) -> DubbedVideo:
    """Write a video again with a mouth that says other speech.

    Frames without a face, and all that is not the mouth's surroundings, go from the decoder to
    the encoder as they are. Memory does not grow with the length of the video or the sound.

    Args:
        video: a video of somebody, with or without sound.
        speech: a sound file, or a video with sound; its bytes; or samples and their rate.
        output: .mp4, .m4v, .mov, .mkv or .webm.
        model, device: as for ``Animator``.
        dubber: with a model that is loaded already, instead of these two.
        progress: told of a stage, how much of it is done, and about how much it is in all.
        options: face, fit, keep_background_sound: see :class:`DubOptions`; crf, overwrite, mark,
            certificate, key: see :class:`~stillspeak.dub.output.OutputOptions`.

    Raises:
        VideoError, AudioError: an input cannot be read or used.
        NoFaceError: no usable face in the video.
        WeightsError, ConfigError: the model cannot be used; an option is out of range.
        OutputError, OutputExistsError: the output cannot be written.
    """
    kept: dict[str, Any] = {**options}
    written, how = OutputOptions.out_of(kept), DubOptions(**kept)
    check_rewrite(video, output, overwrite=written.overwrite)
    notes = check_video(video)
    scan = scan_video(video)
    said = speech_track(speech)
    seconds = seconds_of(said)
    sound = _whole_sound(video, scan, said, seconds, how)
    settings = {
        "face": how.face,
        "fit": how.fit,
        "keep_background_sound": how.keep_background_sound,
        "part": "dub",
    }
    with Dubber(model, device=device) if dubber is None else nullcontext(dubber) as own:
        marks = written.marks(video, own.model, settings, _described(speech))
        with closing(sampled_bursts(video, scan)) as samples:
            told = _told(samples, "looking", BURSTS, progress)
            appearance = own.appearance(told, face=how.face, name=str(video))
        with Rewriter(
            *(video, output, scan),
            overwrite=written.overwrite,
            crf=written.crf,
            preset=PRESET,
            marks=marks,
            sound=sound,
        ) as writer:
            run = _Run(scan, own, writer)
            heard = heard_by_model(said, own.generator.config.sample_rate)
            total = round(shown_seconds(scan, seconds, how.fit) * scan.fps)
            shown = _told(fitted(video, scan, seconds, how.fit), "dubbing", total, progress)
            run.through(shown, heard, appearance)
    notes += [f"its {codec} track is left out" for codec in writer.left_out]
    return DubbedVideo(
        output=str(output),
        frames=writer.frames,
        fps=float(scan.fps),
        width=run.size[0],
        height=run.size[1],
        generated=run.stats.drawn,
        seconds=round(writer.seconds, 3),
        without_face=writer.frames - run.stats.drawn,
        reasons=run.stats.reasons,
        cuts=int(run.stats.cuts),
        notes=tuple(notes),
    )


def check_video(video: str | Path) -> list[str]:
    """What the output will not keep of a video, each in a few words.

    Raises:
        VideoError: it cannot be read, or is larger than 4K.
    """
    with open_video(video) as (container, stream):
        frame = next(decode(container, stream, str(video)), None)
    if frame is None:
        raise VideoError(f"{video}: holds no video frames; give {VIDEO_FORMATS}")
    if frame.width * frame.height > MAX_PIXELS:
        raise VideoError(
            f"{video}: {frame.width}x{frame.height} is more than 4K; make it smaller first"
        )
    notes = []
    if curve := CURVES.get(frame.color_trc):
        notes.append(f"standard dynamic range (BT.709) instead of high ({curve})")
    elif frame.format.components[0].bits > 8:
        notes.append(f"8 bits a colour instead of {frame.format.name}")
    if any(one.is_alpha for one in frame.format.components):
        notes.append("no transparency")
    if frame.interlaced_frame:
        notes.append("its interlaced fields are written as whole frames")
    return notes


class _Run:
    """One video on its way: decoded, drawn and encoded in a thread each."""

    def __init__(self, scan: VideoScan, dubber: Dubber, writer: Rewriter) -> None:
        self._scan, self._dubber, self._writer = scan, dubber, writer
        self.size = (0, 0)
        self.stats = DubStats()

    def through(
        self,
        shown: Iterator[TimedFrame],
        sound: Iterator[Waveform],
        appearance: Any,
    ) -> None:
        first = next(shown)
        picture = first.rgb()
        self.size = picture.shape[1], picture.shape[0]
        self._writer.start(first)
        depth = max(2, min(8, _IN_FLIGHT // (5 * picture.size // 3)))
        frames = read_ahead(self._frames(first, shown), depth)
        made = self._dubber.draw(frames, sound, appearance, stats=self.stats)
        # What takes frames ends before what gives them.
        with closing(frames), closing(made), WorkBehind(depth) as behind:  # type: ignore[type-var]
            for frame, drawn, box in made:
                behind.do(partial(self._write, frame, drawn, box))

    def _frames(self, first: TimedFrame, rest: Iterator[TimedFrame]) -> Iterator[DubFrame]:
        fps, rate = float(self._scan.fps), self._dubber.generator
        frame: TimedFrame | None = first
        while frame is not None:
            place = model_place(frame.time - first.time, fps, rate)
            yield DubFrame(frame.rgb(), place, frame)
            frame = next(rest, None)

    def _write(self, frame: DubFrame, drawn: Picture | None, box: Box) -> None:
        if drawn is None:
            self._writer.keep(frame.token)
        else:
            self._writer.change(frame.token, frame.picture, drawn, box)


def _whole_sound(
    video: str | Path, scan: VideoScan, said: SoundSource, seconds: float, how: DubOptions
) -> SoundSource:
    """What the output sounds like."""
    if not how.keep_background_sound:
        return said
    if scan.sound_start is None:
        raise AudioError(f"{video}: has no sound track; there is no background sound to keep")
    longest = max(scan.end - scan.start, seconds)
    return with_background(said, video, scan.start, longest, how.keep_background_sound)


def _described(speech: Speech) -> Any:
    samples = load_audio(speech) if isinstance(speech, tuple) else None
    return describe_speech(speech, samples)  # type: ignore[arg-type]


def _told(
    items: Iterable[T], stage: str, total: int, progress: StageProgress | None
) -> Iterator[T]:
    """The same items; each is told of when the next is asked for."""
    for done, item in enumerate(items, 1):
        yield item
        if progress is not None:
            progress(stage, done, max(total, done))
