"""Moods judged from blendshapes: made ones, and real smiles where there are any."""

from pathlib import Path

import numpy as np
import pytest

from stillspeak.evaluation.measures.mood import CLEAR, SIGNS, judge_mood
from stillspeak.media.image import load_image
from stillspeak.motion.moods import MOODS
from support.animate import shared_detector
from support.faces import blendshapes

PORTRAITS = Path(__file__).resolve().parents[3] / "shared" / "portraits"

REST = blendshapes(browDown=0.05, browInnerUp=0.02, eyeSquint=0.3, mouthSmile=0.002)


def test_every_mood_but_neutral_has_its_signs() -> None:
    assert ("neutral", *SIGNS) == MOODS


@pytest.mark.parametrize("mood", SIGNS)
def test_each_mood_by_its_own_signs(mood: str) -> None:
    shown = dict.fromkeys((n for n, weight in SIGNS[mood].items() if weight >= 0.5), 0.5)
    judged = judge_mood([blendshapes(**shown)], blendshapes())
    assert judged.mood == mood
    assert judged.strength == judged.strengths[mood] >= CLEAR


def test_the_photo_itself_and_what_comes_and_goes_are_neutral() -> None:
    assert judge_mood([REST], REST)[:2] == ("neutral", 0)
    # A grin in two frames of five, and blinks, are no mood.
    speaking = [blendshapes(mouthSmile=0.9 * (t > 2), eyeBlink=t == 0) for t in range(5)]
    assert judge_mood(speaking, blendshapes()).mood == "neutral"
    # A face that was photographed smiling and stays so shows no more than its photo.
    smiling = blendshapes(mouthSmile=0.8)
    assert judge_mood([smiling], smiling).mood == "neutral"


@pytest.mark.skipif(not PORTRAITS.is_dir(), reason="needs the pairs of ../shared/portraits")
def test_real_smiles_are_seen() -> None:
    seen = []
    for smiling in sorted(PORTRAITS.glob("*_smiling.jpg"))[:12]:
        pair = [load_image(smiling.with_name(smiling.name.replace("smiling", "neutral"))), None]
        pair[1] = load_image(smiling)
        faces = [shared_detector().detect(np.ascontiguousarray(one[::2, ::2])) for one in pair]
        if all(faces):
            (still,), (shown,) = faces
            seen.append(judge_mood([shown.blendshapes], still.blendshapes).mood == "happy")
    assert len(seen) >= 10 and np.mean(seen) >= 0.8
