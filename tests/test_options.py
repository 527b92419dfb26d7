"""The options of a talking face: ranges, messages, what is recorded of them."""

import inspect
from typing import get_type_hints

import pytest
import typer

import stillspeak
from stillspeak.batch import COLUMNS, read_jobs
from stillspeak.cli.app import app
from stillspeak.errors import ConfigError
from stillspeak.options import MAX_SEED, OPTIONS, AnimateOptions, OptionKeywords, read_faces
from stillspeak.system.configuration import range_of
from stillspeak.web.live.routes import OfferIn
from stillspeak.web.studio.schemas import JobIn


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -1}, "seed: must be at least 0, not -1"),
        ({"seed": 2**63}, f"seed: must be at most {MAX_SEED}, not {2**63}"),
        ({"face": -1}, "face: must be at least 0, not -1"),
        ({"blink": -0.5}, "blink: must be at least 0, not -0.5"),
        ({"blink": float("nan")}, "blink: must be a finite number, not nan"),
        ({"blink": "often"}, "blink: must be a number, not 'often'"),
        ({"expression": 3.01}, "expression: must be at most 3, not 3.01"),
        ({"head_motion": 4.0}, "head_motion: must be at most 3, not 4.0"),
        (
            {"mood": "happy,sadly@2"},
            "mood: 'sadly': name: must be 'neutral', 'happy', 'sad', 'angry', 'surprised', "
            "'fearful', 'disgusted' or 'auto', not 'sadly'",
        ),
        ({"mood": 3}, "mood: must be a string, not 3"),
        ({"size": 63}, "size: must be at least 64, not 63"),
        ({"size": 4097}, "size: must be at most 4096, not 4097"),
    ],
)
def test_values_out_of_range_are_refused(given, message):
    with pytest.raises(ConfigError) as error:
        AnimateOptions(**given)
    assert str(error.value) == message


def test_the_ends_of_the_ranges_are_allowed():
    for name, option in OPTIONS.items():
        for end in range_of(option):
            assert end is None or getattr(AnimateOptions(**{name: end}), name) == end


def test_keywords_and_fields_are_the_same():
    assert get_type_hints(OptionKeywords) == {
        name: option.annotation for name, option in OPTIONS.items()
    }


@pytest.mark.parametrize(
    "function", [stillspeak.animate, stillspeak.Animator.animate, stillspeak.StreamSession]
)
def test_signatures_list_every_option(function):
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in OPTIONS} == {
        name: option.default for name, option in OPTIONS.items()
    }


def test_whatever_makes_videos_takes_every_option(tmp_path):
    commands = typer.main.get_command(app).commands
    table = tmp_path / "jobs.csv"
    values = ["1"] * len(OPTIONS)
    table.write_text(",".join((*COLUMNS, *OPTIONS)) + "\n" + ",".join(["a", "b", "c", *values]))
    (job,) = read_jobs(table)
    takers = {
        "stillspeak animate": {one.name for one in commands["animate"].params},
        "stillspeak stream": {one.name for one in commands["stream"].params},
        "tables of jobs": set(job.options),
        "the web application": set(JobIn.model_fields),
        "live sessions": set(OfferIn.model_fields),
        "content credentials": set(AnimateOptions().record()),
    }
    lacking = {taker: set(OPTIONS) - taken for taker, taken in takers.items()}
    assert {taker: names for taker, names in lacking.items() if names} == {}
    assert job.options["crop"] is True
    assert isinstance(job.options["blink"], float)


@pytest.mark.parametrize(
    ("faces", "speech_for", "first", "others"),
    [
        (None, [], None, {}),
        ("2", [], 2, {}),
        ("0,1", [], 0, {1: None}),
        ("1; 0;3", ["3=c=d.wav", "0 = b.wav"], 1, {0: "b.wav", 3: "c=d.wav"}),
    ],
)
def test_faces_and_what_they_say_are_read(faces, speech_for, first, others):
    assert read_faces(faces, speech_for) == (first, others)


@pytest.mark.parametrize(
    ("faces", "speech_for", "message"),
    [
        ("a", [], "face must be a whole number, not 'a'"),
        ("0,", [], "face must be a whole number, not ''"),
        ("-1", [], "face must be a whole number, not '-1'"),
        ("0,1,1", [], "face 1 is named twice"),
        ("1,1", [], "face 1 is named twice"),
        ("0,1", ["b.wav"], "speech-for takes the form N=FILE, not 'b.wav'"),
        ("0,1", ["1="], "speech-for takes the form N=FILE, not '1='"),
        ("0,1", ["1=a", "1=b"], "speech-for '1=b': face 1 has a speech already"),
        *(
            (faces, [given], f"speech-for {given!r}: face {given[0]} is not among the others that "
            "move; name the one that says the main speech first, as in --face 0,1")
            for faces, given in ((None, "1=a"), ("0,1", "0=a"), ("0,1", "2=a"))
        ),
    ],
)  # fmt: skip
def test_faces_that_cannot_be_are_refused(faces, speech_for, message):
    with pytest.raises(ConfigError) as error:
        read_faces(faces, speech_for)
    assert str(error.value) == message


def test_an_unknown_option_is_a_mistake():
    with pytest.raises(TypeError, match="blinks"):
        stillspeak.animate("photo.jpg", "speech.wav", blinks=2.0)  # type: ignore[call-arg]


def test_what_is_recorded_and_what_is_changed():
    options = AnimateOptions(seed=4, crop=True, face=0)
    assert options.changed() == {"seed": 4, "crop": True}
    assert options.record("seed", "face") == {"seed": 4, "face": 0}
    assert set(options.record()) == set(OPTIONS)
