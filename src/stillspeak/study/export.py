"""Answers as tables for other programs: one row for each trial and question."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from stillspeak.study.kinds import Study
from stillspeak.study.records import Answers, iso

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

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def rows(study: Study, data: Answers) -> list[dict[str, Any]]:
    """All answers, training and catch trials included, by visitor and position.

    ``session`` is the visitor's pseudonym; ``first`` and ``second`` name the systems from left
    to right; ``chosen`` the preferred one; ``truth`` what is right, where something is;
    ``correct`` 1 or 0, for lip reading the share of words.
    """
    table = []
    for answer in data.answers:
        trial = answer.trial
        videos = [study.video_of[name] for name in trial.videos]
        for question in study.config.questions:
            if question.id not in answer.values:
                continue  # the question was added later
            value = answer.values[question.id]
            row = {
                "session": answer.session,
                "position": answer.position,
                "role": trial.role,
                "question": question.id,
                "answer": " ".join(w or "?" for w in value) if isinstance(value, list) else value,
                "item": videos[0].item,
                "first": videos[0].system,
                "second": videos[1].system if len(videos) > 1 else "",
                "chosen": "",
                "truth": "",
                "correct": None,
                "response_ms": answer.response_ms,
                "plays": answer.plays,
                "watched": answer.watched,
                "answered": iso(answer.answered),
                "simulated": int(answer.simulated),
            } | study.kind.export(study, trial, value)
            if trial.role == "catch" and question is study.config.questions[0]:
                row["correct"] = int(study.kind.passed(trial, value))
            table.append(row)
    return table


def as_csv(study: Study, data: Answers) -> str:
    """Answers as CSV; text that a spreadsheet would take for a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows(study, data):
        writer.writerow({key: _safe(value) for key, value in row.items()})
    return text.getvalue()


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def as_json(study: Study, data: Answers) -> str:
    """Visitors and answers as one JSON object."""
    table = {
        "kind": study.config.kind,
        "title": study.config.texts.title,
        "systems": list(study.materials.systems),
        "deleted": data.deleted,
        "visitors": [
            asdict(v) | {"started": iso(v.started), "finished": iso(v.finished) or None}
            for v in data.visitors
        ],
        "answers": rows(study, data),
    }
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"
