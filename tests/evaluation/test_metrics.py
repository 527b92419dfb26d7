"""Every registered metric on clips whose values can be worked out by hand."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from stillspeak.errors import ConfigError, VideoError
from stillspeak.evaluation.clip import EvaluationClip, OtherClip
from stillspeak.evaluation.metrics import all_metrics, find_metrics
from stillspeak.evaluation.registry import METRICS, Score, metric
from stillspeak.evaluation.tools import Tools
from stillspeak.face.landmarks import Face
from support.faces import blendshapes, face_points

# Whoever changes what a metric gives raises its version; both are stated here once more.
DEFINITIONS = {
    name: (1, definition)
    for name, definition in {
        "psnr": "77728b2b47f3",
        "psnr_frames": "2e77a34d1d90",
        "mouth_psnr": "8fef7089b860",
        "ssim": "1f705ca1db92",
        "ssim_gaussian": "e4e45f443d59",
        "fdbm": "e336cb17a5e4",
        "cpbd": "32f15f3eaad2",
        "sharpness": "490de00004c4",
        "acd": "1dbb21d86065",
        "acd_ratio": "9aea7777bd50",
        "acd_squared": "c57d4a6b0ec2",
        "acd_squared_ratio": "745d0857be25",
        "acd_cosine": "8f2df0dd8961",
        "acd_cosine_ratio": "8e3aee030317",
        "face_found": "7cfef944253c",
        "lip_correlation": "e5170583736a",
        "lip_amplitude": "50211ad45adc",
        "lip_correlation_lagged": "ba5b9fd99842",
        "lip_lag": "44db231740c2",
        "width_correlation": "0182e02b4962",
        "width_correlation_lagged": "a1e6ee3bdb8a",
        "lip_correlation_mismatched": "cbab6c8a8277",
        "lip_correlation_lagged_mismatched": "8c98b494c493",
        "width_correlation_mismatched": "fcc64bbd86ed",
        "width_correlation_lagged_mismatched": "010605331623",
        "width_amplitude": "b2cf1313605d",
        "jaw_amplitude": "134152f84917",
        "closures_found": "20d3796af55a",
        "closures_missed": "ebaaf4ac09f8",
        "closures_chance": "c3266f0f1b13",
        "closed_opening": "1667cf7d24d2",
        "closed_opening_real": "94c012a73cf6",
        "closed_open_share": "62c3937d340c",
        "silent_opening": "e18cdbd3f9b8",
        "silent_opening_real": "4edcfa5ee047",
        "silent_opening_deviation": "c01635661ba1",
        "silent_opening_deviation_real": "9e832d1824f5",
        "lip_landmark_distance": "5f07e3281a27",
        "silent_lip_stability": "e51afd72eaaa",
        "jitter": "d8d89c43d144",
        "silent_jitter": "531d3479c6bc",
        "lip_jitter": "db94f66f811f",
        "blink_rate": "5ee0b38205d6",
        "blink_duration": "663a80fbe990",
        "brow_motion": "800173ea2afa",
        "wer": "117deaa5238f",
        "wer_real": "c4fb84b6c020",
        "av_offset": "57289fb0d8a6",
        "av_confidence": "9f8184b2cb23",
        "av_confidence_real": "69c29134842b",
        "blink_rate_real": "890967acfaf3",
        "blink_duration_real": "947bd6e97a9a",
        "blink_interval_variation": "69661f0510d5",
        "blink_interval_variation_real": "3cf356edc01e",
        "blink_pause_share": "1c55e6d1cb56",
        "blink_pause_share_real": "1d8e7f01adc3",
        "silent_share": "88b658d93acc",
        "brow_motion_real": "911bf3967683",
        "brow_amplitude": "3849e4baabfa",
        "brow_accent_correlation": "a5c24c99575d",
        "brow_accent_correlation_real": "916277e07c88",
        "brow_accent_correlation_mismatched": "30751157e76b",
        "head_turn": "65fb94e8b965",
        "head_turn_real": "563f1d1af205",
        "head_nod": "106e00a48304",
        "head_nod_real": "9b94858b19d8",
        "head_tilt": "852fd1376fd2",
        "head_tilt_real": "8b0a0a948d8c",
        "head_amplitude": "49d861a66dac",
        "head_speed": "dead551b4ab4",
        "head_speed_real": "e87765601d8f",
        "head_power_quarter_hz": "f6a1c2fda663",
        "head_power_quarter_hz_real": "634871d78220",
        "head_power_half_hz": "db3fc273392c",
        "head_power_half_hz_real": "f764e2dea0ee",
        "head_power_1_hz": "3700d519224e",
        "head_power_1_hz_real": "7ce56aaa8025",
        "head_power_2_hz": "76b3dfe2c647",
        "head_power_2_hz_real": "21a947dfb785",
        "head_power_4_hz": "5ce2ac30d5cb",
        "head_power_4_hz_real": "e9f9efb249c0",
        "head_spectrum_distance": "2b52a0ea00c2",
        "nod_accent_correlation": "1f8baf11445e",
        "nod_accent_correlation_real": "438fcbd2dccd",
        "nod_accent_correlation_mismatched": "dd61fe45d4ad",
        "mood_strength": "254000281b24",
        "mood_strength_real": "4f6e550d671e",
    }.items()
}


class Fake:
    """Finds a face whose mouth is open by a tenth of the grey level; below 10 there is none."""

    version = "fake"

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, image: np.ndarray) -> list[Face]:
        self.seen += 1
        level = float(image[image.shape[0] // 2, image.shape[1] // 2, 0])
        if level < 10:
            return []
        points = face_points(np.array([level / 10]))[0]
        # Into the enlarged picture with its border of 32 lines.
        shown = (points + 32 + 0.5) * 3 - 0.5
        eyes = 0.05 + 0.5 * (level > 150)
        shapes = blendshapes(eyeBlink=eyes, mouthSmile=0.001 + 0.9 * (level > 220))
        return [Face(shown.astype(np.float32), shapes, 0, 0, 0)]

    def close(self) -> None:
        pass


class Levels:
    """Embeds a frame as its grey level and a one."""

    version = "levels"

    def embed(self, crops: list[np.ndarray]) -> np.ndarray:
        return np.array([[float(crop[0, 0, 0]), 1.0] for crop in crops])


class Scorer:
    """An offset of as many frames as the first grey level has tens; five frames are needed."""

    version = "scorer"

    def measure(self, pictures: np.ndarray, audio: np.ndarray) -> SimpleNamespace:
        assert len(audio) == 640 * len(pictures)
        if len(pictures) < 5:
            raise VideoError("fewer than 5 frames")
        return SimpleNamespace(offset=int(pictures[1, 0, 0, 0]) // 10, confidence=2.5)


class Reader:
    """Reads ``bin`` from every bright frame, ``red`` from others."""

    version = "reader"

    def read(self, pictures: np.ndarray) -> str:
        return " ".join("bin" if picture[0, 0, 0] > 50 else "red" for picture in pictures)


@pytest.fixture(autouse=True)
def _error_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts places that differ, for sentences of one length."""

    def rate(truth: str, read: str) -> float:
        pairs = list(zip(truth.split(), read.split(), strict=True))
        return sum(a != b for a, b in pairs) / len(pairs)

    fake = SimpleNamespace(word_error_rate=rate)
    monkeypatch.setitem(sys.modules, "stillspeak.evaluation.measures.lipreading", fake)


def frames(*levels: int) -> np.ndarray:
    return np.stack([np.full((128, 96, 3), level, np.uint8) for level in levels])


def clip(generated: np.ndarray, real: np.ndarray, **more: object) -> EvaluationClip:
    audio = np.zeros(len(real) * 640, np.float32)
    tools = Tools(Fake(), Levels(), Scorer(), Reader())
    return EvaluationClip(generated, real, audio, tools=tools, **more)


def values(material: EvaluationClip) -> dict[str, float | None]:
    return {m.name: m.measure(material).value for m in all_metrics()}


def test_the_real_video_is_the_ceiling() -> None:
    real = frames(40, 60, 50, 40, 90, 70)
    got = values(clip(real, real))
    assert got["psnr"] == got["psnr_frames"] == got["mouth_psnr"] == np.inf
    for name in ("ssim", "ssim_gaussian", "lip_correlation", "lip_amplitude", "face_found"):
        assert got[name] == pytest.approx(1), name
    for name in ("acd_ratio", "acd_squared_ratio", "acd_cosine_ratio"):
        assert got[name] == pytest.approx(1), name
    assert got["lip_landmark_distance"] == 0
    assert got["sharpness"] is None  # frames of one colour have no gradient


def test_the_repeated_still_is_the_floor() -> None:
    real = frames(40, 60, 50, 40, 90, 70)
    got = values(clip(frames(*[40] * 6), real))
    for name in ("lip_correlation", "lip_amplitude", "acd", "acd_cosine", "acd_ratio"):
        assert got[name] == 0, name
    for name in ("jitter", "lip_jitter", "silent_jitter", "silent_lip_stability"):
        assert got[name] == 0, name
    assert got["blink_rate"] == got["brow_motion"] == 0
    assert got["blink_duration"] is None
    assert got["psnr"] == pytest.approx(10 * np.log10(255**2 * 6 / (400 + 100 + 2500 + 900)))


def test_numbers_of_a_small_clip() -> None:
    real, made = frames(40, 60, 50, 40), frames(40, 50, 40, 30)
    got = values(clip(made, real))
    # Openings 4, 5, 4, 3 and 4, 6, 5, 4: deviations in tenths of a pixel.
    a, b = np.array([0, 1, 0, -1]), np.array([-0.75, 1.25, 0.25, -0.75])
    assert got["lip_correlation"] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-4)
    assert got["lip_amplitude"] == pytest.approx(np.sqrt((a @ a) / (b @ b)), abs=1e-4)
    assert got["silent_lip_stability"] == pytest.approx(1, abs=1e-4)
    assert got["lip_jitter"] == pytest.approx(1, abs=1e-4)  # second differences -2 and 0
    assert got["jitter"] == pytest.approx(10)
    assert got["acd"] == pytest.approx((0 + 10 + 0 + 10) / 4)
    assert got["acd_squared"] == pytest.approx((0 + 100 + 0 + 100) / 4)
    assert got["acd_ratio"] == pytest.approx(5 / 7.5)


def mouths(**curves: list[float]) -> OtherClip:
    opening, width = (np.array(curves[name], float) for name in ("opening", "width"))
    return OtherClip(opening, width, np.zeros(len(opening)))


def test_lips_beside_their_mismatched_control() -> None:
    real = frames(40, 60, 50, 40, 70, 30)
    others = [
        mouths(opening=[4, 6, 5, 4, 7, 3, 9, 9], width=[1, 2, 3, 4, 5, 6, 7, 8]),
        mouths(opening=[6, 4, 5, 6, 3, 7], width=[1] * 6),
    ]
    material = clip(real, real, others=lambda: others)
    got = {m.name: m.measure(material) for m in all_metrics()}
    assert got["lip_correlation"].value == pytest.approx(1)
    assert got["lip_correlation_mismatched"] == Score(
        pytest.approx(0, abs=1e-4), "mean over 2 other clips"
    )  # 1 and -1
    assert (got["lip_correlation_lagged"].value, got["lip_lag"].value) == (pytest.approx(1), 0)
    assert got["width_correlation"].value == got["width_correlation_mismatched"].value == 0
    assert got["jaw_amplitude"].value == pytest.approx(1)
    alone = clip(real, real)
    for name in ("lip_correlation", "width_correlation_lagged"):
        (control,) = (m for m in all_metrics() if m.name == f"{name}_mismatched")
        assert control.measure(alone) == Score(None, "there is no other clip to compare with")
    lost = clip(frames(5, 5, 5, 5, 40, 40), real, others=lambda: others)
    (control,) = find_metrics(["lip_correlation_mismatched"])
    assert control.measure(lost) == Score(None, "fewer than half of the frames show a face")


def test_a_correlation_comes_with_its_control() -> None:
    names = {m.name for m in all_metrics()}
    for name in ("lip_correlation", "width_correlation", "lip_correlation_lagged"):
        assert f"{name}_mismatched" in {m.name for m in find_metrics([name])}
    correlations = {
        n for n in names if "_correlation" in n and not n.endswith(("_mismatched", "_real"))
    }
    assert {f"{n}_mismatched" for n in correlations} <= names


def spoken(*levels: int, quiet: int = 0, **more: object) -> EvaluationClip:
    """A clip of a face whose real mouth is open by tenths of these levels; the last are quiet."""
    material = clip(frames(*more.pop("made", levels)), frames(*levels), **more)
    material.audio[: (len(levels) - quiet) * 640] = 0.5
    return material


def test_closures_are_found_or_missed() -> None:
    # Two closures and a pause of ten frames. A level of 10 is one pixel; faces are 82.5 high.
    real = [90] * 6 + [10] + [90] * 12 + [10] * 2 + [90] * 9 + [10] * 10 + [90] * 6
    made = [90] * 5 + [10] + [90] * 40
    material = spoken(*real, made=made)
    got = {m.name: m.measure(material) for m in all_metrics()}
    assert got["closures_found"] == Score(0.5, "2 closures by the real lips alone")
    assert got["closures_missed"].value == 0.5
    assert got["closures_chance"].value == 0
    face = material.face_height
    assert got["closed_opening_real"].value == pytest.approx(1 / face, rel=1e-3)
    assert got["closed_opening"].value == pytest.approx(9 / face, rel=1e-3)
    assert got["closed_open_share"].value == 1
    ceiling = {m.name: m.measure(spoken(*real)) for m in all_metrics()}
    assert (ceiling["closures_found"].value, ceiling["closures_chance"].value) == (1, 0)
    assert ceiling["closed_open_share"].value == 0


def test_with_word_timings_only_their_closures_count() -> None:
    real = [90] * 6 + [10] + [90] * 12 + [10] * 2 + [90] * 9
    words = [(0.0, 0.4, "red"), (0.8, 1.2, "please")]  # frame 20
    found, missed, chance = find_metrics(["closures_found"])
    material = spoken(*real, words=words)
    assert found.measure(material) == Score(1, "1 closures by word timings")
    assert missed.measure(material).value == 0
    # The other closure is one of the other moments now. Stretches of six begin at 0 to 11, of which
    # 10 and 11 are silent altogether, and at 23 and 24; six of them hold frame 6.
    assert chance.measure(material).value == 6 / 12
    other = spoken(*real, words=[(0.0, 1.2, "red")])
    assert found.measure(other) == Score(None, "no closure amid speech (by word timings)")
    never = spoken(*[90, 80] * 9)
    assert found.measure(never) == Score(None, "the real mouth never closes, or hardly moves")


def test_the_mouth_in_silence() -> None:
    material = spoken(40, 60, 50, 30, 30, quiet=2, made=(40, 60, 50, 50, 70))
    got = {m.name: m.measure(material) for m in all_metrics()}
    face = material.face_height
    assert got["silent_opening"] == Score(pytest.approx((6 - 4) / face), "silence by energy")
    assert got["silent_opening_real"].value == pytest.approx((3 - 4) / face)
    assert got["silent_opening_deviation"].value == pytest.approx(1 / face)
    assert got["silent_opening_deviation_real"].value == pytest.approx(0, abs=1e-6)
    (opening, _) = find_metrics(["silent_opening"])
    assert opening.measure(spoken(40, 60, 50)).value is None


def test_blinks_are_in_seconds() -> None:
    levels = [100] * 50
    levels[10:15] = [200] * 5
    levels[30:33] = [200] * 3
    levels[48:] = [200] * 2
    material = clip(frames(*levels), frames(*[100] * 50))
    material.audio[: 20 * 640] = 0.5
    got = values(material)
    assert got["blink_rate"] == pytest.approx(3 / 2)
    assert got["blink_duration"] == pytest.approx(4 / 25)
    assert got["blink_rate_real"] == 0
    assert got["blink_duration_real"] is got["blink_pause_share_real"] is None
    # They begin 20 and 18 frames apart, two of them after the sound.
    assert got["blink_interval_variation"] == pytest.approx(1 / 19)
    assert got["blink_pause_share"] == pytest.approx(2 / 3)
    assert got["silent_share"] == pytest.approx(30 / 50)


def test_heads_are_measured_before_alignment_where_they_were_seen() -> None:
    real = frames(*[40, 60] * 20)
    still = frames(*[40] * 40)
    turning = np.zeros((40, 3), np.float32)
    turning[:, 0] = np.sin(np.arange(40) / 3)
    of_a_model, ceiling, others = (clip(made, real) for made in (still, real, still))
    of_a_model.track_heads(None, turning)
    ceiling.track_heads(None, turning)
    others.track_heads(2 * turning, turning)
    assert values(of_a_model)["head_amplitude"] == 0  # nothing turns in the frames themselves
    assert values(of_a_model)["head_turn_real"] > 0.5
    assert values(ceiling)["head_amplitude"] == pytest.approx(1)
    assert values(ceiling)["head_spectrum_distance"] == pytest.approx(0)
    got = values(others)
    assert got["head_amplitude"] == pytest.approx(2)
    assert got["head_turn"] == pytest.approx(2 * got["head_turn_real"])
    assert got["head_speed"] == pytest.approx(2 * got["head_speed_real"])
    assert (got["head_nod"], got["nod_accent_correlation"]) == (0, 0)


def test_the_mood_that_is_judged_is_in_the_note() -> None:
    material = clip(frames(40, 230, 230, 230), frames(40, 50, 40, 50))
    got = {m.name: m.measure(material) for m in find_metrics(["mood_strength"])}
    assert got["mood_strength"].value > 2
    assert got["mood_strength"].note == "judged happy"
    assert got["mood_strength_real"] == Score(0, "judged neutral")
    lost = clip(frames(40, 5, 5, 5), frames(5, 40, 40, 40))
    assert {m.measure(lost).value for m in find_metrics(["mood_strength"])} == {None}


def test_movement_with_the_accents_beside_those_of_others() -> None:
    real = frames(*[40] * 60)
    material = clip(real, real, others=lambda: [OtherClip(*[np.zeros(60)] * 2, np.zeros(50))])
    voice = np.sign(np.sin(2 * np.pi * 150 * np.arange(5 * 640) / 16000))
    for start in (10, 35):
        material.audio[start * 640 : (start + 5) * 640] = 0.5 * voice
    nods = np.zeros((60, 3))
    nods[:, 1] = material.accents
    material.track_heads(nods, None)
    got = {m.name: m.measure(material) for m in all_metrics()}
    assert got["nod_accent_correlation"].value > 0.9
    assert got["nod_accent_correlation_real"].value == 0
    assert got["nod_accent_correlation_mismatched"] == Score(0, "mean over 1 other clip")
    assert got["brow_accent_correlation"].value == 0


def test_frames_without_a_face() -> None:
    made = frames(5, 5, 5, 40, 50)
    material = clip(made, frames(40, 50, 60, 40, 50))
    got = {m.name: m.measure(material) for m in all_metrics()}
    assert got["face_found"].value == pytest.approx(2 / 5)
    for name in ("lip_correlation", "lip_amplitude", "lip_landmark_distance", "blink_rate"):
        assert got[name] == Score(None, "fewer than half of the frames show a face"), name


def test_silence_is_by_word_timings_or_by_energy_and_says_so() -> None:
    real = frames(40, 50, 40, 50, 90)
    (stability,) = find_metrics(["silent_lip_stability"])
    spoken = clip(real, real, words=[(0.0, 0.12, "bin"), (0.12, 0.2, "sil")])
    assert spoken.silence.frames.tolist() == [False, False, False, True, True]
    assert stability.measure(spoken) == Score(pytest.approx(4, abs=1e-4), "silence by word timings")
    assert stability.measure(clip(real, real)).note == "silence by energy"
    none = clip(real, real, words=[(0.0, 1.0, "bin")])
    assert stability.measure(none).value is None


def test_words_are_those_of_the_timings_or_of_the_transcript() -> None:
    words = [(0.0, 0.04, "sil"), (0.04, 0.08, "Bin"), (0.08, 0.12, "red"), (0.12, 0.2, "sp")]
    made, real = frames(90, 40), frames(90, 90)
    wer, wer_real = find_metrics(["wer"])
    assert (wer.name, wer_real.name) == ("wer", "wer_real")
    material = clip(made, real, words=words, text="set white")
    assert material.sentence == "bin red"
    assert wer.measure(material) == Score(0, "read: bin red")
    assert wer_real.measure(material) == Score(0.5, "read: bin bin")
    assert wer.measure(clip(made, real, text=" Bin  BIN ")) == Score(0.5, "read: bin red")
    for nothing in (clip(made, real), clip(made, real, words=[(0.0, 1.0, "sil")])):
        assert wer.measure(nothing).value is wer_real.measure(nothing).value is None
        assert "neither word timings nor a transcript" in wer.measure(nothing).note


def test_sound_and_pictures() -> None:
    made, real = frames(0, 30, 0, 0, 0), frames(0, 20, 0, 0, 0)
    got = values(clip(made, real))
    assert (got["av_offset"], got["av_confidence"], got["av_confidence_real"]) == (3, 2.5, 2.5)
    assert clip(made, real).real_sync.offset == 2
    for found in find_metrics(["av_offset", "av_confidence"]):
        assert found.measure(clip(made[:4], real[:4])) == Score(None, "fewer than 5 frames")


def test_a_face_is_looked_for_once_in_equal_frames() -> None:
    real = frames(40, 60, 40, 60)
    material = clip(frames(40, 40, 40, 40), real)
    values(material)
    assert material.tools.landmarks.seen == 2


def test_other_lengths_are_no_material() -> None:
    with pytest.raises(VideoError, match=r"3 generated frames of 96 x 128 pixels and 2 real"):
        clip(frames(1, 2, 3), frames(1, 2))


# --- the registry -------------------------------------------------------------------------------


def test_names_of_the_issue_are_there() -> None:
    names = {m.name for m in all_metrics()}
    assert names >= {
        *("psnr", "psnr_frames", "ssim", "ssim_gaussian", "fdbm", "cpbd", "acd", "acd_squared"),
        *("acd_cosine", "acd_ratio", "blink_rate", "blink_duration", "brow_motion", "jitter"),
        *("lip_landmark_distance", "lip_correlation", "lip_amplitude", "silent_lip_stability"),
        *("lip_jitter", "sharpness", "mouth_psnr"),
    }


def test_a_changed_definition_has_a_new_version() -> None:
    assert {m.name: (m.version, m.definition_hash) for m in all_metrics()} == DEFINITIONS


def test_metrics_are_found_by_name_in_their_own_order() -> None:
    assert [m.name for m in find_metrics(["ssim", "psnr"])] == ["psnr", "ssim"]
    with pytest.raises(ConfigError, match=r"no metric psnrr; there are psnr, "):
        find_metrics(["psnr", "psnrr"])
    with pytest.raises(ConfigError, match="no metric was asked for"):
        find_metrics([])


def test_registering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "x", None)
    del METRICS["x"]  # and again afterwards
    text = "Some\n   thing."
    metric("x", lambda material: float("nan"), text)
    (found,) = find_metrics(["x"])
    assert found.definition == "Some thing."
    assert found.measure(None) == Score(None, "not defined for this clip")
    with pytest.raises(ValueError, match="two metrics"):
        metric("x", lambda material: 1.0, text, version=2)
    first = found.definition_hash
    del METRICS["x"]
    metric("x", lambda material: 1.0, text, version=2)
    assert find_metrics(["x"])[0].definition_hash != first
