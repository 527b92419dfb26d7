"""The tables of a study's database, and the connection: SQLite, or anything SQLAlchemy reaches."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stillspeak.errors import MissingDependencyError, StudyError

try:
    from sqlalchemy import (
        Boolean,
        Column,
        Connection,
        Engine,
        Float,
        ForeignKey,
        Integer,
        MetaData,
        String,
        Table,
        Text,
        UniqueConstraint,
        create_engine,
        event,
        make_url,
    )
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
except ImportError as error:
    raise MissingDependencyError(
        "sqlalchemy is not installed; install stillspeak with the extra: "
        "pip install 'stillspeak[study]'"
    ) from error

SCHEMA = "1"

TABLES = MetaData()

about = Table(
    "study_about",
    TABLES,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)
sessions = Table(
    "study_sessions",
    TABLES,
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
    TABLES,
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
    TABLES,
    Column("id", Integer, primary_key=True, autoincrement=True),
    # Once and only once: the database itself refuses a second answer.
    Column("trial", ForeignKey("study_trials.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("given", Text, nullable=False),
    Column("response_ms", Integer, nullable=False),
    Column("answered", Float, nullable=False),
)

_BUSY_SECONDS = 60
"""How long a writer waits for another one."""


def connect(url: str, durable: bool) -> Engine:
    """An engine for a database URL.

    Raises:
        StudyError: the URL names no database that can hold answers.
        MissingDependencyError: the database's driver is not installed.
    """
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
            pool_pre_ping=not sqlite,
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
    """Retry what SQLite refuses at once while others use the file, such as changing the log."""
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
    # Writers queue when they begin, so that none fails because of what it has read before.
    write = connection.get_execution_options().get("study_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
