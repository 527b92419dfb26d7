"""The metrics of what a face does besides speaking, registered by :func:`register`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from stillspeak.constants import VIDEO_FPS
from stillspeak.evaluation.clip import Curve, EvaluationClip, ObservedFrames
from stillspeak.evaluation.measures import expression, head, lips
from stillspeak.evaluation.measures.accents import ACCENT_DEFINITION
from stillspeak.evaluation.measures.mood import JUDGED, MOOD_DEFINITION, judge_mood
from stillspeak.evaluation.registry import LOST, Score, metric, of_faces

Side = Callable[[EvaluationClip, ObservedFrames], float | Score]
"""A value of one side of a clip."""


def register() -> None:
    """Register them, after the others."""
    _blinks()
    _brows()
    _heads()
    _of_both(
        "mood_strength",
        _mood,
        f"How clearly the face shows the mood that is judged from it. {MOOD_DEFINITION}",
    )


def _of_both(name: str, compute: Side, definition: str, add: Any = of_faces, **about: Any) -> None:
    """A metric of the generated frames, and beside it the same of the real ones."""
    control, beside = f"{name}_real", about.pop("beside", ())
    add(
        name,
        lambda clip: compute(clip, clip.generated),
        definition,
        beside=(control, *beside),
        **about,
    )
    add(
        control,
        lambda clip: compute(clip, clip.real),
        f"{name} of the real frames. {definition}",
        **about,
    )


def _seen(compute: Side) -> Side:
    """Only where half of the frames or more show a face."""
    return lambda clip, side: (
        LOST if np.isfinite(side.eye_closure).mean() < 0.5 else compute(clip, side)
    )


def _mood(clip: EvaluationClip, side: ObservedFrames) -> Score:
    still, faces = clip.real.faces[0], [face for face in side.faces if face is not None]
    if still is None or 2 * len(faces) < len(side.faces):
        return LOST
    judged = judge_mood([face.blendshapes for face in faces], still.blendshapes)
    return Score(judged.strength, f"{JUDGED}{judged.mood}")


def _blinks() -> None:
    blink = expression.BLINK_DEFINITION
    _of_both(
        "blink_rate",
        _seen(lambda clip, side: len(expression.find_blinks(side.eye_closure)) / clip.seconds),
        f"Blinks a second of video. {blink}",
        unit="1/s",
    )
    _of_both(
        "blink_duration",
        _blink_duration,
        f"""Mean length of the clip's blinks that neither begin with its first nor end with its last
        frame. {blink}""",
        unit="s",
    )
    _of_both(
        "blink_interval_variation",
        _interval_variation,
        f"""Standard deviation over mean of the times between the beginnings of blinks, in clips of
        three and more. {blink}""",
    )
    _of_both(
        "blink_pause_share",
        _pause_share,
        f"""Share of the clip's blinks whose first frame is silent: by chance it would be
        silent_share. {blink} {lips.SILENCE_DEFINITION}""",
        beside=("silent_share",),
    )
    metric(
        "silent_share",
        lambda clip: Score(float(clip.silence.frames.mean()), f"silence by {clip.silence.source}"),
        f"Share of the clip's frames that are silent. {lips.SILENCE_DEFINITION}",
    )


def _blink_duration(clip: EvaluationClip, side: ObservedFrames) -> float | Score:
    frames = expression.blink_duration(side.eye_closure)
    return Score(None, "no whole blink") if np.isnan(frames) else frames / VIDEO_FPS


def _interval_variation(clip: EvaluationClip, side: ObservedFrames) -> Score:
    value = expression.interval_variation(side.eye_closure)
    return Score(None, "fewer than three blinks") if np.isnan(value) else Score(value)


def _pause_share(clip: EvaluationClip, side: ObservedFrames) -> Score:
    begins = [start for start, _ in expression.find_blinks(side.eye_closure)]
    if not begins:
        return Score(None, "no blink")
    return Score(float(clip.silence.frames[begins].mean()), f"silence by {clip.silence.source}")


def _brows() -> None:
    _of_both(
        "brow_motion",
        _seen(lambda clip, side: expression.brow_motion(side.points)),
        """Standard deviation over time of the eyebrows' height (middle of ten points) above the
        line through the outer eye corners, mean of both brows.""",
        unit="px",
    )
    of_faces(
        "brow_amplitude",
        lambda clip: lips.lip_agreement(clip.generated.brow, clip.real.brow).amplitude,
        """Standard deviation over time of the generated height of the brows (see brow_motion), mean
        of both, over that of the real one, frames where both are found; the real video has 1.""",
    )
    _with_accents("brow", lambda side: side.brow, "the brows' height (see brow_motion)", of_faces)


def _heads() -> None:
    add = _of_heads
    for axis, name in enumerate(("turn", "nod", "tilt")):
        _of_both(
            f"head_{name}",
            partial(_deviation, axis),
            f"Standard deviation over time of the head's {name}. {head.STEADY_DEFINITION}",
            add,
            unit="degrees",
        )
    add(
        "head_amplitude",
        lambda clip: head.amplitude(clip.generated.head, clip.real.head),
        f"""How far the generated head moves over how far the real one does: the roots of the
        summed variances over time of turn, nod and tilt; the real video has 1.
        {head.STEADY_DEFINITION}""",
        beside=("head_turn", "head_nod", "head_tilt"),
    )
    _of_both(
        "head_speed",
        lambda clip, side: head.speed(side.head),
        f"""Mean over time of the root of the sum of the squared speeds of turn, nod and tilt.
        {head.STEADY_DEFINITION}""",
        add,
        unit="degrees/s",
    )
    shares = """power of turn, nod and tilt together (Hann window, mean removed) in the octaves
        around 0.25, 0.5, 1, 2 and 4 Hz, as far as one holds a frequency with whole periods in
        the clip"""
    for place, (name, middle) in enumerate(head.BANDS.items()):
        _of_both(
            f"head_power_{name}",
            partial(_octave_share, place),
            f"The share that the octave around {middle:g} Hz has of the {shares}.",
            add,
        )
    add(
        "head_spectrum_distance",
        lambda clip: head.spectrum_distance(clip.generated.head, clip.real.head),
        f"""Half the sum over octaves of the absolute differences of the generated and the real
        share of the {shares}: 0 where all are alike, 1 where heads have no octave in common.""",
        better="lower",
        beside=tuple(f"head_power_{name}" for name in head.BANDS),
    )
    _with_accents("nod", lambda side: side.head[:, 1], "the head's nod, chin down,", add)


def _deviation(axis: int, clip: EvaluationClip, side: ObservedFrames) -> float:
    return float(head.deviations(side.head)[axis])


def _octave_share(octave: int, clip: EvaluationClip, side: ObservedFrames) -> Score:
    share = float(head.octave_shares(side.head)[octave])
    return Score(None, "too short, or the head keeps still") if np.isnan(share) else Score(share)


def _of_heads(name: str, compute: Any, definition: str, **about: Any) -> None:
    """A metric of the head's pose."""
    text = f"{definition} {head.HEAD_DEFINITION}"
    metric(name, compute, text, tools=("landmarks",), **about)


def _with_accents(
    name: str, curve: Callable[[ObservedFrames], Curve], words: str, add: Any
) -> None:
    """How far a movement goes with the voice's accents, beside the real one and beside accents of
    other clips.
    """
    name = f"{name}_accent_correlation"
    control = f"{name}_mismatched"
    _of_both(
        name,
        lambda clip, side: head.with_accents(curve(side), clip.accents),
        f"""Pearson's r over time of {words} and the voice's accents: 0 if one does not change.
        {head.MOVED_DEFINITION} {ACCENT_DEFINITION}""",
        add,
        better="real",
        beside=(control,),
    )

    def mismatched(clip: EvaluationClip) -> Score:
        if not clip.others:
            return Score(None, "there is no other clip to compare with")
        values = [head.with_accents(curve(clip.generated), o.accents) for o in clip.others]
        count = f"mean over {len(values)} other {'clip' if len(values) == 1 else 'clips'}"
        return Score(float(np.mean(values)), count)

    add(
        control,
        mismatched,
        f"""{name} with the accents of up to eight other clips of the test set instead of the clip's
        own (those of lip_correlation_mismatched), mean over them.""",
        others=True,
    )
