"""study.toml: what is written is read back, and what is wrong is said in one line."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from stillspeak.errors import ConfigError
from stillspeak.study.config import Question, StudyConfig, Texts, as_toml, fingerprint
from stillspeak.study.kinds import check_config, default_config, find_kind, kinds, load_config
from stillspeak.system.configuration import build


def proposed(
    name: str, items: int = 40, systems: int = 2, catches: int = 4, questions: tuple[str, ...] = ()
) -> StudyConfig:
    kind = find_kind(name)
    return default_config(kind, kind.propose(items, systems, catches), questions=questions)


@pytest.mark.parametrize("kind", kinds())
def test_what_is_written_is_read_back(tmp_path: Path, kind: str) -> None:
    config = proposed(kind)
    nasty = 'A "quoted" \\ title\twith [brackets] = # and “ünïcode” 🎬\nsecond """line""" \\'
    config = replace(config, texts=replace(config.texts, intro=nasty, title=nasty[:20]))
    (tmp_path / "study.toml").write_text(as_toml(config), "utf-8")
    assert load_config(tmp_path) == config
    assert "# " in as_toml(config)


def test_defaults_are_the_papers() -> None:
    pairs = proposed("preference")
    assert (pairs.trials.count, pairs.trials.training, pairs.trials.catch) == (30, 2, 2)
    assert pairs.questions[0].text == "Which of the two videos looks more natural?"
    turing = proposed("turing", items=300)
    assert (turing.trials.count, turing.trials.catch, turing.trials.training) == (10, 0, 0)
    # 30 videos of each method: 45 pairs of three methods.
    assert proposed("preference", systems=3).trials.count == 45
    assert proposed("preference", items=3, catches=3).trials.count == 3


def test_questions_of_lips_and_realism() -> None:
    config = proposed("preference", questions=("natural", "sync", "realism"))
    assert [q.id for q in config.questions] == ["natural", "sync", "realism"]
    with pytest.raises(ConfigError, match="'smell': not one of natural, sync, realism"):
        proposed("preference", questions=("smell",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind = 'beauty'", "kind"),
        ("", "kind: is missing"),
        ("kind = 'mos'\ncolour = 1", "colour"),
        ("kind = 'mos'\n[trials]\ncuont = 3", "trials.cuont"),
        ("kind = 'mos'\n[trials]\ncount = 0", "trials.count: must be at least 1"),
        ("kind = 'mos'\n[trials]\ncount = 'many'", "trials.count"),
        (
            "kind = 'mos'\n[trials]\ncount = 3\nrepeats = 4",
            "trials.repeats: more than trials.count",
        ),
        ("kind = 'turing'\n[trials]\nsampling = 'odd'", "trials.sampling"),
        ("kind = 'intelligibility'\n[trials]\nrepeats = 1", "would remember"),
        ("kind = 'mos'\n[texts]\nagree = ' '", "texts.agree"),
        ("kind = 'mos'\n[texts]\ntitle = ''", "texts.title"),
        ("kind = 'mos'\n[texts]\nlanguage = 'x\"y'", "texts.language"),
        ("kind = 'mos'\n[analysis]\nlevel = 95", "analysis.level"),
        ("kind = 'mos'\n[[questions]]\nid = 'Q 1'\ntext = 'x'", "questions.0.id"),
        ("kind = 'mos'\n[[questions]]\nid = 'q'\ntext = ' '", "questions.0.text"),
        ("kind = 'mos'\n[[questions]]\nid = 'q'\ntext = 'x'\nlabels = ['a']", "5 are needed"),
        (
            "kind = 'mos'\n[[questions]]\nid = 'q'\ntext = 'x'\n"
            "[[questions]]\nid = 'q'\ntext = 'y'",
            "there twice",
        ),
        (
            "kind = 'turing'\n[[questions]]\nid = 'p'\ntext = 'x'\n"
            "[[questions]]\nid = 'q'\ntext = 'y'",
            "asks one question",
        ),
        ("kind = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(tmp_path)
    assert "study.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_study_here(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no study\.toml"):
        load_config(tmp_path)


def test_a_fingerprint_of_what_visitors_notice() -> None:
    config = check_config(build(StudyConfig, {"kind": "mos"}, name="x"))
    same = replace(config, limits=replace(config.limits, visitors=5))
    assert fingerprint(same) == fingerprint(config)
    assert fingerprint(replace(config, texts=Texts(title="other"))) != fingerprint(config)
    assert fingerprint(replace(config, questions=(Question("q", "Why?"),))) != fingerprint(config)


def test_every_key_of_the_written_file_is_known() -> None:
    table = tomllib.loads(as_toml(proposed("mos", 3, 1, 0)))
    assert set(table["trials"]) == {
        "count", "training", "feedback", "catch", "repeats", "sampling", "entry",
    }  # fmt: skip
