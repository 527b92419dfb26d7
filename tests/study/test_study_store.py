"""The database: every answer once, whatever happens at the same time. SQLite and PostgreSQL."""

import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from stillspeak.errors import StudyError
from stillspeak.study.config import Balance, Limits
from stillspeak.study.kinds import Study
from stillspeak.study.records import SECOND
from stillspeak.study.store import AnswerStore, StudyFullError, shown_code, valid_code
from support.study import paper_study

pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed (extra: study)")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return paper_study(tmp_path / "s", "preference", items=6, count=6, catch=1, repeats=1)


def begin(store: AnswerStore, number: int, **more: float) -> int:
    return store.start(store.code_for(f"{number:032x}"), **more)


def test_a_session_from_beginning_to_end(database: str, study: Study) -> None:
    store = AnswerStore(study, database)
    session = begin(store, 1, now=1000.0)
    trials = store.trials(session)
    assert [t.position for t in trials] == list(range(1, 9))
    assert begin(store, 1) == session  # a retried request
    assert store.played(trials[0], most=1, now=1001.0)
    store.watched(trials[0])
    store.watched(trials[0])  # never more than began
    assert not store.played(trials[0], most=1, now=1002.0)
    now = store.trials(session)[0]
    assert (now.plays, now.watched, now.first_played) == (1, 1, 1001.0)
    for trial in trials:
        last = trial.position == 8
        assert store.answer(session, trial, {"natural": "first"}, 1500, last=last, now=1010.0)
        assert not store.answer(session, trial, {"natural": SECOND}, 9, last=last)
    (visitor,) = store.visitors()
    assert (visitor.started, visitor.trials, visitor.answers) == (1000.0, 8, 8)
    assert visitor.finished == 1010.0
    assert {a.values["natural"] for a in store.answers()} == {"first"}
    assert {a.response_ms for a in store.answers()} == {1500}
    store.close()
    again = AnswerStore(study, database)
    found = again.find(again.code_for(f"{1:032x}"))  # the secret is kept
    assert found == session
    assert again.find("A" * 20) is None
    again.close()


def test_the_same_answer_many_times_at_once(database: str, study: Study) -> None:
    store = AnswerStore(study, database)
    session = begin(store, 1)
    trial = store.trials(session)[0]
    together = threading.Barrier(16)

    def send(number: int) -> bool:
        together.wait()
        return store.answer(session, trial, {"natural": "first"}, number, last=False)

    with ThreadPoolExecutor(16) as pool:
        stored = list(pool.map(send, range(16)))
    assert stored.count(True) == 1
    (answer,) = store.answers()
    assert answer.response_ms == stored.index(True)
    store.close()


def test_visitors_who_come_at_once_are_balanced(database: str, study: Study) -> None:
    trials = replace(study.config.trials, count=4, catch=0, repeats=0)
    study = replace(study, config=replace(study.config, trials=trials))
    store = AnswerStore(study, database)
    with ThreadPoolExecutor(12) as pool:
        sessions = list(pool.map(lambda n: begin(store, n), range(24)))
    assert len(set(sessions)) == len({v.session for v in store.visitors()}) == 24
    pairs: Counter[frozenset[str]] = Counter()
    sides: Counter[tuple[str, str]] = Counter()
    for session in sessions:
        for planned in store.trials(session):
            pairs[frozenset((planned.trial.first, planned.trial.second))] += 1
            sides[planned.trial.first, planned.trial.second] += 1
    assert set(pairs.values()) == {24 * 4 // 6}
    assert max(sides.values()) - min(sides.values()) <= 2
    store.close()


def test_starting_twice_at_once_is_one_session(database: str, study: Study) -> None:
    store = AnswerStore(study, database)
    together = threading.Barrier(8)

    def go(_: int) -> int:
        together.wait()
        return begin(store, 7)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(go, range(8)))) == 1
    assert len(store.visitors()) == 1
    store.close()


def test_who_went_away_does_not_count_for_balance(tmp_path: Path, study: Study) -> None:
    trials = replace(study.config.trials, count=3, catch=0, repeats=0)
    balance = Balance(abandoned_after=10)
    study = replace(study, config=replace(study.config, trials=trials, balance=balance))
    store = AnswerStore(study, f"sqlite:///{tmp_path / 'x.db'}")

    def items(session: int) -> set[frozenset[str]]:
        return {frozenset((t.trial.first, t.trial.second)) for t in store.trials(session)}

    first = items(begin(store, 1, now=0.0))
    second = items(begin(store, 2, now=60.0))
    assert not first & second  # while the first may come back
    # Ten minutes later only what was answered counts.
    third = begin(store, 3, now=60.0)
    for trial in store.trials(third):
        store.answer(third, trial, {"natural": "first"}, 1, last=False, now=60.0)
    fourth = items(begin(store, 4, now=10_000.0))
    assert not fourth & items(third)
    store.close()


def test_deleting_leaves_nothing_but_a_count(database: str, study: Study) -> None:
    store = AnswerStore(study, database)
    mine, other = begin(store, 1), begin(store, 2)
    names = [v.session for v in store.visitors()]
    for session in (mine, other):
        trial = store.trials(session)[0]
        store.answer(session, trial, {"natural": "first"}, 5, last=False)
    todo = store.trials(mine)[1]
    store.delete(mine)
    store.delete(mine)
    assert store.deleted() == 1
    assert [v.session for v in store.visitors()] == names[1:]
    assert [a.session for a in store.answers()] == names[1:]
    assert len(store.answers(other)) == 1
    assert store.trials(mine) == []
    with pytest.raises(LookupError):
        store.answer(mine, todo, {"natural": "first"}, 5, last=False)
    # The deleted visitor's number is not given again.
    third = begin(store, 3)
    assert store.visitors()[-1].session not in names
    assert third != other
    store.close()


def test_no_more_visitors_than_wanted(tmp_path: Path, study: Study) -> None:
    study = replace(study, config=replace(study.config, limits=Limits(visitors=2)))
    store = AnswerStore(study, f"sqlite:///{tmp_path / 'x.db'}")
    begin(store, 1)
    begin(store, 2)
    with pytest.raises(StudyFullError):
        begin(store, 3)
    assert begin(store, 2)  # who is in stays in
    store.close()


def test_sqlite_is_set_to_keep_what_it_acknowledges(tmp_path: Path, study: Study) -> None:
    store = AnswerStore(study, f"sqlite:///{tmp_path / 'x.db'}")
    with store._read() as connection:
        for pragma, value in (
            ("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("secure_delete", 1),
        ):  # fmt: skip
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value
    store.close()


def test_nothing_about_a_visitors_machine_has_a_place(tmp_path: Path, study: Study) -> None:
    store = AnswerStore(study, f"sqlite:///{tmp_path / 'x.db'}")
    code = store.code_for("0" * 32)
    store.start(code)
    store.close()
    with sqlite3.connect(tmp_path / "x.db") as plain:
        columns = {
            row[1]
            for (table,) in plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for row in plain.execute(f"PRAGMA table_info({table})")
        }
        dump = "\n".join(plain.iterdump())
    assert columns == {
        "name", "value", "id", "pseudonym", "code_hash", "started", "last_seen", "finished",
        "configuration", "simulated", "session", "position", "role", "first", "second",
        "expected", "plays", "watched", "first_played", "trial", "given", "response_ms",
        "answered", "seq",
    } - ({"seq"} - columns)  # fmt: skip
    assert code not in dump  # only its hash


def test_a_database_belongs_to_one_study(database: str, tmp_path: Path) -> None:
    one = paper_study(tmp_path / "one", "mos", items=3, count=3)
    two = paper_study(tmp_path / "two", "mos", items=4, count=3)
    AnswerStore(one, database).close()
    with pytest.raises(StudyError, match="answers of another study"):
        AnswerStore(two, database)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("answers.db", "not a database URL"),
        ("oraclex://a/b", "not a database URL"),
        ("sqlite://", "name a file"),
        ("sqlite:////nowhere/at/all.db", "no folder"),
        ("postgresql://nobody@/x?host=/nowhere/at/all", "the database refuses"),
    ],
)
def test_databases_that_cannot_be(url: str, message: str, study: Study) -> None:
    if url.startswith("postgres"):
        pytest.importorskip("psycopg", reason="psycopg is not installed (extra: postgres)")
    with pytest.raises(StudyError, match=message) as caught:
        AnswerStore(study, url)
    assert "\n" not in str(caught.value)


def test_a_password_is_not_repeated(study: Study) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra: postgres)")
    with pytest.raises(StudyError) as caught:
        AnswerStore(study, "postgresql://nobody:secret@/x?host=/nowhere")
    assert "secret" not in str(caught.value)


def test_no_answers_yet(tmp_path: Path, study: Study) -> None:
    with pytest.raises(StudyError, match="holds no study's answers yet"):
        AnswerStore(study, f"sqlite:///{tmp_path / 'new.db'}", create=False)


def test_a_file_that_is_no_database(tmp_path: Path, study: Study) -> None:
    (tmp_path / "x.db").write_text("This is no database, " * 100)
    with pytest.raises(StudyError, match="the database refuses"):
        AnswerStore(study, f"sqlite:///{tmp_path / 'x.db'}")


def test_codes_as_people_type_them() -> None:
    code = "ABCDEFGHIJKLMNOP2345"
    assert shown_code(code) == "ABCD-EFGH-IJKL-MNOP-2345"
    assert valid_code(shown_code(code)) == valid_code(f" {shown_code(code).lower()} ") == code
    assert valid_code("A8CDEFGH1JKLMN0P2345") == "ABCDEFGHIJKLMNOP2345"
    assert valid_code("short") is None
    assert valid_code("ABCDEFGHIJKLMNOP234!") is None


def test_the_default_database(study: Study) -> None:
    AnswerStore(study).close()
    assert (study.folder / "answers.db").is_file()


def test_tables_are_made_once_by_many(database: str, study: Study) -> None:
    opened: list[AnswerStore] = []
    together = threading.Barrier(4)

    def open_it(_: int) -> AnswerStore:
        together.wait()
        return AnswerStore(study, database)

    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(open_it, range(4)))
    assert len({store.code_for("0" * 32) for store in opened}) == 1  # one secret
    for store in opened:
        store.close()
