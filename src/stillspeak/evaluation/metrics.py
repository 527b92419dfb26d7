"""The metrics, registered. Definitions are stated here and nowhere else; see ``registry``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stillspeak.constants import VIDEO_FPS
from stillspeak.errors import VideoError
from stillspeak.evaluation import cpbd as _cpbd
from stillspeak.evaluation import expression, identity, image_quality, lips, stability
from stillspeak.evaluation.material import Material
from stillspeak.evaluation.registry import Score, metric

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


@metric(
    "lip_correlation",
    version=1,
    unit="1",
    better="higher",
    tools=("landmarks",),
    definition=f"""Pearson's r of the generated and the real opening of the inner lips (points 13
    and 14) over the frames where both are found; 0 if one does not move. {_FACES}""",
)
def _lip_correlation(clip: Material) -> float | Score:
    return _comparable(
        lambda: lips.lip_agreement(clip.generated_opening, clip.real_opening).correlation
    )


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
    from stillspeak.evaluation.lipreading import word_error_rate  # brings torch along

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
