"""What a concealed video says about itself."""

import pytest

from stillspeak.conceal.occlusion import uncover_video
from stillspeak.conceal.video import conceal_video
from stillspeak.media.marks.inspection import inspect_file
from support.conceal import concealer, sound, talking, write_timed
from support.marks import origin, sign_copy


@pytest.fixture(scope="module")
def holes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marked")
    places = [*range(8), *range(11, 16)]
    frames = talking(16)
    return write_timed(folder / "holes.mp4", [frames[k] for k in places], places, sound(16 / 25))


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_filled_video_is_an_edition_of_its_source(holes, tmp_path, suffix):
    output = tmp_path / f"whole{suffix}"
    assert conceal_video(holes, output, concealer=concealer()).generated == 3
    found = inspect_file(output)
    assert found.verdict == "intact"
    assert found.credentials.actions == ("c2pa.opened", "c2pa.edited")
    assert found.credentials.source_types == ("compositeWithTrainedAlgorithmicMedia",)
    (parent,) = found.credentials.ingredients
    assert parent["relationship"] == "parentOf" and len(parent["sha256"]) == 64
    assert not parent["credentials"]
    # Good pictures stay as they are, so there is no watermark.
    assert not found.watermark.present and found.credentials.watermark is None


def test_credentials_of_the_source_are_kept(holes, tmp_path):
    signed = tmp_path / "signed.mp4"
    sign_copy(holes, signed, origin(1), None)
    conceal_video(signed, tmp_path / "whole.mp4", concealer=concealer())
    found = inspect_file(tmp_path / "whole.mp4")
    assert found.verdict == "intact"
    (parent,) = found.credentials.ingredients
    assert parent["credentials"]


def test_an_uncovered_face_is_named_too_and_marks_can_be_left_out(holes, tmp_path):
    choices = {"reference": 0, "concealer": concealer()}
    uncover_video(holes, tmp_path / "a.mp4", "100,130,60,40", **choices)
    uncover_video(holes, tmp_path / "b.mp4", "100,130,60,40", mark=False, **choices)
    found = [inspect_file(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    assert [one.verdict for one in found] == ["intact", "unmarked"]
    assert "c2pa.edited" in found[0].credentials.actions
