"""The metrics, registered. Definitions are stated here and nowhere else; see ``registry``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.errors import ConfigError
from stillspeak.evaluation import motion_metrics
from stillspeak.evaluation.clip import Curve, EvaluationClip
from stillspeak.evaluation.measures import closures, identity, image_quality, lips, stability
from stillspeak.evaluation.measures.cpbd import cpbd
from stillspeak.evaluation.registry import LOST, METRICS, Metric, Score, metric, of_faces
from stillspeak.face.mouth import jaw_drop

_GREY = "Frames are aligned 128 x 96 crops, grey = 0.2125 R + 0.7154 G + 0.0721 B in [0, 255]."


def all_metrics() -> list[Metric]:
    """Every registered metric, in the order of registration."""
    return list(METRICS.values())


def find_metrics(names: Iterable[str]) -> list[Metric]:
    """Metrics by name, and those that belong beside them, in the order of registration.

    Raises:
        ConfigError: an unknown name, or none.
    """
    wanted = set(names)
    if unknown := ", ".join(sorted(wanted - set(METRICS))):
        raise ConfigError(f"there is no metric {unknown}; there are {', '.join(METRICS)}")
    if not wanted:
        raise ConfigError("no metric was asked for")
    wanted.update(*[METRICS[asked].beside for asked in wanted])
    return [m for m in all_metrics() if m.name in wanted]


def _of_frames(
    name: str, compute: Callable[..., float], definition: str, *, pair: bool = False, **about: Any
) -> None:
    """A metric of the generated frames, or of the generated and the real ones."""

    def of(clip: EvaluationClip) -> float:
        frames = clip.generated.frames
        return compute(frames, clip.real.frames) if pair else compute(frames)

    metric(name, of, f"{definition} {_GREY}", **about)


# --- nearness to the real video -----------------------------------------------------------------

_near = partial(_of_frames, pair=True, better="higher")

_near(
    "psnr",
    image_quality.psnr,
    "10 log10(255^2 / MSE), MSE over all pixels of all frames of the video.",
    unit="dB",
)
_near(
    "psnr_frames",
    image_quality.psnr_frames,
    """10 log10(255^2 / MSE) of each frame, mean over the frames that differ from the real ones at
    all.""",
    unit="dB",
)
_near(
    "mouth_psnr",
    lambda *videos: image_quality.psnr(*map(image_quality.mouth, videos)),
    "psnr of rows 72 to 111, columns 24 to 75, around the mouth.",
    unit="dB",
)
_near(
    "ssim",
    image_quality.ssim,
    """Structural similarity (Wang et al. 2004), uniform window of 7 x 7, sample covariance, K1 =
    0.01, K2 = 0.03, range 255, mean over frames.""",
)
_near(
    "ssim_gaussian",
    partial(image_quality.ssim, gaussian=True),
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 x 11 (sigma 1.5), population
    covariance, K1 = 0.01, K2 = 0.03, range 255, mean over frames.""",
)

# --- sharpness ----------------------------------------------------------------------------------


def _cpbd(clip: EvaluationClip) -> float:
    pieces = image_quality.pieces(clip.generated.frames)
    return float(np.concatenate([cpbd(image_quality.grey(some)) for (some,) in pieces]).mean())


def _sharpness(clip: EvaluationClip) -> float | Score:
    real = image_quality.sharpness(clip.real.frames)
    if real == 0:
        return Score(None, "the real video is of one colour")
    return image_quality.sharpness(clip.generated.frames) / real


_of_frames(
    "fdbm",
    image_quality.fdbm,
    """Frequency domain blurriness (De and Masilamani 2013): share of Fourier coefficients with
    F > max(F) / 1000, F = abs(fft2(grey)), mean over frames.""",
    better="higher",
)
metric(
    "cpbd",
    _cpbd,
    f"""Cumulative probability of blur detection (Narvekar and Karam 2009): Canny edges,
    Marziliano widths w of near-vertical edges, whole 64 x 64 blocks from the top left with more
    than 0.2 % Canny pixels, w_JNB = 5 if the block's contrast is at most 50 else 3; share of edge
    pixels with 1 - exp(-(w / w_JNB)^3.6) <= 0.63, mean over frames. {_GREY} Such a crop holds two
    whole blocks, columns 0 to 63.""",
    better="higher",
)
metric(
    "sharpness",
    _sharpness,
    f"""Mean magnitude of the grey level's gradient (central differences) of the generated video
    over that of the real one; the real video has 1. {_GREY}""",
)

# --- identity -----------------------------------------------------------------------------------

_EMBEDDING = (
    "Embeddings are dlib's 128 numbers unless another embedder is named (the note says which), "
    "of the aligned crop."
)


def _acd(clip: EvaluationClip, kind: identity.DistanceName, *, ratio: bool) -> Score:
    generated, real = clip.embeddings
    value = float(identity.distances(real[0], generated, kind).mean())
    own = float(identity.distances(real[0], real, kind).mean()) if ratio else 1.0
    if own == 0:
        return Score(None, "the real video does not move")
    return Score(value / own, f"embedder {clip.tools.versions['embedding']}")


def _register_acd(name: str, kind: identity.DistanceName, words: str) -> None:
    content = partial(metric, better="lower", tools=("embedding",))
    content(
        name,
        partial(_acd, kind=kind, ratio=False),
        f"""Average content distance: {words} between the embeddings of the still (the real
        video's first frame) and of each generated frame, mean over all frames. {_EMBEDDING}""",
    )
    content(
        f"{name}_ratio",
        partial(_acd, kind=kind, ratio=True),
        f"{name} over the same number of the real video, which has 1. {_EMBEDDING}",
    )


_register_acd("acd", "l2", "Euclidean distance")
_register_acd("acd_squared", "squared", "squared Euclidean distance")
_register_acd("acd_cosine", "cosine", "one minus the cosine")

# --- lips ---------------------------------------------------------------------------------------

_LAGS = f"at each lag from -{lips.MAX_LAG} to {lips.MAX_LAG} frames"
_WIDTH = (
    "the distance of the mouth's corners (points 61 and 291) in the aligned crop, where eyes and "
    "nose stay in place"
)
_OTHERS = (
    "the real lips of up to eight other clips of the test set instead of the clip's own, each "
    "pair cut to the shorter one's length, mean over them: clips of other people, of the same "
    "person where there are no others; of at least three seconds or half of this clip, if there "
    "are such; those whose names give the smallest SHA-256 of 'THIS OTHER', where a clip is "
    "SPEAKER/NAME. What a correlation gives without any connection"
)


def _register_correlation(
    name: str, curve: str, agree: lips.Agree, definition: str, *beside: str
) -> None:
    """A correlation of a curve of the mouth, and its control with other clips' lips."""

    def own(clip: EvaluationClip) -> float:
        return agree(getattr(clip.generated, curve), getattr(clip.real, curve)).correlation

    def mismatched(clip: EvaluationClip) -> Score:
        others = [getattr(mouth, curve) for mouth in clip.others]
        if not others:
            return Score(None, "there is no other clip to compare with")
        value, count = lips.mismatched_agreement(agree, getattr(clip.generated, curve), others)
        if not count:
            return LOST
        return Score(value, f"mean over {count} other {'clip' if count == 1 else 'clips'}")

    control = f"{name}_mismatched"
    of_faces(name, own, definition, better="higher", beside=(control, *beside))
    of_faces(control, mismatched, f"{name} with {_OTHERS}.", others=True)


def _amplitude(name: str, curve: Callable[[Any], Curve], words: str) -> None:
    """How far something moves, over how far it moves in the real video."""
    of_faces(
        name,
        lambda clip: lips.lip_agreement(curve(clip.generated), curve(clip.real)).amplitude,
        f"Standard deviation over time of the generated {words}",
    )


of_faces(
    "face_found",
    lambda clip: float(np.mean([face is not None for face in clip.generated.faces])),
    "Share of generated frames in which a face is found.",
    better="higher",
)
_register_correlation(
    "lip_correlation",
    "opening",
    lips.lip_agreement,
    """Pearson's r of the generated and the real opening of the inner lips (points 13 and 14) over
    the frames where both are found; 0 if one does not move.""",
)
_amplitude(
    "lip_amplitude",
    lambda side: side.opening,
    """opening of the inner lips (points 13 and 14) over that of the real one, frames where both
    are found; the real video has 1.""",
)
_register_correlation(
    "lip_correlation_lagged",
    "opening",
    lips.lagged_agreement,
    f"The largest of lip_correlation {_LAGS}, for videos whose sound and picture are apart.",
    "lip_lag",
)
of_faces(
    "lip_lag",
    lambda clip: float(lips.lagged_agreement(clip.generated.opening, clip.real.opening).lag),
    f"""The lag at which lip_correlation is largest, {_LAGS}; the smallest of equally good ones.
    Positive: the generated lips come later than the real ones.""",
    unit="frames",
)
_register_correlation(
    "width_correlation",
    "width",
    lips.lip_agreement,
    f"""Pearson's r of the generated and the real width of the mouth over the frames where both are
    found; 0 if one does not move. Width is {_WIDTH}.""",
)
_register_correlation(
    "width_correlation_lagged",
    "width",
    lips.lagged_agreement,
    f"The largest of width_correlation {_LAGS}.",
)
_amplitude(
    "width_amplitude",
    lambda side: side.width,
    f"""width of the mouth over that of the real one, frames where both are found; the real video
    has 1. Width is {_WIDTH}.""",
)
_amplitude(
    "jaw_amplitude",
    lambda side: jaw_drop(side.points).astype(np.float64),
    """distance from nose base to chin (points 2 and 152) over that of the real one, frames where
    both are found; the real video has 1.""",
)

# --- closed lips --------------------------------------------------------------------------------

_NEVER = "the real mouth never closes, or hardly moves"


def _seen(clip: EvaluationClip) -> bool:
    """Half of the frames or more show a face on both sides."""
    both = np.isfinite(clip.generated.opening) & np.isfinite(clip.real.opening)
    return bool(both.mean() >= 0.5)


def _register_closures(
    name: str, compute: Callable[[closures.Closures], float], definition: str, **about: Any
) -> None:
    """A metric of the closures, where there are any."""

    def checked(clip: EvaluationClip) -> Score:
        if not _seen(clip):
            return LOST
        found = clip.closures
        if found is None:
            return Score(None, _NEVER)
        by = "word timings" if clip.words else "the real lips alone"
        if not found.real:
            return Score(None, f"no closure amid speech (by {by})")
        value = compute(found)
        if np.isnan(value):
            return Score(None, "no other moments amid speech")
        return Score(value, f"{found.real} closures by {by}")

    words = f"{closures.CLOSURE_DEFINITION} {closures.CLOSED_DEFINITION} {lips.SILENCE_DEFINITION}"
    of_faces(name, checked, f"{definition} {words}", **about)


_register_closures(
    "closures_found",
    lambda found: found.found / found.real,
    "Share of the real lips' closures amid speech (b, p, m) that are found in the generated ones.",
    better="higher",
    beside=("closures_missed", "closures_chance"),
)
_register_closures(
    "closures_missed",
    lambda found: 1 - found.found / found.real,
    """Share of the real lips' closures amid speech that are not found in the generated ones: 1 -
    closures_found.""",
    better="lower",
    beside=("closures_found", "closures_chance"),
)
_register_closures(
    "closures_chance",
    lambda found: found.chance,
    """What closures_found would be by chance: share of all other stretches of as many frames (the
    closures' median and two before and after) in which the generated lips are closed. They lie
    between the first and the last frame that is not silent, are not silent altogether, and are
    free of closures with two frames around and of closed real lips for more than eight frames.""",
)


def _register_while_closed(
    name: str,
    compute: Callable[[EvaluationClip, closures.Levels], npt.NDArray[Any]],
    definition: str,
    **about: Any,
) -> None:
    """A mean over the frames in which the real mouth is closed."""

    def mean(clip: EvaluationClip) -> Score:
        if not _seen(clip):
            return LOST
        if clip.levels is None:
            return Score(None, _NEVER)
        known = np.isfinite(clip.generated.opening)
        where = known & (clip.real.opening / clip.face_height <= clip.levels.closed)
        if not where.any():
            return Score(None, "no frame shows the real mouth closed and the generated one at all")
        return Score(float(compute(clip, clip.levels)[where].mean()))

    of_faces(name, mean, f"{definition} {closures.CLOSED_DEFINITION}", **about)


_register_while_closed(
    "closed_opening",
    lambda clip, levels: clip.generated.opening / clip.face_height,
    "Mean opening of the generated lips over the frames in which the real mouth is closed.",
    unit="face heights",
    beside=("closed_opening_real",),
)
_register_while_closed(
    "closed_opening_real",
    lambda clip, levels: clip.real.opening / clip.face_height,
    "closed_opening of the real lips in the same frames.",
    unit="face heights",
)
_register_while_closed(
    "closed_open_share",
    lambda clip, levels: clip.generated.opening / clip.face_height > levels.closed,
    """Share of the frames in which the real mouth is closed and the generated one is not, by the
    same limit, of all in which the real one is.""",
    better="lower",
)

_REST = (
    "in face heights (median distance of points 10 and 152 in the real frames), of the inner lips "
    "(13 and 14) in silent frames."
)


def _at_rest(clip: EvaluationClip, *, real: bool, deviation: bool) -> Score:
    source = f"silence by {clip.silence.source}"
    opening = (clip.real if real else clip.generated).opening / clip.face_height
    quiet = opening[clip.silence.frames & np.isfinite(opening)]
    if len(quiet) < 2:
        return Score(None, f"fewer than two silent frames ({source})")
    if deviation:
        return Score(float(quiet.std()), source)
    rest = clip.real.opening[0] / clip.face_height
    if np.isnan(rest):
        return Score(None, "no face is found in the still")
    return Score(float(quiet.mean() - rest), source)


def _register_rest(name: str, words: str, *, deviation: bool) -> None:
    control = f"{name}_real"
    for own, whose, beside in ((name, "generated", (control,)), (control, "real", ())):
        of_faces(
            own,
            partial(_at_rest, real=whose == "real", deviation=deviation),
            f"{words} of the {whose} opening {_REST} {lips.SILENCE_DEFINITION}",
            unit="face heights",
            beside=beside,
        )


_register_rest(
    "silent_opening", "Mean, less the opening in the still (first real frame),", deviation=False
)
_register_rest("silent_opening_deviation", "Standard deviation over time", deviation=True)


def _in_silence(clip: EvaluationClip, value: float, frames: str) -> Score:
    """A value of silent frames; NaN where there are not so many in a row."""
    source = f"silence by {clip.silence.source}"
    if np.isnan(value):
        return Score(None, f"no {frames} silent frames in a row ({source})")
    return Score(value, source)


of_faces(
    "lip_landmark_distance",
    lambda clip: lips.lip_landmark_distance(clip.generated.points, clip.real.points),
    """Mean Euclidean distance between generated and real lip landmarks (40 points), each frame's
    lips first moved to a common middle, over the frames where both are found (LMD, Chen et al.
    2018).""",
    unit="px",
    better="lower",
)
of_faces(
    "silent_lip_stability",
    lambda clip: _in_silence(
        clip, stability.lip_unrest(clip.generated.opening, clip.silence.frames), "two"
    ),
    f"""Mean absolute change of the opening of the inner lips (points 13 and 14) from one silent
    frame to the next silent one. {lips.SILENCE_DEFINITION}""",
    unit="px/frame",
    better="lower",
)

# --- what is said -------------------------------------------------------------------------------

_READING = (
    "Words by Levenshtein distance over the number of true words, which may give more than 1; true "
    "are the words of the clip's word timings without silences, else of its transcript."
)


def _error_rate(clip: EvaluationClip, *, real: bool) -> Score:
    truth = clip.sentence
    if truth is None:
        return Score(None, "neither word timings nor a transcript say what is spoken")
    from stillspeak.evaluation.measures.lipreading import word_error_rate  # brings torch along

    read = clip.real_reading if real else clip.generated_reading
    return Score(word_error_rate(truth, read), f"read: {read}")


_read = partial(metric, better="lower", tools=("lipreader",))

_read(
    "wer",
    partial(_error_rate, real=False),
    f"""Word error rate of a lip reader on the generated frames; without that on the real frames
    (wer_real) it says nothing. {_READING}""",
    beside=("wer_real",),
)
_read(
    "wer_real",
    partial(_error_rate, real=True),
    f"wer of the real frames: what the lip reader itself gets wrong. {_READING}",
)

_SYNC = (
    "25 frames a second; windows of five frames and the sound of the same moment are embedded, the "
    "sound shifted by -10 to 10 frames, and distances averaged over the clip"
)
_synced = partial(metric, tools=("sync",))

_synced(
    "av_offset",
    lambda clip: float(clip.generated_sync.offset),
    f"""Shift between sound and generated frames at which their embeddings are nearest: {_SYNC};
    the shift with the smallest mean distance. Positive: the sound comes later than the picture
    that it belongs to.""",
    unit="frames",
)
_synced(
    "av_confidence",
    lambda clip: clip.generated_sync.confidence,
    f"""How clearly sound and generated frames belong together: {_SYNC}; the median of the mean
    distances minus their minimum.""",
    better="higher",
    beside=("av_confidence_real",),
)
_synced(
    "av_confidence_real",
    lambda clip: clip.real_sync.confidence,
    f"av_confidence of the real frames. {_SYNC}.",
    better="higher",
)

# --- stability ----------------------------------------------------------------------------------

_of_frames(
    "jitter",
    stability.pixel_jitter,
    "Mean absolute second difference over time of each pixel.",
    unit="levels",
)
metric(
    "silent_jitter",
    lambda clip: _in_silence(
        clip, stability.pixel_jitter(clip.generated.frames, clip.silence.frames), "three"
    ),
    f"""Mean absolute second difference over time of each pixel, where its three frames are silent.
    {lips.SILENCE_DEFINITION} {_GREY}""",
    unit="levels",
)
of_faces(
    "lip_jitter",
    lambda clip: stability.lip_jitter(clip.generated.opening),
    """Mean absolute second difference over time of the opening of the inner lips (points 13 and
    14).""",
    unit="px",
)

motion_metrics.register()
