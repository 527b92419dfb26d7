"""The mark in the pixels: it is read back, survives, is not seen, and is not found elsewhere."""

import numpy as np
import pytest

from stillspeak.media.marks import watermark
from stillspeak.media.marks.marking import Marking, Marks
from stillspeak.media.marks.watermark import SMALLEST, Watermarker, read_watermark, symbol_bits
from support.faces import face_pictures
from support.marks import encoded, speaking, speaking_photo

IDENTIFIER = 0xC0FFEE42
PLACES = [24593, 6505, 28462, 5656]
SIGNS = [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0]
PAYLOAD = "c0ffee4242ae"


def marked(frames, identifier=IDENTIFIER):
    marker = Watermarker(identifier)
    return [marker.mark(frame) for frame in frames]


@pytest.fixture(scope="module")
def shown():
    return marked(speaking())


@pytest.mark.parametrize("identifier", [0, 1, 0x12345678, 2**32 - 1])
def test_every_identifier_is_read_back_from_one_second(identifier):
    reading = read_watermark(marked(speaking()[:3], identifier))
    assert (reading.present, reading.identifier) == (True, identifier)


@pytest.mark.parametrize("identifier", [-1, 2**32])
def test_identifiers_have_32_bits(identifier):
    with pytest.raises(ValueError, match="32 bits"):
        Watermarker(identifier)


@pytest.fixture(scope="module")
def written():
    """A marked photo as it is written, at crf 18."""
    return encoded(marked(speaking_photo()), 18)


@pytest.mark.parametrize(("crf", "scale"), [(18, 1.0), (23, 1.0), (28, 1.0), (23, 0.5), (23, 0.75)])
def test_it_survives_encoding_and_another_size(written, crf, scale):
    again = encoded(written, crf, scale)
    assert symbol_bits(again) == IDENTIFIER
    reading = read_watermark(again)
    assert (reading.present, reading.identifier) == (True, IDENTIFIER)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_a_small_smooth_picture_survives_crf_23(shown, scale):
    again = encoded(encoded(shown, 18), 23, scale)
    assert symbol_bits(again) == IDENTIFIER
    assert read_watermark(again).identifier == IDENTIFIER


def test_mirrored_and_between_bars_it_is_found_too(shown):
    assert read_watermark([frame[:, ::-1] for frame in shown[:5]]).identifier == IDENTIFIER
    bars = [np.pad(frame, ((40, 40), (0, 0), (0, 0))) for frame in shown[:5]]
    assert read_watermark(bars).identifier == IDENTIFIER


def test_a_small_crop_survives_crf_23():
    frames = [frame[60:188, 84:180] for frame in speaking()]  # 128 x 96, the face alone
    assert read_watermark(encoded(marked(frames), 23)).identifier == IDENTIFIER


def test_smooth_pictures_carry_it():
    frames = face_pictures(np.full(3, 4.0), seed=1)
    assert read_watermark(marked(frames)).identifier == IDENTIFIER


def test_it_costs_little_likeness_and_moves_nothing(shown):
    plain = np.stack(speaking()).astype(float)
    change = np.stack(shown) - plain
    assert 10 * np.log10(255**2 / np.mean(change**2)) > 37
    # The wall behind her is flat: a grey level or two there, and from frame to frame the same.
    wall = change[:, 10:60, 200:250]
    assert np.abs(wall).max() <= 3
    assert np.sqrt(np.mean(wall**2)) < 1.2
    assert (np.ptp(change[:25], axis=0)[:100] == 0).all()
    # Only the luma is marked, but for what was black or white to begin with.
    assert (np.ptp(wall, axis=-1) == 0).all()


def test_frames_are_marked_one_by_one_and_not_changed_in_place():
    frame = speaking()[0]
    before = frame.copy()
    first = Watermarker(IDENTIFIER).mark(frame)
    assert np.array_equal(frame, before)
    # The first frame is the same whatever follows: nothing of the future is looked at.
    assert np.array_equal(first, marked(speaking()[:4])[0])
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous


def test_a_changed_picture_gets_a_pattern_of_its_own():
    second = np.roll(speaking()[0], 90, axis=1)
    frames = [speaking()[0]] * 25 + [second] * 25
    again = marked(frames)
    assert read_watermark(again[25:]).identifier == IDENTIFIER
    assert not np.array_equal(again[0] - frames[0], again[25] - frames[25])


def test_another_size_begins_anew():
    marker = Watermarker(IDENTIFIER)
    marker.mark(speaking()[0])
    half = np.ascontiguousarray(speaking()[0][::2, ::2])
    assert read_watermark([marker.mark(half)]).identifier == IDENTIFIER


@pytest.mark.parametrize("shape", [(SMALLEST, SMALLEST, 3), (49, 333, 3), (600, 48, 3)])
def test_odd_shapes_are_marked(shape):
    frame = np.random.default_rng(0).integers(60, 90, shape, dtype=np.uint8)
    assert Watermarker(1).mark(frame).shape == shape


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_colour_breaks_nothing(level):
    frames = [np.full((128, 96, 3), level, np.uint8)] * 3
    assert np.abs(marked(frames)[0].astype(int) - level).max() <= 12
    assert not read_watermark(frames).present


def test_unmarked_pictures_are_not_taken_for_marked():
    """Random signs of the chips are other keys: each is a trial on a picture without a mark."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    pictures = [speaking()[0], noise, face_pictures(np.array([4.0]), 2)[0]]
    scores = []
    for picture in pictures:
        assert not read_watermark([picture]).present
        values = watermark._levelled(watermark._canonical(picture))
        for _ in range(100):
            total = watermark._Sum()
            total.total = values * (1 - 2 * random.integers(0, 2, values.size)).astype(np.float32)
            total.windows = 1
            reading = total.reading(1)
            scores.append(reading.score)
            assert not reading.present
    # The best of ten ways to look, in deviations of one.
    assert 0.3 < np.mean(scores) < 2.0
    assert np.max(scores) < 5


def test_another_identifier_is_not_read_where_the_checksum_fails():
    right = watermark._payload(IDENTIFIER)
    scores = np.zeros((6, 256), np.float32)
    scores[np.arange(6), list(right)] = 5
    assert watermark._identifier(scores) == IDENTIFIER
    scores[2, (right[2] + 1) % 256] = 6  # one byte was mistaken narrowly
    assert watermark._identifier(scores) == IDENTIFIER
    scores[3, (right[3] + 1) % 256] = 6  # two
    assert watermark._identifier(scores) is None


def test_the_chips_are_what_they_were():
    """Marks of earlier versions have to stay readable: keys, places and signs never change."""
    tables = watermark._tables()
    assert tables.places[:4].tolist() == PLACES
    assert tables.signs[:8].tolist() == SIGNS
    assert watermark._payload(IDENTIFIER).hex() == PAYLOAD
    assert np.array_equal(
        tables.sequences @ tables.sequences.T, 2048 * np.eye(256, dtype=np.float32)
    )


@pytest.mark.parametrize(("side", "room"), [(SMALLEST - 1, False), (SMALLEST, True)])
def test_only_a_picture_without_room_goes_without(side: int, room: bool) -> None:
    marking = Marking(Marks(credentials=False), ".png")
    marking.frame(np.full((side, 2 * side, 3), 90, np.uint8))
    assert (marking.identifier is not None) == room
