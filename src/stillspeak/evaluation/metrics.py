"""The metrics, registered. Definitions are stated here and nowhere else; see ``registry``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from stillspeak.constants import VIDEO_FPS
from stillspeak.errors import VideoError
from stillspeak.evaluation.clip import Material
from stillspeak.evaluation.measures import (
    closures,
    expression,
    identity,
    image_quality,
    lips,
    stability,
)
from stillspeak.evaluation.measures import cpbd as _cpbd
from stillspeak.evaluation.measures.closures import Curve
from stillspeak.evaluation.registry import Score, metric
from stillspeak.face.mouth import jaw_drop

_GREY = "Frames are aligned 128 x 96 crops, grey = 0.2125 R + 0.7154 G + 0.0721 B in [0, 255]."
_FACES = (
    "Landmarks are MediaPipe's, found frame by frame in the crop (with a grey border, enlarged "
    "three times), in the same way for generated and real frames; pixels are those of the "
    "128 x 96 crop."
)
_SILENCE = (
    "A frame is silent if it lies wholly outside the words by the clip's word timings; without "
    f"timings, if the RMS of its 40 ms is {lips.QUIET_DB:g} dB or more below the clip's 95 % "
    "quantile. The note says which."
)
_LOST = Score(None, "fewer than half of the frames show a face")


# --- nearness to the real video -----------------------------------------------------------------


@metric(
    "psnr",
    version=1,
    unit="dB",
    better="higher",
    definition=f"10 log10(255^2 / MSE), MSE over all pixels of all frames of the video. {_GREY}",
)
def _psnr(clip: Material) -> float:
    return image_quality.psnr(clip.generated, clip.real)


@metric(
    "psnr_frames",
    version=1,
    unit="dB",
    better="higher",
    definition=f"""10 log10(255^2 / MSE) of each frame, mean over the frames that differ from the
    real ones at all. {_GREY}""",
)
def _psnr_frames(clip: Material) -> float:
    return image_quality.psnr_frames(clip.generated, clip.real)


@metric(
    "mouth_psnr",
    version=1,
    unit="dB",
    better="higher",
    definition=f"psnr of rows 72 to 111, columns 24 to 75, around the mouth. {_GREY}",
)
def _mouth_psnr(clip: Material) -> float:
    return image_quality.psnr(image_quality.mouth(clip.generated), image_quality.mouth(clip.real))


@metric(
    "ssim",
    version=1,
    unit="1",
    better="higher",
    definition=f"""Structural similarity (Wang et al. 2004), uniform window of 7 x 7, sample
    covariance, K1 = 0.01, K2 = 0.03, range 255, mean over frames. {_GREY}""",
)
def _ssim(clip: Material) -> float:
    return image_quality.ssim(clip.generated, clip.real)


@metric(
    "ssim_gaussian",
    version=1,
    unit="1",
    better="higher",
    definition=f"""Structural similarity (Wang et al. 2004), Gaussian window of 11 x 11 (sigma
    1.5), population covariance, K1 = 0.01, K2 = 0.03, range 255, mean over frames. {_GREY}""",
)
def _ssim_gaussian(clip: Material) -> float:
    return image_quality.ssim(clip.generated, clip.real, gaussian=True)


# --- sharpness ----------------------------------------------------------------------------------


@metric(
    "fdbm",
    version=1,
    unit="1",
    better="higher",
    definition=f"""Frequency domain blurriness (De and Masilamani 2013): share of Fourier
    coefficients with F > max(F) / 1000, F = abs(fft2(grey)), mean over frames. {_GREY}""",
)
def _fdbm(clip: Material) -> float:
    return image_quality.fdbm(clip.generated)


@metric(
    "cpbd",
    version=1,
    unit="1",
    better="higher",
    definition=f"""Cumulative probability of blur detection (Narvekar and Karam 2009): Canny
    edges, Marziliano widths w of near-vertical edges, whole 64 x 64 blocks from the top left
    with more than 0.2 % Canny pixels, w_JNB = 5 if the block's contrast is at most 50 else 3;
    share of edge pixels with 1 - exp(-(w / w_JNB)^3.6) <= 0.63, mean over frames. {_GREY} Such
    a crop holds two whole blocks, columns 0 to 63.""",
)
def _cpbd_mean(clip: Material) -> float:
    shares = [
        _cpbd.cpbd(image_quality.grey(some)) for (some,) in image_quality.pieces(clip.generated)
    ]
    return float(np.concatenate(shares).mean())


@metric(
    "sharpness",
    version=1,
    unit="1",
    better="real",
    definition=f"""Mean magnitude of the grey level's gradient (central differences) of the
    generated video over that of the real one; the real video has 1. {_GREY}""",
)
def _sharpness(clip: Material) -> float | Score:
    real = image_quality.sharpness(clip.real)
    if real == 0:
        return Score(None, "the real video is of one colour")
    return image_quality.sharpness(clip.generated) / real


# --- identity -----------------------------------------------------------------------------------

_EMBEDDING = (
    "Embeddings are dlib's 128 numbers unless another embedder is named (the note says which), "
    "of the aligned crop."
)


def _acd(clip: Material, kind: identity.DistanceName, *, ratio: bool) -> Score:
    generated, real = clip.embeddings
    still = real[0]
    value = float(identity.distances(still, generated, kind).mean())
    note = f"embedder {clip.tools.versions['embedding']}"
    if not ratio:
        return Score(value, note)
    own = float(identity.distances(still, real, kind).mean())
    if own == 0:
        return Score(None, "the real video does not move")
    return Score(value / own, note)


def _register_acd(kind: identity.DistanceName, suffix: str, words: str) -> None:
    def plain(clip: Material) -> Score:
        return _acd(clip, kind, ratio=False)

    def relative(clip: Material) -> Score:
        return _acd(clip, kind, ratio=True)

    metric(
        f"acd{suffix}",
        version=1,
        unit="1",
        better="lower",
        tools=("embedding",),
        definition=f"""Average content distance: {words} between the embeddings of the still (the
        real video's first frame) and of each generated frame, mean over all frames.
        {_EMBEDDING}""",
    )(plain)
    metric(
        f"acd{suffix}_ratio",
        version=1,
        unit="1",
        better="lower",
        tools=("embedding",),
        definition=f"""acd{suffix} over the same number of the real video, which has 1.
        {_EMBEDDING}""",
    )(relative)


_register_acd("l2", "", "Euclidean distance")
_register_acd("squared", "_squared", "squared Euclidean distance")
_register_acd("cosine", "_cosine", "one minus the cosine")


# --- lips ---------------------------------------------------------------------------------------


def _comparable(measure: Callable[[], float]) -> float | Score:
    try:
        return measure()
    except VideoError:
        return _LOST


@metric(
    "face_found",
    version=1,
    unit="1",
    better="higher",
    tools=("landmarks",),
    definition=f"Share of generated frames in which a face is found. {_FACES}",
)
def _face_found(clip: Material) -> float:
    return float(np.mean([face is not None for face in clip.generated_faces]))


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


def _at_lag_0(generated: Curve, real: Curve) -> float:
    return lips.lip_agreement(generated, real).correlation


def _at_best_lag(generated: Curve, real: Curve) -> float:
    return lips.lagged_agreement(generated, real).correlation


def _register_mismatched(correlation: str, curve: str, agree: lips.Agree) -> None:
    def measure(clip: Material) -> Score:
        own = getattr(clip.generated_mouth, curve)
        others = [getattr(mouth, curve) for mouth in clip.other_mouths]
        if not others:
            return Score(None, "there is no other clip to compare with")
        value, count = lips.mismatched_agreement(agree, own, others)
        if not count:
            return _LOST
        return Score(value, f"mean over {count} other {'clip' if count == 1 else 'clips'}")

    metric(
        f"{correlation}_mismatched",
        version=1,
        unit="1",
        better="real",
        tools=("landmarks",),
        others=True,
        definition=f"{correlation} with {_OTHERS}. {_FACES}",
    )(measure)


@metric(
    "lip_correlation",
    version=1,
    unit="1",
    better="higher",
    tools=("landmarks",),
    beside=("lip_correlation_mismatched",),
    definition=f"""Pearson's r of the generated and the real opening of the inner lips (points 13
    and 14) over the frames where both are found; 0 if one does not move. {_FACES}""",
)
def _lip_correlation(clip: Material) -> float | Score:
    return _comparable(lambda: _at_lag_0(clip.generated_mouth.opening, clip.real_mouth.opening))


_register_mismatched("lip_correlation", "opening", _at_lag_0)


@metric(
    "lip_amplitude",
    version=1,
    unit="1",
    better="real",
    tools=("landmarks",),
    definition=f"""Standard deviation over time of the generated opening of the inner lips (points
    13 and 14) over that of the real one, frames where both are found; the real video has 1.
    {_FACES}""",
)
def _lip_amplitude(clip: Material) -> float | Score:
    return _comparable(
        lambda: lips.lip_agreement(clip.generated_opening, clip.real_opening).amplitude
    )


@metric(
    "lip_correlation_lagged",
    version=1,
    unit="1",
    better="higher",
    tools=("landmarks",),
    beside=("lip_correlation_lagged_mismatched", "lip_lag"),
    definition=f"""The largest of lip_correlation {_LAGS}, for videos whose sound and picture are
    apart. {_FACES}""",
)
def _lip_correlation_lagged(clip: Material) -> float | Score:
    return _comparable(lambda: _at_best_lag(clip.generated_mouth.opening, clip.real_mouth.opening))


_register_mismatched("lip_correlation_lagged", "opening", _at_best_lag)


@metric(
    "lip_lag",
    version=1,
    unit="frames",
    better="real",
    tools=("landmarks",),
    definition=f"""The lag at which lip_correlation is largest, {_LAGS}; the smallest of equally
    good ones. Positive: the generated lips come later than the real ones. {_FACES}""",
)
def _lip_lag(clip: Material) -> float | Score:
    return _comparable(
        lambda: float(lips.lagged_agreement(clip.generated_opening, clip.real_opening).lag)
    )


@metric(
    "width_correlation",
    version=1,
    unit="1",
    better="higher",
    tools=("landmarks",),
    beside=("width_correlation_mismatched",),
    definition=f"""Pearson's r of the generated and the real width of the mouth over the frames
    where both are found; 0 if one does not move. Width is {_WIDTH}. {_FACES}""",
)
def _width_correlation(clip: Material) -> float | Score:
    return _comparable(lambda: _at_lag_0(clip.generated_mouth.width, clip.real_mouth.width))


_register_mismatched("width_correlation", "width", _at_lag_0)


@metric(
    "width_correlation_lagged",
    version=1,
    unit="1",
    better="higher",
    tools=("landmarks",),
    beside=("width_correlation_lagged_mismatched",),
    definition=f"The largest of width_correlation {_LAGS}. {_FACES}",
)
def _width_correlation_lagged(clip: Material) -> float | Score:
    return _comparable(lambda: _at_best_lag(clip.generated_mouth.width, clip.real_mouth.width))


_register_mismatched("width_correlation_lagged", "width", _at_best_lag)


@metric(
    "width_amplitude",
    version=1,
    unit="1",
    better="real",
    tools=("landmarks",),
    definition=f"""Standard deviation over time of the generated width of the mouth over that of the
    real one, frames where both are found; the real video has 1. Width is {_WIDTH}. {_FACES}""",
)
def _width_amplitude(clip: Material) -> float | Score:
    return _comparable(
        lambda: lips.lip_agreement(clip.generated_mouth.width, clip.real_mouth.width).amplitude
    )


@metric(
    "jaw_amplitude",
    version=1,
    unit="1",
    better="real",
    tools=("landmarks",),
    definition=f"""Standard deviation over time of the generated distance from nose base to chin
    (points 2 and 152) over that of the real one, frames where both are found; the real video has
    1. {_FACES}""",
)
def _jaw_amplitude(clip: Material) -> float | Score:
    generated, real = (
        jaw_drop(points).astype(np.float64) for points in (clip.generated_points, clip.real_points)
    )
    return _comparable(lambda: lips.lip_agreement(generated, real).amplitude)


# --- closed lips --------------------------------------------------------------------------------

_CLOSED = (
    "Openings of the inner lips (points 13 and 14) are in face heights: over the median distance "
    "of forehead and chin (10 and 152) in the real frames. A mouth is closed up to s + "
    f"max({closures.CLOSED_SHARE:g} (w - s), {closures.CLOSED_LEAST:g}), s and w the "
    f"{closures.SHUT_QUANTILE:.0%} and {closures.WIDE_QUANTILE:.0%} quantiles of the clip's real "
    f"openings; there is no value where s is above {closures.SHUT_LIMIT:g} or "
    f"{closures.OPEN_SHARE:g} (w - s) not above {closures.CLOSED_LEAST:g}."
).replace("%", " %")
_CLOSURES = (
    "A closure is a run of frames with closed real lips, eight at most, with an opening above s + "
    f"{closures.OPEN_SHARE:g} (w - s) in the six frames before and in the six after, and not all "
    "of it and of two frames around silent. With word timings those count that are within three "
    "frames of the begin of a word spelled with b, p or m there (not ph, pn, ps, pt; not the "
    "letter m), or of the end of one that ends so (the letter m, not b and p; be, me, pe from four "
    "letters on); without, all. It is found if the generated lips are closed, by the real ones' "
    "limit, in it or in the two frames before or after"
)
_NEVER = "the real mouth never closes, or hardly moves"


def _closed(
    measure: Callable[[Material, closures.Closures], Score],
) -> Callable[[Material], float | Score]:
    """A measure of closures, where there are any."""

    def checked(clip: Material) -> Score:
        if not _seen(clip):
            return _LOST
        found = clip.closures
        if found is None:
            return Score(None, _NEVER)
        by = "word timings" if clip.words else "the real lips alone"
        if not found.real:
            return Score(None, f"no closure amid speech (by {by})")
        score = measure(clip, found)
        return score if score.note else Score(score.value, f"{found.real} closures by {by}")

    return checked


def _seen(clip: Material) -> bool:
    """Half of the frames or more show a face on both sides."""
    both = np.isfinite(clip.generated_opening) & np.isfinite(clip.real_opening)
    return bool(both.mean() >= 0.5)


@metric(
    "closures_found",
    version=1,
    unit="1",
    better="higher",
    tools=("landmarks",),
    beside=("closures_missed", "closures_chance"),
    definition=f"""Share of the real lips' closures amid speech (b, p, m) that are found in the
    generated ones. {_CLOSURES}. {_CLOSED} {_SILENCE} {_FACES}""",
)
@_closed
def _closures_found(clip: Material, found: closures.Closures) -> Score:
    return Score(found.found / found.real)


@metric(
    "closures_missed",
    version=1,
    unit="1",
    better="lower",
    tools=("landmarks",),
    beside=("closures_found", "closures_chance"),
    definition=f"""Share of the real lips' closures amid speech that are not found in the generated
    ones: 1 - closures_found. {_CLOSURES}. {_CLOSED} {_SILENCE} {_FACES}""",
)
@_closed
def _closures_missed(clip: Material, found: closures.Closures) -> Score:
    return Score(1 - found.found / found.real)


@metric(
    "closures_chance",
    version=1,
    unit="1",
    better="real",
    tools=("landmarks",),
    definition=f"""What closures_found would be by chance: share of all other stretches of as many
    frames (the closures' median and two before and after) in which the generated lips are closed.
    They lie between the first and the last frame that is not silent, are not silent altogether, and
    are free of closures with two frames around and of closed real lips for more than eight frames.
    {_CLOSURES}. {_CLOSED} {_SILENCE} {_FACES}""",
)
@_closed
def _closures_chance(clip: Material, found: closures.Closures) -> Score:
    if np.isnan(found.chance):
        return Score(None, "no other moments amid speech")
    return Score(found.chance)


def _while_closed(clip: Material, of: Callable[[Material, closures.Levels], Curve]) -> Score:
    if not _seen(clip):
        return _LOST
    if clip.levels is None:
        return Score(None, _NEVER)
    known = np.isfinite(clip.generated_opening)
    where = known & (clip.real_opening / clip.face_height <= clip.levels.closed)
    if not where.any():
        return Score(None, "no frame shows the real mouth closed and the generated one at all")
    return Score(float(of(clip, clip.levels)[where].mean()))


@metric(
    "closed_opening",
    version=1,
    unit="face heights",
    better="real",
    tools=("landmarks",),
    beside=("closed_opening_real",),
    definition=f"""Mean opening of the generated lips over the frames in which the real mouth is
    closed. {_CLOSED} {_FACES}""",
)
def _closed_opening(clip: Material) -> Score:
    return _while_closed(clip, lambda c, levels: c.generated_opening / c.face_height)


@metric(
    "closed_opening_real",
    version=1,
    unit="face heights",
    better="real",
    tools=("landmarks",),
    definition=f"closed_opening of the real lips in the same frames. {_CLOSED} {_FACES}",
)
def _closed_opening_real(clip: Material) -> Score:
    return _while_closed(clip, lambda c, levels: c.real_opening / c.face_height)


@metric(
    "closed_open_share",
    version=1,
    unit="1",
    better="lower",
    tools=("landmarks",),
    definition=f"""Share of the frames in which the real mouth is closed and the generated one is
    not, by the same limit, of all in which the real one is. {_CLOSED} {_FACES}""",
)
def _closed_open_share(clip: Material) -> Score:
    return _while_closed(
        clip,
        lambda c, levels: (c.generated_opening / c.face_height > levels.closed).astype(np.float64),
    )


_REST = (
    "in face heights (median distance of points 10 and 152 in the real frames), of the inner lips "
    "(13 and 14) in silent frames"
)


def _at_rest(clip: Material, *, real: bool, deviation: bool) -> Score:
    silence = clip.silence
    opening = (clip.real_opening if real else clip.generated_opening) / clip.face_height
    quiet = opening[silence.frames & np.isfinite(opening)]
    if len(quiet) < 2:
        return Score(None, f"fewer than two silent frames (silence by {silence.source})")
    if deviation:
        return Score(float(quiet.std()), f"silence by {silence.source}")
    rest = clip.real_opening[0] / clip.face_height
    if np.isnan(rest):
        return Score(None, "no face is found in the still")
    return Score(float(quiet.mean() - rest), f"silence by {silence.source}")


def _register_rest(name: str, words: str, *, deviation: bool) -> None:
    for real in (False, True):
        whose = "real" if real else "generated"
        metric(
            f"{name}_real" if real else name,
            version=1,
            unit="face heights",
            better="real",
            tools=("landmarks",),
            beside=() if real else (f"{name}_real",),
            definition=f"{words} of the {whose} opening {_REST}. {_SILENCE} {_FACES}",
        )(partial(_at_rest, real=real, deviation=deviation))


_register_rest(
    "silent_opening", "Mean, less the opening in the still (first real frame),", deviation=False
)
_register_rest("silent_opening_deviation", "Standard deviation over time", deviation=True)


@metric(
    "lip_landmark_distance",
    version=1,
    unit="px",
    better="lower",
    tools=("landmarks",),
    definition=f"""Mean Euclidean distance between generated and real lip landmarks (40 points),
    each frame's lips first moved to a common middle, over the frames where both are found (LMD,
    Chen et al. 2018). {_FACES}""",
)
def _lip_landmark_distance(clip: Material) -> float | Score:
    return _comparable(lambda: lips.lip_landmark_distance(clip.generated_points, clip.real_points))


@metric(
    "silent_lip_stability",
    version=1,
    unit="px/frame",
    better="lower",
    tools=("landmarks",),
    definition=f"""Mean absolute change of the opening of the inner lips (points 13 and 14) from
    one silent frame to the next silent one. {_SILENCE} {_FACES}""",
)
def _silent_lip_stability(clip: Material) -> Score:
    silence = clip.silence
    value = stability.lip_unrest(clip.generated_opening, silence.frames)
    if np.isnan(value):
        return Score(None, f"no two silent frames in a row (silence by {silence.source})")
    return Score(value, f"silence by {silence.source}")


# --- what is said -------------------------------------------------------------------------------

_READING = (
    "Words by Levenshtein distance over the number of true words, which may give more than 1; true "
    "are the words of the clip's word timings without silences, else of its transcript."
)


def _error_rate(clip: Material, *, real: bool) -> Score:
    truth = clip.sentence
    if truth is None:
        return Score(None, "neither word timings nor a transcript say what is spoken")
    from stillspeak.evaluation.measures.lipreading import word_error_rate  # brings torch along

    read = clip.real_reading if real else clip.generated_reading
    return Score(word_error_rate(truth, read), f"read: {read}")


@metric(
    "wer",
    version=1,
    unit="1",
    better="lower",
    tools=("lipreader",),
    beside=("wer_real",),
    definition=f"""Word error rate of a lip reader on the generated frames; without that on the
    real frames (wer_real) it says nothing. {_READING}""",
)
def _wer(clip: Material) -> Score:
    return _error_rate(clip, real=False)


@metric(
    "wer_real",
    version=1,
    unit="1",
    better="lower",
    tools=("lipreader",),
    definition=f"""wer of the real frames: what the lip reader itself gets wrong. {_READING}""",
)
def _wer_real(clip: Material) -> Score:
    return _error_rate(clip, real=True)


_SYNC = (
    "25 frames a second; windows of five frames and the sound of the same moment are embedded, the "
    "sound shifted by -10 to 10 frames, and distances averaged over the clip"
)


def _synced(measure: Callable[[], float]) -> float | Score:
    try:
        return measure()
    except VideoError as error:
        return Score(None, str(error))


@metric(
    "av_offset",
    version=1,
    unit="frames",
    better="real",
    tools=("sync",),
    definition=f"""Shift between sound and generated frames at which their embeddings are nearest:
    {_SYNC}; the shift with the smallest mean distance. Positive: the sound comes later than the
    picture that it belongs to.""",
)
def _av_offset(clip: Material) -> float | Score:
    return _synced(lambda: float(clip.generated_sync.offset))


@metric(
    "av_confidence",
    version=1,
    unit="1",
    better="higher",
    tools=("sync",),
    beside=("av_confidence_real",),
    definition=f"""How clearly sound and generated frames belong together: {_SYNC}; the median of
    the mean distances minus their minimum.""",
)
def _av_confidence(clip: Material) -> float | Score:
    return _synced(lambda: clip.generated_sync.confidence)


@metric(
    "av_confidence_real",
    version=1,
    unit="1",
    better="higher",
    tools=("sync",),
    definition=f"av_confidence of the real frames. {_SYNC}.",
)
def _av_confidence_real(clip: Material) -> float | Score:
    return _synced(lambda: clip.real_sync.confidence)


# --- stability ----------------------------------------------------------------------------------


@metric(
    "jitter",
    version=1,
    unit="levels",
    better="real",
    definition=f"""Mean absolute second difference over time of each pixel. {_GREY}""",
)
def _jitter(clip: Material) -> float:
    return stability.pixel_jitter(clip.generated)


@metric(
    "silent_jitter",
    version=1,
    unit="levels",
    better="real",
    definition=f"""Mean absolute second difference over time of each pixel, where its three frames
    are silent. {_SILENCE} {_GREY}""",
)
def _silent_jitter(clip: Material) -> Score:
    silence = clip.silence
    value = stability.pixel_jitter(clip.generated, silence.frames)
    if np.isnan(value):
        return Score(None, f"no three silent frames in a row (silence by {silence.source})")
    return Score(value, f"silence by {silence.source}")


@metric(
    "lip_jitter",
    version=1,
    unit="px",
    better="real",
    tools=("landmarks",),
    definition=f"""Mean absolute second difference over time of the opening of the inner lips
    (points 13 and 14). {_FACES}""",
)
def _lip_jitter(clip: Material) -> float:
    return stability.lip_jitter(clip.generated_opening)


# --- expression ---------------------------------------------------------------------------------

_BLINK = (
    "A blink is a stretch of frames in which the mean of MediaPipe's two eyeBlink blendshapes is "
    f"more than {expression.BLINK_EDGE:g} above the clip's median and reaches "
    f"{expression.BLINK_PEAK:g} above it."
)


@metric(
    "blink_rate",
    version=1,
    unit="1/s",
    better="real",
    tools=("landmarks",),
    definition=f"Blinks a second of video. {_BLINK} {_FACES}",
)
def _blink_rate(clip: Material) -> float | Score:
    if np.isfinite(clip.generated_closure).mean() < 0.5:
        return _LOST
    return len(expression.find_blinks(clip.generated_closure)) / clip.seconds


@metric(
    "blink_duration",
    version=1,
    unit="s",
    better="real",
    tools=("landmarks",),
    definition=f"""Mean length of the clip's blinks that neither begin with its first nor end with
    its last frame. {_BLINK} {_FACES}""",
)
def _blink_duration(clip: Material) -> float | Score:
    blinks = expression.find_blinks(clip.generated_closure)
    whole = [stop - start for start, stop in blinks if start > 0 and stop < len(clip)]
    if not whole:
        return Score(None, "no whole blink")
    return float(np.mean(whole)) / VIDEO_FPS


@metric(
    "brow_motion",
    version=1,
    unit="px",
    better="real",
    tools=("landmarks",),
    definition=f"""Standard deviation over time of the eyebrows' height (middle of ten points) above
    the line through the outer eye corners, mean of both brows. {_FACES}""",
)
def _brow_motion(clip: Material) -> float | Score:
    if np.isfinite(clip.generated_closure).mean() < 0.5:
        return _LOST
    return expression.brow_motion(clip.generated_points)
