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
    import sqlalchemy as sa
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
except ImportError as error:
    raise MissingDependencyError(
        "sqlalchemy is not installed; install stillspeak with the extra: "
        "pip install 'stillspeak[study]'"
    ) from error

SCHEMA = "1"

TABLES = sa.MetaData()


def _table(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    key = sa.Column("id", sa.Integer, primary_key=True, autoincrement=True)
    return sa.Table(name, TABLES, key, *columns)


def _of(table: str, *, unique: bool = False) -> sa.Column[int]:
    """A column that names the row of another table, and goes with it."""
    key = sa.ForeignKey(f"study_{table}s.id", ondelete="CASCADE")
    return sa.Column(table, key, nullable=False, unique=unique)


_column = partial(sa.Column, nullable=False)

about = sa.Table(
    "study_about",
    TABLES,
    sa.Column("name", sa.String(40), primary_key=True),
    _column("value", sa.Text),
)
sessions = _table(
    "study_sessions",
    _column("pseudonym", sa.String(16), unique=True),
    _column("code_hash", sa.String(64), unique=True),
    _column("started", sa.Float),
    _column("last_seen", sa.Float),
    sa.Column("finished", sa.Float),
    _column("configuration", sa.String(16)),
    _column("simulated", sa.Boolean),
)
trials = _table(
    "study_trials",
    _of("session"),
    _column("position", sa.Integer),
    _column("role", sa.String(10)),
    _column("first", sa.String(16)),
    _column("second", sa.String(16)),
    _column("expected", sa.Text),
    _column("plays", sa.Integer),
    _column("watched", sa.Integer),
    sa.Column("first_played", sa.Float),
    sa.UniqueConstraint("session", "position"),
)
answers = _table(
    "study_answers",
    _of("trial", unique=True),  # the database itself refuses a second answer
    _column("given", sa.Text),
    _column("response_ms", sa.Integer),
    _column("answered", sa.Float),
)

_BUSY_SECONDS = 60
"""How long a writer waits for another one."""


def connect(url: str, durable: bool) -> sa.Engine:
    """An engine for a database URL.

    Raises:
        StudyError: the URL names no database that can hold answers.
        MissingDependencyError: the database's driver is not installed.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        sqlite = parsed.get_backend_name() == "sqlite"
        if sqlite and (parsed.database in (None, "", ":memory:")):
            raise StudyError(f"{url}: answers must outlive the program; name a file")
        if sqlite and not Path(str(parsed.database)).absolute().parent.is_dir():
            raise StudyError(f"{url}: there is no folder for that file")
        engine = sa.create_engine(
            parsed, pool_size=20, max_overflow=20, pool_timeout=60, pool_pre_ping=not sqlite
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
        sa.event.listen(engine, "connect", partial(_prepare_sqlite, durable))
        sa.event.listen(engine, "begin", _begin_sqlite)
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


def _begin_sqlite(connection: sa.Connection) -> None:
    # Writers queue when they begin, so that none fails because of what it has read before.
    write = connection.get_execution_options().get("study_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
