"""Sessions, trials and answers in a database: SQLite, or whatever SQLAlchemy reaches.

Every acknowledged answer is on the disk (SQLite: write-ahead log with ``synchronous=FULL``), and
the database itself refuses a second one for the same trial.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillspeak.errors import MissingDependencyError, StudyError
from stillspeak.study.config import StudyConfig, fingerprint
from stillspeak.study.materials import Materials
from stillspeak.study.plan import Trial, plan_session

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData

ANSWERS = "answers.db"
SCHEMA = "1"

_CODE = re.compile(r"[A-Z2-7]{20}")


@dataclass(frozen=True)
class Session:
    """One visitor. ``code`` is known to the visitor alone; the database holds its hash."""

    id: int
    pseudonym: str
    finished: bool


@dataclass(frozen=True)
class StoredTrial:
    """One trial of a session, with what was done so far. Times are UTC seconds."""

    id: int
    position: int
    trial: Trial
    plays: int
    watched: int
    first_played: float | None
    answered: bool


@dataclass(frozen=True)
class Answer:
    """One answer with all that belongs to it, for reports and exports.

    Attributes:
        session: the visitor's pseudonym.
        position: of the trial, from 1.
        trial: what was shown.
        values: question id -> answer.
        response_ms: from the page's clock, since the trial could first be played.
        plays, watched: playbacks begun, and come to their end.
        answered: UTC seconds.
        simulated: by ``study simulate``.
    """

    session: str
    position: int
    trial: Trial
    values: Mapping[str, Any]
    response_ms: int
    plays: int
    watched: int
    answered: float
    simulated: bool


@dataclass(frozen=True)
class Visitor:
    """A session as reports see it. ``trials``: planned ones, ``answers``: given ones."""

    session: str
    started: float
    finished: float | None
    trials: int
    answers: int
    configuration: str
    simulated: bool


class FullError(Exception):
    """The study takes no more visitors."""


def default_database(folder: str | Path) -> str:
    """The URL of a study's own SQLite file."""
    return f"sqlite:///{(Path(folder) / ANSWERS).absolute()}"


def _tables() -> tuple[MetaData, Any, Any, Any, Any]:
    from sqlalchemy import (
        Boolean,
        Column,
        Float,
        ForeignKey,
        Integer,
        MetaData,
        String,
        Table,
        Text,
        UniqueConstraint,
    )

    tables = MetaData()
    about = Table(
        "study_about",
        tables,
        Column("name", String(40), primary_key=True),
        Column("value", Text, nullable=False),
    )
    sessions = Table(
        "study_sessions",
        tables,
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("pseudonym", String(16), nullable=False, unique=True),
        Column("code_hash", String(64), nullable=False, unique=True),
        Column("started", Float, nullable=False),
        Column("last_seen", Float, nullable=False),
        Column("finished", Float),
        Column("configuration", String(16), nullable=False),
        Column("simulated", Boolean, nullable=False),
    )
    trials = Table(
        "study_trials",
        tables,
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("session", ForeignKey("study_sessions.id", ondelete="CASCADE"), nullable=False),
        Column("position", Integer, nullable=False),
        Column("role", String(10), nullable=False),
        Column("first", String(16), nullable=False),
        Column("second", String(16), nullable=False),
        Column("expected", Text, nullable=False),
        Column("plays", Integer, nullable=False),
        Column("watched", Integer, nullable=False),
        Column("first_played", Float),
        UniqueConstraint("session", "position"),
    )
    answers = Table(
        "study_answers",
        tables,
        Column("id", Integer, primary_key=True, autoincrement=True),
        # Once and only once: the database itself refuses a second answer.
        Column(
            "trial",
            ForeignKey("study_trials.id", ondelete="CASCADE"),
            nullable=False,
            unique=True,
        ),
        Column("given", Text, nullable=False),
        Column("response_ms", Integer, nullable=False),
        Column("answered", Float, nullable=False),
    )
    return tables, about, sessions, trials, answers


class Store:
    """A study's database. Safe to use from many threads and, under a server, many processes.

    Args:
        url: of SQLAlchemy.
        materials: the study's; a database holds the answers of one study.
        create: make the tables where they are missing.
        durable: wait for the disk at each answer; False for what can be made again.

    Raises:
        StudyError: the database cannot be reached, or belongs to another study.
        MissingDependencyError: SQLAlchemy or the database's driver is not installed.
    """

    def __init__(
        self, url: str, materials: Materials, *, create: bool = True, durable: bool = True
    ) -> None:
        self._materials = materials
        self._engine = _engine(url, durable)
        # SQLite's own queue of writers sleeps between tries and is not fair; a lock is.
        self._queue: AbstractContextManager[object] = (
            threading.Lock() if self._engine.dialect.name == "sqlite" else nullcontext()
        )
        self.name = self._engine.url.render_as_string(hide_password=True)
        self._meta, self._about, self._sessions, self._trials, self._answers = _tables()
        with self._errors():
            self._open(create)

    def close(self) -> None:
        self._engine.dispose()

    # -------------------------------------------------------------- opening

    def _open(self, create: bool) -> None:
        from sqlalchemy import inspect
        from sqlalchemy.exc import DBAPIError

        mine = self._materials.fingerprint()
        if not inspect(self._engine).has_table(self._about.name):
            if not create:
                raise StudyError(f"{self.name}: holds no study's answers yet")
            try:
                self._make_tables()
            except DBAPIError:
                # Another process may have made them at this moment.
                time.sleep(0.5)
                self._make_tables()
        with self._write() as connection:
            for name, value in (
                ("schema", SCHEMA),
                ("study", mine),
                ("secret", secrets.token_hex(32)),
                ("visitors", "0"),
                ("deleted", "0"),
            ):
                self._insert_missing(connection, name, value)
            about = self._read_about(connection)
        if about["schema"] != SCHEMA:
            raise StudyError(
                f"{self.name}: was made by another version of this program (its tables are "
                f"{about['schema']}, these {SCHEMA})"
            )
        if about["study"] != mine:
            raise StudyError(
                f"{self.name}: holds the answers of another study; give each study a database "
                "of its own"
            )
        self._secret = bytes.fromhex(about["secret"])

    def _insert_missing(self, connection: Connection, name: str, value: str) -> None:
        from sqlalchemy import insert, select
        from sqlalchemy.exc import IntegrityError

        query = select(self._about.c.value).where(self._about.c.name == name)
        if connection.execute(query).first() is None:
            try:
                with connection.begin_nested():
                    connection.execute(insert(self._about).values(name=name, value=value))
            except IntegrityError:
                pass  # another process was quicker

    def _read_about(self, connection: Connection) -> dict[str, str]:
        from sqlalchemy import select

        rows = connection.execute(select(self._about.c.name, self._about.c.value))
        return {row.name: row.value for row in rows}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            text = " ".join(str(cause).split())
            raise StudyError(f"{self.name}: the database refuses: {text[:300]}") from error

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection

    def _make_tables(self) -> None:
        with self._write() as connection:
            self._meta.create_all(connection)

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with (
            self._queue,
            self._engine.connect().execution_options(study_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    # -------------------------------------------------------------- sessions

    def code_for(self, key: str) -> str:
        """The visitor's code for a key that the page drew; a retried request gets the same."""
        digest = hmac.new(self._secret, f"code {key}".encode(), hashlib.sha256).digest()
        return base64.b32encode(digest)[:20].decode()

    def token(self, session: int, position: int, side: str) -> str:
        """A name for a video in one trial of one session, which tells nothing."""
        text = f"video {session} {position} {side}"
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()[:24]

    def start(
        self, code: str, config: StudyConfig, *, simulated: bool = False, now: float | None = None
    ) -> Session:
        """Plan a visitor's trials and store them; the same code gives the same session again.

        Plans are made one at a time, so that each knows of all before it and counts stay fair.

        Raises:
            FullError: the study has all the visitors that its settings allow.
            StudyError: the database refuses.
        """
        from sqlalchemy import func, insert, select, update

        now = time.time() if now is None else now
        with self._errors(), self._write() as connection:
            lock = (
                select(self._about.c.value)
                .where(self._about.c.name == "visitors")
                .with_for_update()
            )
            number = int(connection.execute(lock).scalar_one()) + 1
            there = self._find(connection, code)
            if there is not None:
                return there
            most = config.limits.visitors
            count = select(func.count()).select_from(self._sessions)
            if most and connection.execute(count).scalar_one() >= most:
                raise FullError
            since = now - 60 * config.balance.abandoned_after
            shown = self._shown(connection, since)
            plan = plan_session(config, self._materials, shown, number)
            pseudonym = secrets.token_hex(5)
            made = connection.execute(
                insert(self._sessions).values(
                    pseudonym=pseudonym,
                    code_hash=_hashed(code),
                    started=now,
                    last_seen=now,
                    configuration=fingerprint(config),
                    simulated=simulated,
                )
            )
            key = made.inserted_primary_key
            assert key is not None
            connection.execute(
                insert(self._trials),
                [
                    {
                        "session": key[0],
                        "position": position,
                        "role": trial.role,
                        "first": trial.first,
                        "second": trial.second,
                        "expected": trial.expected,
                        "plays": 0,
                        "watched": 0,
                    }
                    for position, trial in enumerate(plan, start=1)
                ],
            )
            connection.execute(
                update(self._about)
                .where(self._about.c.name == "visitors")
                .values(value=str(number))
            )
            return Session(key[0], pseudonym, finished=False)

    def _shown(self, connection: Connection, since: float) -> dict[tuple[str, str], int]:
        """How often what was shown: trials with an answer, or of visitors who may still come."""
        from sqlalchemy import func, or_, select

        t, s, a = self._trials.c, self._sessions.c, self._answers.c
        query = (
            select(t.first, t.second, func.count().label("count"))
            .select_from(
                self._trials.join(self._sessions, t.session == s.id).outerjoin(
                    self._answers, a.trial == t.id
                )
            )
            .where(t.role == "main", or_(a.id.is_not(None), s.last_seen > since))
            .group_by(t.first, t.second)
        )
        return {(row.first, row.second): row._mapping["count"] for row in connection.execute(query)}

    def find(self, code: str) -> Session | None:
        """The session of a code; None if there is none (any more)."""
        with self._errors(), self._read() as connection:
            return self._find(connection, code)

    def _find(self, connection: Connection, code: str) -> Session | None:
        from sqlalchemy import select

        s = self._sessions.c
        query = select(s.id, s.pseudonym, s.finished).where(s.code_hash == _hashed(code))
        row = connection.execute(query).first()
        return None if row is None else Session(row.id, row.pseudonym, row.finished is not None)

    def trials(self, session: int) -> list[StoredTrial]:
        """A session's trials in order."""
        from sqlalchemy import select

        t, a = self._trials.c, self._answers.c
        query = (
            select(
                t.id, t.position, t.role, t.first, t.second, t.expected, t.plays, t.watched,
                t.first_played, a.id.label("answer"),
            )
            .select_from(self._trials.outerjoin(self._answers, a.trial == t.id))
            .where(t.session == session)
            .order_by(t.position)
        )  # fmt: skip
        with self._errors(), self._read() as connection:
            return [
                StoredTrial(
                    row.id,
                    row.position,
                    Trial(row.role, row.first, row.second, row.expected),
                    row.plays,
                    row.watched,
                    row.first_played,
                    row.answer is not None,
                )
                for row in connection.execute(query)
            ]

    def played(self, trial: StoredTrial, *, most: int, now: float | None = None) -> bool:
        """Count a playback that begins; False if no more are allowed.

        One that never came to its end, as when the page was reloaded, does not use the limit up.
        """
        from sqlalchemy import case, or_, update

        now = time.time() if now is None else now
        t = self._trials.c
        change = (
            update(self._trials)
            .where(t.id == trial.id)
            .values(
                plays=t.plays + 1,
                first_played=case((t.first_played.is_(None), now), else_=t.first_played),
            )
        )
        if most:
            change = change.where(or_(t.plays < most, t.watched == 0))
        with self._errors(), self._write() as connection:
            return connection.execute(change).rowcount == 1

    def watched(self, trial: StoredTrial) -> None:
        """Count a playback that came to its end; never more than began."""
        from sqlalchemy import update

        t = self._trials.c
        with self._errors(), self._write() as connection:
            connection.execute(
                update(self._trials)
                .where(t.id == trial.id, t.watched < t.plays)
                .values(watched=t.watched + 1)
            )

    def answer(
        self,
        session: int,
        trial: StoredTrial,
        values: Mapping[str, Any],
        response_ms: int,
        *,
        last: bool,
        now: float | None = None,
    ) -> bool:
        """Store an answer; False if the trial has one already, which stays as it is.

        When this returns, the answer is on the disk.

        Raises:
            StudyError: the database refuses; LookupError: the session is gone.
        """
        from sqlalchemy import insert, update
        from sqlalchemy.exc import IntegrityError

        now = time.time() if now is None else now
        seen: dict[str, Any] = {"last_seen": now} | ({"finished": now} if last else {})
        try:
            with self._errors_but(IntegrityError), self._write() as connection:
                # First, so that the row is locked against a deletion meanwhile.
                change = update(self._sessions).where(self._sessions.c.id == session).values(**seen)
                if connection.execute(change).rowcount != 1:
                    raise LookupError(session)
                connection.execute(
                    insert(self._answers).values(
                        trial=trial.id,
                        given=json.dumps(values, ensure_ascii=False),
                        response_ms=response_ms,
                        answered=now,
                    )
                )
        except IntegrityError:
            return False
        return True

    def record(
        self,
        session: int,
        rows: Sequence[tuple[StoredTrial, Mapping[str, Any], int]],
        *,
        finished: bool,
        now: float | None = None,
    ) -> None:
        """Store many answers of one session at once, each as played and watched once; for
        simulated raters, whose trials have no answers yet.
        """
        from sqlalchemy import insert, update

        now = time.time() if now is None else now
        t, s = self._trials.c, self._sessions.c
        with self._errors(), self._write() as connection:
            if rows:
                mine = [trial.id for trial, _, _ in rows]
                change = update(self._trials).where(t.session == session, t.id.in_(mine))
                connection.execute(change.values(plays=1, watched=1, first_played=now))
                connection.execute(
                    insert(self._answers),
                    [
                        {
                            "trial": trial.id,
                            "given": json.dumps(values, ensure_ascii=False),
                            "response_ms": response_ms,
                            "answered": now,
                        }
                        for trial, values, response_ms in rows
                    ],
                )
            seen: dict[str, Any] = {"last_seen": now} | ({"finished": now} if finished else {})
            connection.execute(update(self._sessions).where(s.id == session).values(**seen))

    @contextmanager
    def _errors_but(self, kind: type[Exception]) -> Iterator[None]:
        passed: Exception | None = None
        with self._errors():
            try:
                yield
            except kind as error:
                passed = error
        if passed is not None:
            raise passed

    def delete(self, session: int) -> None:
        """Remove a session with all its trials and answers; only their number is kept."""
        from sqlalchemy import delete, select, update

        with self._errors(), self._write() as connection:
            about = self._about
            lock = select(about.c.value).where(about.c.name == "visitors").with_for_update()
            connection.execute(lock)
            mine = select(self._trials.c.id).where(self._trials.c.session == session)
            connection.execute(delete(self._answers).where(self._answers.c.trial.in_(mine)))
            connection.execute(delete(self._trials).where(self._trials.c.session == session))
            gone = connection.execute(delete(self._sessions).where(self._sessions.c.id == session))
            if gone.rowcount == 1:
                deleted = int(self._read_about(connection)["deleted"]) + 1
                connection.execute(
                    update(about).where(about.c.name == "deleted").values(value=str(deleted))
                )

    # -------------------------------------------------------------- reading all

    def deleted(self) -> int:
        """Visitors who deleted their answers."""
        with self._errors(), self._read() as connection:
            return int(self._read_about(connection)["deleted"])

    def visitors(self) -> list[Visitor]:
        """All sessions, in order of their beginning."""
        from sqlalchemy import func, select

        s, t, a = self._sessions.c, self._trials.c, self._answers.c
        query = (
            select(
                s.pseudonym, s.started, s.finished, s.configuration, s.simulated,
                func.count(t.id).label("trials"), func.count(a.id).label("answers"),
            )
            .select_from(
                self._sessions.outerjoin(self._trials, t.session == s.id).outerjoin(
                    self._answers, a.trial == t.id
                )
            )
            .group_by(s.id, s.pseudonym, s.started, s.finished, s.configuration, s.simulated)
            .order_by(s.id)
        )  # fmt: skip
        with self._errors(), self._read() as connection:
            return [
                Visitor(
                    row.pseudonym,
                    row.started,
                    row.finished,
                    row.trials,
                    row.answers,
                    row.configuration,
                    bool(row.simulated),
                )
                for row in connection.execute(query)
            ]

    def answers(self, session: int | None = None) -> list[Answer]:
        """All answers, or one session's, by session and position."""
        from sqlalchemy import select

        s, t, a = self._sessions.c, self._trials.c, self._answers.c
        query = (
            select(
                s.pseudonym, s.simulated, t.position, t.role, t.first, t.second, t.expected,
                t.plays, t.watched, a.given, a.response_ms, a.answered,
            )
            .select_from(
                self._answers.join(self._trials, a.trial == t.id).join(
                    self._sessions, t.session == s.id
                )
            )
            .order_by(s.id, t.position)
        )  # fmt: skip
        if session is not None:
            query = query.where(s.id == session)
        with self._errors(), self._read() as connection:
            return [
                Answer(
                    row.pseudonym,
                    row.position,
                    Trial(row.role, row.first, row.second, row.expected),
                    json.loads(row.given),
                    row.response_ms,
                    row.plays,
                    row.watched,
                    row.answered,
                    bool(row.simulated),
                )
                for row in connection.execute(query)
            ]


def valid_code(text: str) -> str | None:
    """A code as visitors type it, put right; None if it cannot be one."""
    code = re.sub(r"[\s-]", "", text).upper().replace("0", "O").replace("1", "I").replace("8", "B")
    return code if _CODE.fullmatch(code) else None


def shown_code(code: str) -> str:
    """A code in groups of four."""
    return "-".join(code[i : i + 4] for i in range(0, len(code), 4))


def iso(seconds: float | None) -> str:
    """UTC seconds as text, to the second."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _hashed(code: str) -> str:
    return hashlib.sha256(f"stillspeak study {code}".encode()).hexdigest()


def _engine(url: str, durable: bool) -> Engine:
    try:
        from sqlalchemy import create_engine, event, make_url
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    except ImportError as error:
        raise MissingDependencyError(
            "sqlalchemy is not installed; install stillspeak with the extra: "
            "pip install 'stillspeak[study]'"
        ) from error
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        sqlite = parsed.get_backend_name() == "sqlite"
        if sqlite and (parsed.database in (None, "", ":memory:")):
            raise StudyError(f"{url}: answers must outlive the program; name a file")
        if sqlite and not Path(str(parsed.database)).absolute().parent.is_dir():
            raise StudyError(f"{url}: there is no folder for that file")
        engine = create_engine(
            parsed,
            pool_size=20,
            max_overflow=20,
            pool_timeout=60,
            **({} if sqlite else {"pool_pre_ping": True}),
        )
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise StudyError(
            "--database: not a database URL; write sqlite:///FILE or "
            "postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name or 'the driver'} is not installed; for PostgreSQL: "
            "pip install 'stillspeak[postgres]'"
        ) from error
    if sqlite:
        event.listen(engine, "connect", partial(_prepare_sqlite, durable))
        event.listen(engine, "begin", _begin_sqlite)
    return engine


_BUSY_SECONDS = 60
"""How long one waits for another who writes."""


def _prepare_sqlite(durable: bool, connection: Any, record: Any) -> None:
    # The driver would begin transactions late, after the first read.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={1000 * _BUSY_SECONDS}",
        "journal_mode=WAL",
        f"synchronous={'FULL' if durable else 'OFF'}",
        "foreign_keys=ON",
        "secure_delete=ON",
    ):
        _patiently(partial(cursor.execute, f"PRAGMA {pragma}"))
    cursor.close()


def _patiently(do: Callable[[], object]) -> None:
    """Do what SQLite refuses at once while others are at it, such as the change to a log."""
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            do()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.05)


def _begin_sqlite(connection: Connection) -> None:
    # Writers queue at their beginning, so that none fails for what it has read before.
    write = connection.get_execution_options().get("study_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
