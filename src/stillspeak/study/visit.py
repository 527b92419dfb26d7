"""What one visitor's page is told and may do, without the web around it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stillspeak.study.kinds import Study
from stillspeak.study.materials import Video
from stillspeak.study.records import FIRST, SECOND, StoredTrial
from stillspeak.study.store import AnswerStore, shown_code

_WATCH_SLACK = 0.8
"""A video counts as watched after this share of its length; clocks and decoders differ."""


class RefusedError(Exception):
    """A request that is answered with one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def settings(study: Study) -> dict[str, Any]:
    """What the page needs for every trial."""
    playback = study.config.playback
    return {
        "questions": [
            {"id": q.id, "text": q.text, **study.forms[q.id].page()} for q in study.config.questions
        ],
        "captions": list(study.kind.captions(study)),
        "mustWatch": playback.must_watch,
        "maxPlays": playback.max_plays,
        "together": playback.together,
        "sound": playback.sound and not study.kind.silent,
    }


@dataclass(frozen=True)
class Visit:
    """A session and what belongs to it. ``code``: as the visitor's cookie holds it."""

    study: Study
    store: AnswerStore
    session: int
    code: str

    def state(self) -> dict[str, Any]:
        """What the page needs to show what comes next."""
        trials = self.store.trials(self.session)
        todo = [t for t in trials if not t.answered]
        state: dict[str, Any] = {"code": shown_code(self.code), "total": len(trials)}
        if not todo:
            answers = self.store.answers(self.session)
            return state | {"phase": "done", "score": self.study.kind.score(self.study, answers)}
        state |= {"phase": "trial", "trial": self._trial(todo[0])}
        if len(todo) > 1:  # so that the next videos can load meanwhile
            state["next"] = [file["url"] for file in self._files(todo[1])]
        return state

    def _files(self, stored: StoredTrial) -> list[dict[str, Any]]:
        return [
            {"url": f"video/{token}", "width": v.width, "height": v.height, "seconds": v.seconds}
            for token, v in self._videos(stored)
        ]

    def _videos(self, stored: StoredTrial) -> Iterator[tuple[str, Video]]:
        """The videos of a trial by the names that the page knows."""
        for side, name in zip((FIRST, SECOND), stored.trial.videos, strict=False):
            token = self.store.token(self.session, stored.position, side)
            yield token, self.study.video_of[name]

    def _trial(self, stored: StoredTrial) -> dict[str, Any]:
        instead = self.study.kind.instead(self.study, stored.trial)
        return {
            "position": stored.position,
            "training": stored.trial.role == "training",
            "videos": self._files(stored),
            "plays": stored.plays,
            "watched": stored.watched > 0 or not self.study.config.playback.must_watch,
        } | ({"instead": instead} if instead and stored.trial.role == "catch" else {})

    def _stored(self, body: dict[str, Any]) -> tuple[StoredTrial, list[StoredTrial]]:
        """The trial that a request is about, and all of them."""
        position = body.get("position")
        trials = self.store.trials(self.session)
        if type(position) is not int or not 1 <= position <= len(trials):
            raise RefusedError(422, "There is no such trial.")
        return trials[position - 1], trials

    def played(self, body: dict[str, Any]) -> dict[str, Any]:
        stored, _ = self._stored(body)
        most = self.study.config.playback.max_plays
        if not stored.answered and not self.store.played(stored, most=most):
            raise RefusedError(409, "This video cannot be played more often.")
        return {"plays": stored.plays + 1}

    def watched(self, body: dict[str, Any]) -> dict[str, Any]:
        stored, _ = self._stored(body)
        if not stored.answered:
            lengths = [self.study.video_of[name].seconds for name in stored.trial.videos]
            length = max(lengths) if self.study.config.playback.together else sum(lengths)
            begun = stored.first_played
            if begun is None or time.time() - begun < _WATCH_SLACK * length:
                raise RefusedError(409, "The videos were not played to their end.")
            self.store.watched(stored)
        return {"watched": True}

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        stored, trials = self._stored(body)
        config = self.study.config
        took = body.get("responseMs")
        if type(took) is not int or not 0 <= took <= 86_400_000:
            raise RefusedError(422, "The response time is missing.")
        try:
            values = self.study.checked(body.get("answers"))
        except ValueError as error:
            raise RefusedError(422, f"The answer cannot be stored: {error}.") from None
        waiting = [t.position for t in trials if not t.answered]
        new = False
        if not stored.answered:
            if stored.position != waiting[0]:
                raise RefusedError(409, "An earlier trial has no answer yet.")
            if config.playback.must_watch and not stored.watched:
                raise RefusedError(409, "Please watch the videos to their end first.")
            try:
                last = len(waiting) == 1
                new = self.store.answer(self.session, stored, values, took, last=last)
            except LookupError:
                raise RefusedError(401, "Your answers were deleted.") from None
        said = ""
        if stored.trial.role == "training" and config.trials.feedback:
            value = values[config.questions[0].id]
            said = self.study.kind.feedback(self.study, stored.trial, value)
        return {"stored": True, "again": not new, "feedback": said, "state": self.state()}

    def video(self, token: str) -> Video:
        """The video behind a name; only of trials so far, and the next one."""
        ahead = 0
        for stored in self.store.trials(self.session):
            ahead += not stored.answered
            videos = dict(self._videos(stored))
            if ahead <= 2 and token in videos:
                return videos[token]
        raise RefusedError(404, "There is no such video.")
