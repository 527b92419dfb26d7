"""The options of a talking face: ranges, messages, what is recorded of them."""

import inspect
from dataclasses import fields

import pytest

import stillspeak
from stillspeak.errors import ConfigError
from stillspeak.options import MAX_SEED, OPTIONS, AnimateOptions, OptionKeywords


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -1}, f"seed -1 is out of range; give 0 to {MAX_SEED}"),
        ({"seed": 2**63}, f"seed {2**63} is out of range; give 0 to {MAX_SEED}"),
        ({"blink": -0.5}, "blink -0.5 is out of range; give 0 to 3"),
        ({"blink": float("nan")}, "blink nan is out of range; give 0 to 3"),
        ({"expression": 3.01}, "expression 3.01 is out of range; give 0 to 3"),
        ({"head_motion": 4.0}, "head motion 4 is out of range; give 0 to 3"),
        ({"size": 63}, "size 63 is out of range; give 64 to 4096 pixels"),
        ({"size": 4097}, "size 4097 is out of range; give 64 to 4096 pixels"),
    ],
)
def test_values_out_of_range_are_refused(given, message):
    with pytest.raises(ConfigError) as error:
        AnimateOptions(**given)
    assert str(error.value) == message


def test_the_ends_of_the_ranges_are_allowed():
    for name, option in OPTIONS.items():
        for end in (option.least, option.most):
            assert end is None or getattr(AnimateOptions(**{name: end}), name) == end


def test_keywords_and_fields_are_the_same():
    assert list(OptionKeywords.__annotations__) == [one.name for one in fields(AnimateOptions)]


@pytest.mark.parametrize(
    "function", [stillspeak.animate, stillspeak.Animator.animate, stillspeak.StreamSession]
)
def test_signatures_list_every_option(function):
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in OPTIONS} == {
        name: option.default for name, option in OPTIONS.items()
    }


def test_an_unknown_option_is_a_mistake():
    with pytest.raises(TypeError, match="blinks"):
        stillspeak.animate("photo.jpg", "speech.wav", blinks=2.0)  # type: ignore[call-arg]


def test_what_is_recorded_and_what_is_changed():
    options = AnimateOptions(seed=4, crop=True, face=0)
    assert options.changed() == {"seed": 4, "crop": True}
    assert options.record("seed", "face") == {"seed": 4, "face": 0}
    assert set(options.record()) == set(OPTIONS)
