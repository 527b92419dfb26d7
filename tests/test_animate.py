"""The main path: from a picture and speech to frames in step with the sound."""

import gc
import io
import weakref
from copy import deepcopy
from importlib import import_module

import av
import numpy as np
import PIL.Image
import pytest
import torch
from skimage.data import astronaut

import stillspeak
from stillspeak.animate import Animation, Animator
from stillspeak.errors import (
    AudioError,
    ConfigError,
    FaceTooSmallError,
    NoFaceError,
    OutputExistsError,
    WeightsError,
)
from stillspeak.face.align import crop_face, face_transform
from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.media.video import iter_frames, probe_video
from stillspeak.rendering.paste import FacePaster
from support.animate import (
    RATE,
    lively,
    portrait,
    portrait_face,
    save_lively,
    shared_detector,
    speech,
    use_shared_detector,
    write_picture,
    write_wav,
)

module = import_module("stillspeak.animate")
synthesis = import_module("stillspeak.synthesis")


@pytest.fixture(autouse=True)
def _detector(monkeypatch):
    use_shared_detector(monkeypatch)


def animation(seconds: float = 0.4, **options) -> Animation:
    """A lively animation of the portrait."""
    return Animator(lively()).animate(portrait(), (speech(seconds), RATE), **options)


# --- frames and sound ---------------------------------------------------------------------------


def test_frames_come_as_an_iterator_and_as_an_array():
    made = animation(0.42)
    assert (made.fps, made.sample_rate, made.height, made.width) == (25, RATE, 256, 256)
    assert len(made) == 10  # the last 20 ms are no whole frame
    array = made.frames
    assert array.shape == (10, 256, 256, 3)
    assert array.dtype == np.uint8
    one_by_one = list(made)
    assert len(one_by_one) == 10
    assert np.array_equal(np.stack(one_by_one), array)
    assert made.audio.dtype == np.float32
    assert np.array_equal(made.audio, speech(0.42))


def test_the_picture_outside_the_face_is_the_photo():
    made = animation(0.2, head_motion=0.0)
    # The box of the crop, found independently of the renderer's size for it.
    paster = FacePaster(portrait(), face_transform(portrait_face().points), 128, 96)
    x0, y0, x1, y1 = paster.box
    outside = np.ones((256, 256), bool)
    outside[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = False
    frames = made.frames
    assert outside.mean() > 0.2
    assert (frames[:, outside] == portrait()[outside]).all()
    assert (frames[:, ~outside] != portrait()[~outside]).mean() > 0.25


def test_a_seed_decides_the_frames():
    first, same, other = animation(seed=3), animation(seed=3), animation(seed=4)
    assert np.array_equal(first.frames, same.frames)
    assert not np.array_equal(first.frames, other.frames)


def test_the_global_random_numbers_play_no_part_and_are_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = animation(0.2).frames
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert np.array_equal(animation(0.2).frames, first)


def test_the_sound_decides_the_frames():
    with Animator(lively()) as animator:
        one = animator.animate(portrait(), (speech(0.4), RATE)).frames
        other = animator.animate(portrait(), (speech(0.4, seed=1), RATE)).frames
    assert np.abs(one.astype(int) - other).max() > 3


@pytest.mark.parametrize("decoder", ["layers", "unet"])
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_chunks_do_not_change_the_frames(monkeypatch, chunk, decoder):
    made = Animator(lively(decoder)).animate(portrait(), (speech(0.8), RATE))
    monkeypatch.setattr(synthesis, "CHUNK", 16)
    usual = made.frames
    monkeypatch.setattr(synthesis, "CHUNK", chunk)
    # Sums in another order may round a value the other way, and no more than that.
    assert np.abs(made.frames.astype(int) - usual).max() <= 1
    assert np.abs(np.diff(usual.astype(int), axis=0)).max() > 10


def test_frames_are_made_when_asked_for_and_not_kept(monkeypatch):
    monkeypatch.setattr(synthesis, "CHUNK", 2)
    made = animation(2.0)
    steps = []
    engine = made.synthesizer.engine
    step = engine.step
    monkeypatch.setattr(engine, "step", lambda *args: (steps.append(1), step(*args))[1])
    frames = iter(made)
    first = weakref.ref(next(frames))
    assert len(steps) == 1
    next(frames)
    gc.collect()
    assert first() is None
    assert len(steps) == 1
    next(frames)
    assert len(steps) == 2


def test_gradients_and_modes_are_the_callers_own_between_frames():
    for _ in animation(0.2):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_the_crop_and_its_size():
    assert animation(0.2, crop=True).frames.shape == (5, 128, 96, 3)
    large = animation(0.2, crop=True, size=512)
    assert (large.height, large.width) == (512, 384)
    assert large.frames.shape == (5, 512, 384, 3)


def test_the_size_of_the_whole_picture():
    made = animation(0.2, size=300)
    assert made.frames.shape == (5, 300, 300, 3)
    wide = np.pad(portrait(), ((0, 0), (0, 65), (0, 0)))
    made = Animator(lively()).animate(wide, (speech(0.2), RATE), size=128)
    assert (made.height, made.width) == (128, 160)


def test_one_of_several_faces():
    small = portrait()[::2, ::2]
    both = np.zeros((256, 384, 3), np.uint8)
    both[:, :256] = portrait()
    both[64:192, 256:] = small
    with Animator(lively()) as animator:
        largest, second = (
            animator.animate(both, (speech(0.2), RATE), face=face).frames for face in (None, 1)
        )
        again = animator.animate(both, (speech(0.2), RATE), face=0).frames
        with pytest.raises(NoFaceError, match=r"no face number 2, 2 faces"):
            animator.animate(both, (speech(0.2), RATE), face=2)
    assert np.array_equal(largest, again)
    left, right = np.s_[:, :, :256], np.s_[:, :, 256:]
    assert not np.array_equal(largest[left][0], both[:, :256])
    assert (largest[right] == both[:, 256:]).all()
    assert not np.array_equal(second[right][0], both[:, 256:])
    assert (second[:, :, :200] == both[:, :200]).all()


# --- sources ------------------------------------------------------------------------------------


def test_pictures_and_sounds_of_every_kind(tmp_path):
    photo = write_picture(tmp_path / "photo.png", portrait())
    sound = write_wav(tmp_path / "speech.wav", speech(0.2))
    stereo = np.stack([speech(0.2)] * 2, axis=1)
    with Animator(lively()) as animator:
        wanted = animator.animate(photo, sound).frames
        for image in (str(photo), photo.read_bytes(), PIL.Image.open(photo), portrait()):
            assert np.array_equal(animator.animate(image, sound).frames, wanted)
        for audio in (str(sound), sound.read_bytes()):
            assert np.array_equal(animator.animate(photo, audio).frames, wanted)
        made = animator.animate(photo, (stereo, RATE))
        assert np.array_equal(made.audio, speech(0.2))
        made = animator.animate(photo, (np.repeat(speech(0.2), 3), 3 * RATE))
        assert len(made) == 5
        assert len(made.audio) == pytest.approx(0.2 * RATE, abs=2)


def test_errors_call_the_inputs_by_the_names_given():
    blank = io.BytesIO()
    PIL.Image.new("RGB", (64, 64)).save(blank, "PNG")
    with Animator(lively()) as animator:
        with pytest.raises(NoFaceError, match=r"^upload 7: no face"):
            animator.animate(blank.getvalue(), (speech(1), RATE), image_name="upload 7")
        with pytest.raises(AudioError, match=r"^upload 8: the file is empty"):
            animator.animate(portrait(), b"", audio_name="upload 8")
        with pytest.raises(AudioError, match=r"^upload 8: 50 ms of sound are too short"):
            animator.animate(portrait(), (speech(0.05), RATE), audio_name="upload 8")


@pytest.mark.parametrize("seconds", [0.04, 0.1999])
def test_short_sound_is_refused(seconds):
    with pytest.raises(AudioError, match=r"ms of sound are too short .* at least 200 ms"):
        animation(seconds)


@pytest.mark.parametrize("level", [0.0, 1e-4, -1e-4])
def test_silence_is_refused(level):
    with pytest.raises(AudioError, match="only silence; give a recording of speech"):
        Animator(lively()).animate(portrait(), (np.full(RATE, level), RATE))


def test_a_whisper_is_not_silence():
    made = Animator(lively()).animate(portrait(), (0.01 * speech(0.2), RATE))
    assert len(made) == 5


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(ConfigError, match=f"seed: must be .*, not {seed}"):
        animation(seed=seed)


def test_the_largest_seed_works():
    assert animation(0.2, seed=2**63 - 1).frames.shape[0] == 5


def test_a_size_that_makes_the_face_too_small_is_named():
    with pytest.raises(FaceTooSmallError, match=r"^<ndarray> at size 64: the face is too small"):
        animation(size=64)


# --- loading ------------------------------------------------------------------------------------


def test_one_animator_loads_its_model_and_detector_once(monkeypatch, tmp_path):
    loaded = []
    load = module.load_model
    monkeypatch.setattr(module, "load_model", lambda model: (loaded.append(model), load(model))[1])
    detectors = []
    monkeypatch.setattr(
        module, "MediaPipeDetector", lambda **_: (detectors.append(1), shared_detector())[1]
    )
    path = save_lively(tmp_path / "tiny.safetensors")
    with Animator(path) as animator:
        assert not detectors
        for seed in range(2):
            animator.animate(portrait(), (speech(0.2), RATE), seed=seed)
    assert loaded == [path]
    assert len(detectors) == 1


def test_bad_sound_is_refused_before_the_detector_is_loaded(monkeypatch):
    monkeypatch.setattr(module, "MediaPipeDetector", lambda **_: pytest.fail("loaded"))
    with pytest.raises(AudioError):
        animation(0.01)


def test_closing_releases_the_detector_once():
    before = shared_detector().closed
    with Animator(lively()) as animator:
        made = animator.animate(portrait(), (speech(0.2), RATE))
        assert shared_detector().closed == before
    assert shared_detector().closed == before + 1
    animator.close()
    assert shared_detector().closed == before + 1
    assert len(made.frames) == 5  # which needs it no more


def test_a_detector_of_the_callers_own_is_used():
    class Nobody:
        version = "none"

        def detect(self, image):
            return []

        def close(self):
            pass

    with Animator(lively(), detector=Nobody()) as animator, pytest.raises(NoFaceError):
        animator.animate(portrait(), (speech(0.2), RATE))


def test_a_generator_in_training_mode_is_put_in_order():
    wanted = Animator(lively()).animate(portrait(), (speech(0.2), RATE)).frames
    generator = deepcopy(lively()).train()
    made = Animator(generator).animate(portrait(), (speech(0.2), RATE)).frames
    assert np.array_equal(made, wanted)
    assert not generator.training


def test_unknown_models_and_devices_are_refused():
    with pytest.raises(WeightsError, match=r"no such weights file, and no released .*temporal"):
        Animator("nothing")
    with pytest.raises(ConfigError, match="device 'tpu' is not known"):
        Animator(lively(), device="tpu")


def test_the_default_model_speaks():
    made = stillspeak.animate(portrait(), (speech(0.4), RATE), crop=True)
    frames = made.frames
    assert frames.shape == (10, 128, 96, 3)
    # Whatever its training, it shows this face, not another and not noise.
    assert np.abs(frames.astype(float) - frames[0]).mean() < 20
    crop = crop_face(portrait(), face_transform(portrait_face().points), 128, 96)
    assert np.corrcoef(frames[0].ravel(), crop.ravel())[0, 1] > 0.9


# --- files --------------------------------------------------------------------------------------


def test_the_file_is_h264_and_aac_with_picture_and_sound_of_one_length(tmp_path):
    made = animation(1.23)
    path = tmp_path / "out.mp4"
    assert made.save(path) == 30
    info = probe_video(path)
    assert (info.width, info.height, info.fps, info.has_audio) == (256, 256, 25, True)
    with av.open(str(path)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        assert picture.frames == 30
        lengths = [float(stream.duration * stream.time_base) for stream in (picture, sound)]
        assert lengths[0] == pytest.approx(1.2)
        assert abs(lengths[0] - lengths[1]) <= 1 / 25
        assert "ynthetic" in container.metadata["comment"]
    shown = np.stack(list(iter_frames(path)))
    assert np.abs(shown.astype(int) - made.frames).mean() < 4


def test_the_sound_of_the_file_is_the_one_that_was_given(tmp_path):
    stereo = np.stack([speech(1.0), np.zeros(RATE, np.float32)], axis=1)
    made = Animator(lively()).animate(portrait(), (stereo, 44_100))
    assert made.audio.ndim == 1 and made.sample_rate == RATE
    for name in ("out.mp4", "frames"):
        made.save(tmp_path / name)
        file = tmp_path / name / "audio.wav" if name == "frames" else tmp_path / name
        with av.open(str(file)) as container:
            sound = container.streams.audio[0]
            assert (sound.rate, sound.channels) == (44_100, 2)
            left, right = np.concatenate(
                [f.to_ndarray().reshape(-1, 2).T if name == "frames" else f.to_ndarray()
                 for f in container.decode(audio=0)], axis=1
            )[:, :5000]  # fmt: skip
        assert np.corrcoef(left, stereo[:5000, 0])[0, 1] > 0.98
        assert np.abs(right.astype(float)).max() < 0.02 * np.abs(left.astype(float)).max()


def test_saving_respects_what_is_there(tmp_path):
    path = tmp_path / "out.gif"
    made = animation(0.2)
    assert made.save(path) == 5
    before = path.read_bytes()
    with pytest.raises(OutputExistsError):
        made.save(path)
    assert path.read_bytes() == before
    Animator(lively()).animate(portrait(), (speech(0.2), RATE), seed=1).save(path, overwrite=True)
    assert path.read_bytes() != before


@pytest.mark.e2e
def test_the_head_moves_when_asked_and_the_rest_of_the_picture_stays() -> None:
    time = np.arange(16_000) / 16_000
    sound = ((0.3 * np.sin(2 * np.pi * 180 * time)).astype(np.float32), 16_000)
    still = stillspeak.animate(astronaut(), sound).frames
    moved = stillspeak.animate(astronaut(), sound, head_motion=2.0).frames
    changed = (still != moved).any(axis=(0, 3))
    assert changed[60:150, 180:270].mean() > 0.9  # the face
    assert not changed[300:].any() and not changed[:, 400:].any()
    again = stillspeak.animate(astronaut(), sound, head_motion=2.0).frames
    assert np.array_equal(moved, again)


@pytest.mark.e2e
def test_eyes_close_when_asked_and_stay_open_when_not() -> None:
    time = np.arange(3 * 16_000) / 16_000
    sound = ((0.3 * np.sin(2 * np.pi * 180 * time)).astype(np.float32), 16_000)
    calm = stillspeak.animate(astronaut(), sound, blink=0.0, expression=0.0).frames.astype(int)
    made = stillspeak.animate(astronaut(), sound, blink=3.0, expression=0.0).frames.astype(int)
    changed = np.abs(made - calm).max(axis=-1)
    frames = np.flatnonzero(changed.max(axis=(1, 2)) > 60)
    assert len(frames)  # at least one blink in three seconds at three times the rate
    assert len(frames) < len(made) / 2
    rows, columns = np.nonzero((changed > 8).any(axis=0))
    with MediaPipeDetector() as detector:
        points = detector.detect(astronaut())[0].points
    nose = points[1]
    assert rows.max() < nose[1]  # nothing below the eyes
    assert points[:, 0].min() < columns.min() and columns.max() < points[:, 0].max()
