"""Answers as tables for other programs: one row a trial and question."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from stillspeak.study.analysis import Answers
from stillspeak.study.config import StudyConfig
from stillspeak.study.judge import matched, passed
from stillspeak.study.materials import Materials, normalise
from stillspeak.study.plan import FIRST
from stillspeak.study.store import iso

COLUMNS = (
    "session",
    "position",
    "role",
    "question",
    "answer",
    "item",
    "first",
    "second",
    "chosen",
    "truth",
    "correct",
    "response_ms",
    "plays",
    "watched",
    "answered",
    "simulated",
)


def rows(config: StudyConfig, materials: Materials, data: Answers) -> list[dict[str, Any]]:
    """All answers, training and catch trials included, by visitor and position.

    ``session`` is the visitor's pseudonym; ``first`` and ``second`` name the systems from left
    to right; ``chosen`` the preferred one; ``truth`` what is right, where something is;
    ``correct`` 1 or 0, for lip reading the share of words.
    """
    video_of = materials.by_id()
    table = []
    for answer in data.answers:
        trial = answer.trial
        first = video_of[trial.first]
        second = video_of[trial.second] if trial.second else None
        for question in config.questions:
            if question.id not in answer.values:
                continue  # the question was added later
            value = answer.values[question.id]
            chosen = truth = ""
            correct: float | None = None
            if config.kind == "preference" and second is not None:
                chosen = first.system if value == FIRST else second.system
            elif config.kind == "turing":
                truth = trial.expected
                correct = int(value == truth)
            elif config.kind == "intelligibility":
                truth = trial.expected or " ".join(first.words)
                read = normalise(value) if isinstance(value, str) else list(value)
                pairs = matched(truth.split(), read)
                correct = round(sum(a == b for a, b in pairs) / len(pairs), 4)
            if trial.role == "catch" and question is config.questions[0]:
                correct = int(passed(config, trial, answer.values))
            table.append(
                {
                    "session": answer.session,
                    "position": answer.position,
                    "role": trial.role,
                    "question": question.id,
                    "answer": " ".join(w or "?" for w in value)
                    if isinstance(value, list)
                    else value,
                    "item": first.item,
                    "first": first.system,
                    "second": second.system if second else "",
                    "chosen": chosen,
                    "truth": truth,
                    "correct": correct,
                    "response_ms": answer.response_ms,
                    "plays": answer.plays,
                    "watched": answer.watched,
                    "answered": iso(answer.answered),
                    "simulated": int(answer.simulated),
                }
            )
    return table


def as_csv(config: StudyConfig, materials: Materials, data: Answers) -> str:
    """Answers as CSV with a first line of names. Text that a spreadsheet would take for a
    formula begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows(config, materials, data):
        writer.writerow({key: _safe(value) for key, value in row.items()})
    return text.getvalue()


def _safe(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def as_json(config: StudyConfig, materials: Materials, data: Answers) -> str:
    """Visitors and answers as one JSON object."""
    table = {
        "kind": config.kind,
        "title": config.texts.title,
        "systems": list(materials.systems),
        "deleted": data.deleted,
        "visitors": [
            {
                "session": v.session,
                "started": iso(v.started),
                "finished": iso(v.finished) or None,
                "trials": v.trials,
                "answers": v.answers,
                "configuration": v.configuration,
                "simulated": v.simulated,
            }
            for v in data.visitors
        ],
        "answers": rows(config, materials, data),
    }
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"
