"""Sessions, trials and answers in a database, which itself refuses a second answer to a trial."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stillspeak.errors import StudyError
from stillspeak.study.config import fingerprint
from stillspeak.study.database import SCHEMA, TABLES, about, answers, connect, sessions, trials
from stillspeak.study.kinds import Study
from stillspeak.study.plan import plan_session
from stillspeak.study.records import Answer, Answers, StoredTrial, Trial, Visitor

# Comes after the database module, which says how to install SQLAlchemy.
from sqlalchemy import Connection, delete, func, insert, inspect, or_, select, update  # isort: skip
from sqlalchemy.exc import IntegrityError, SQLAlchemyError  # isort: skip

_S, _T, _A = sessions.c, trials.c, answers.c
_TRIAL = (_T.role, _T.first, _T.second, _T.expected)
_ALL = sessions.outerjoin(trials, _T.session == _S.id).outerjoin(answers, _A.trial == _T.id)
_LOCK = select(about.c.value).where(about.c.name == "visitors").with_for_update()


class StudyFullError(Exception):
    """The study takes no more visitors."""


class AnswerStore:
    """A study's database. Safe to use from many threads and, under a server, many processes.

    Args:
        study: a database holds the answers of one study.
        url: SQLAlchemy's; ``answers.db`` in the study's folder by default.
        create: make the tables where they are missing.
        durable: wait for the disk at each answer; False for what can be made again.

    Raises:
        StudyError: the database cannot be reached, or belongs to another study.
        MissingDependencyError: SQLAlchemy or the database's driver is not installed.
    """

    def __init__(
        self, study: Study, url: str | None = None, *, create: bool = True, durable: bool = True
    ) -> None:
        self._study = study
        self._engine = connect(url or sqlite_url(study.folder / "answers.db"), durable)
        # SQLite's own queue of writers sleeps between tries and is not fair; a lock is.
        self._queue: AbstractContextManager[object] = (
            threading.Lock() if self._engine.dialect.name == "sqlite" else nullcontext()
        )
        self.name = self._engine.url.render_as_string(hide_password=True)
        with self._errors():
            self._open(create)

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    def _open(self, create: bool) -> None:
        mine = self._study.materials.fingerprint()
        if not inspect(self._engine).has_table(about.name):
            if not create:
                raise StudyError(f"{self.name}: holds no study's answers yet")
            try:
                self._make_tables()
            except StudyError:
                # Another process may have made them at this moment.
                time.sleep(0.5)
                self._make_tables()
        with self._write() as connection:
            first = {"schema": SCHEMA, "study": mine, "secret": secrets.token_hex(32)}
            first |= {"visitors": "0", "deleted": "0"}
            there = self._about(connection)
            for name, value in first.items():
                if name not in there:
                    # IntegrityError: another process was quicker.
                    with suppress(IntegrityError), connection.begin_nested():
                        connection.execute(insert(about).values(name=name, value=value))
            stored = self._about(connection)
        if stored["schema"] != SCHEMA:
            raise StudyError(
                f"{self.name}: was made by another version of this program (its tables are "
                f"{stored['schema']}, these {SCHEMA})"
            )
        if stored["study"] != mine:
            raise StudyError(
                f"{self.name}: holds the answers of another study; give each study a database "
                "of its own"
            )
        self._secret = bytes.fromhex(stored["secret"])

    def _about(self, connection: Connection) -> dict[str, str]:
        return {row.name: row.value for row in connection.execute(select(about))}

    def _count_up(self, connection: Connection, name: str) -> int:
        number = int(self._about(connection)[name]) + 1
        connection.execute(update(about).where(about.c.name == name).values(value=str(number)))
        return number

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            text = " ".join(str(getattr(error, "orig", None) or error).split())
            raise StudyError(f"{self.name}: the database refuses: {text[:300]}") from error

    def _make_tables(self) -> None:
        with self._write() as connection:
            TABLES.create_all(connection)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with (
            self._errors(),
            self._queue,
            self._engine.connect().execution_options(study_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    def code_for(self, key: str) -> str:
        """The visitor's code for a key that the page drew; a retried request gets the same."""
        return base64.b32encode(self._keyed(f"code {key}"))[:20].decode()

    def token(self, session: int, position: int, side: str) -> str:
        """A name for a video in one trial of one session; it reveals nothing."""
        return self._keyed(f"video {session} {position} {side}").hex()[:24]

    def _keyed(self, text: str) -> bytes:
        return hmac.digest(self._secret, text.encode(), "sha256")

    def start(self, code: str, *, simulated: bool = False, now: float | None = None) -> int:
        """Plan a visitor's trials and store them; the same code gives the same session again.
        Plans are made one at a time, so that each knows of all before it and counts stay fair.

        Raises:
            StudyFullError: the study has all the visitors that its settings allow.
            StudyError: the database refuses.
        """
        now = time.time() if now is None else now
        config = self._study.config
        with self._write() as connection:
            number = int(connection.execute(_LOCK).scalar_one()) + 1
            there = self._find(connection, code)
            if there is not None:
                return there
            most = config.limits.visitors
            count = select(func.count()).select_from(sessions)
            if most and connection.execute(count).scalar_one() >= most:
                raise StudyFullError
            shown = self._shown(connection, now - 60 * config.balance.abandoned_after)
            plan = plan_session(self._study, shown, number)
            new = insert(sessions).values(
                pseudonym=secrets.token_hex(5),
                code_hash=_hashed(code),
                started=now,
                last_seen=now,
                configuration=fingerprint(config),
                simulated=simulated,
            )
            key = connection.execute(new).inserted_primary_key
            assert key is not None
            session = int(key[0])
            rows = [
                asdict(trial) | {"session": session, "position": position, "plays": 0, "watched": 0}
                for position, trial in enumerate(plan, start=1)
            ]
            connection.execute(insert(trials), rows)
            self._count_up(connection, "visitors")
            return session

    def _shown(self, connection: Connection, since: float) -> dict[tuple[str, str], int]:
        """How often what was shown, in trials with an answer or of visitors who may come back."""
        query = (
            select(_T.first, _T.second, func.count())
            .select_from(_ALL)
            .where(_T.role == "main", or_(_A.id.is_not(None), _S.last_seen > since))
            .group_by(_T.first, _T.second)
        )
        return {(first, second): count for first, second, count in connection.execute(query)}

    def find(self, code: str) -> int | None:
        """The session of a code; None if there is none (any more)."""
        with self._read() as connection:
            return self._find(connection, code)

    def _find(self, connection: Connection, code: str) -> int | None:
        return connection.scalar(select(_S.id).where(_S.code_hash == _hashed(code)))

    def trials(self, session: int) -> list[StoredTrial]:
        """A session's trials in order."""
        query = (
            select(
                _T.id, _T.position, *_TRIAL, _T.plays, _T.watched, _T.first_played,
                _A.id.is_not(None),
            )
            .select_from(trials.outerjoin(answers, _A.trial == _T.id))
            .where(_T.session == session)
            .order_by(_T.position)
        )  # fmt: skip
        with self._read() as connection:
            return [
                StoredTrial(row[0], row[1], Trial(*row[2:6]), *row[6:])
                for row in connection.execute(query)
            ]

    def played(self, trial: StoredTrial, *, most: int, now: float | None = None) -> bool:
        """Count a playback that begins; False if no more are allowed. One that was never finished,
        as when the page was reloaded, does not use the limit up.
        """
        now = time.time() if now is None else now
        first = func.coalesce(_T.first_played, now)
        change = update(trials).where(_T.id == trial.id)
        change = change.values(plays=_T.plays + 1, first_played=first)
        if most:
            change = change.where(or_(_T.plays < most, _T.watched == 0))
        with self._write() as connection:
            return connection.execute(change).rowcount == 1

    def watched(self, trial: StoredTrial) -> None:
        """Count a finished playback; never more than were started."""
        change = update(trials).where(_T.id == trial.id, _T.watched < _T.plays)
        with self._write() as connection:
            connection.execute(change.values(watched=_T.watched + 1))

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
        """Store an answer on the disk; False if the trial has one already, which stays as it is.

        Raises:
            StudyError: the database refuses.
            LookupError: the session no longer exists.
        """
        now = time.time() if now is None else now
        try:
            with self._write() as connection:
                # First, so that the row is locked against a deletion meanwhile.
                if not self._seen(connection, session, now, finished=last):
                    raise LookupError(session)
                connection.execute(insert(answers), _row(trial, values, response_ms, now))
        except StudyError as error:
            if isinstance(error.__cause__, IntegrityError):
                return False
            raise
        return True

    def record(
        self,
        session: int,
        rows: Sequence[tuple[StoredTrial, Mapping[str, Any], int]],
        *,
        finished: bool,
        now: float | None = None,
    ) -> None:
        """Store a simulated rater's answers at once, each as played and watched once."""
        now = time.time() if now is None else now
        with self._write() as connection:
            if rows:
                change = update(trials).where(_T.id.in_([trial.id for trial, _, _ in rows]))
                connection.execute(change.values(plays=1, watched=1, first_played=now))
                connection.execute(insert(answers), [_row(*row, now) for row in rows])
            self._seen(connection, session, now, finished=finished)

    def _seen(self, connection: Connection, session: int, now: float, *, finished: bool) -> bool:
        seen = {"last_seen": now} | ({"finished": now} if finished else {})
        change = update(sessions).where(_S.id == session).values(**seen)
        return connection.execute(change).rowcount == 1

    def delete(self, session: int) -> None:
        """Remove a session with all its trials and answers; only their number is kept."""
        with self._write() as connection:
            connection.execute(_LOCK)
            mine = select(_T.id).where(_T.session == session)
            connection.execute(delete(answers).where(_A.trial.in_(mine)))
            connection.execute(delete(trials).where(_T.session == session))
            if connection.execute(delete(sessions).where(_S.id == session)).rowcount == 1:
                self._count_up(connection, "deleted")

    def read(self) -> Answers:
        """All that reports and exports need."""
        return Answers(tuple(self.visitors()), tuple(self.answers()), self.deleted())

    def deleted(self) -> int:
        """Visitors who deleted their answers."""
        with self._read() as connection:
            return int(self._about(connection)["deleted"])

    def visitors(self) -> list[Visitor]:
        """All sessions, in the order in which they began."""
        before, after = (_S.pseudonym, _S.started, _S.finished), (_S.configuration, _S.simulated)
        query = (
            select(*before, func.count(_T.id), func.count(_A.id), *after)
            .select_from(_ALL)
            .group_by(_S.id, *before, *after)
            .order_by(_S.id)
        )
        with self._read() as connection:
            return [Visitor(*row) for row in connection.execute(query)]

    def answers(self, session: int | None = None) -> list[Answer]:
        """All answers, or one session's, by session and position."""
        query = (
            select(
                _S.pseudonym, _T.position, *_TRIAL, _A.given, _A.response_ms, _T.plays,
                _T.watched, _A.answered, _S.simulated,
            )
            .select_from(_ALL)
            .where(_A.id.is_not(None))
            .order_by(_S.id, _T.position)
        )  # fmt: skip
        if session is not None:
            query = query.where(_S.id == session)
        with self._read() as connection:
            return [
                Answer(rater, position, Trial(*rest[:4]), json.loads(rest[4]), *rest[5:])
                for rater, position, *rest in connection.execute(query)
            ]


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file."""
    return f"sqlite:///{path.absolute()}"


def valid_code(text: str) -> str | None:
    """A code as visitors type it, corrected; None if it cannot be one."""
    code = re.sub(r"[\s-]", "", text).upper().replace("0", "O").replace("1", "I").replace("8", "B")
    return code if re.fullmatch(r"[A-Z2-7]{20}", code) else None


def shown_code(code: str) -> str:
    """A code in groups of four."""
    return "-".join(code[i : i + 4] for i in range(0, len(code), 4))


def _row(
    trial: StoredTrial, values: Mapping[str, Any], response_ms: int, now: float
) -> dict[str, Any]:
    given = json.dumps(values, ensure_ascii=False)
    return {"trial": trial.id, "given": given, "response_ms": response_ms, "answered": now}


def _hashed(code: str) -> str:
    return hashlib.sha256(f"stillspeak study {code}".encode()).hexdigest()
