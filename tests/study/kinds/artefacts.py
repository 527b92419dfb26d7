"""Artefacts: does the viewer see anything wrong?"""

from __future__ import annotations

import random
from collections.abc import Sequence

from stillspeak.study import statistics as st
from stillspeak.study.answers import Choice
from stillspeak.study.config import Question
from stillspeak.study.kinds import Rater, Result, Study, StudyKind
from stillspeak.study.materials import Video
from stillspeak.study.records import Answer, Trial
from stillspeak.study.section import ReportBuilder, percent, share_head, share_overview, share_row


class Artefacts(StudyKind):
    name = "artefacts"
    summary = "Visible artefacts: yes or no"
    title = "Do you see anything wrong?"
    intro = "You will see {count} short videos. Say of each whether anything in it looks wrong."
    questions = {"wrong": "Does anything in this video look wrong?"}  # noqa: RUF012
    labels = ("Yes", "No")

    def catch_trial(self, study: Study, video: Video, chance: random.Random) -> Trial:
        return Trial("catch", video.id, expected="yes")

    def form(self, study: Study, question: Question) -> Choice:
        return Choice(("yes", "no"), question.labels)

    def simulate(self, rater: Rater, trial: Trial) -> str:
        return "yes" if trial.expected or rater.chance.random() < rater.share else "no"

    def analyse(self, study: Study, answers: Sequence[Answer]) -> Result:
        seen = [
            (study.video_of[a.trial.first].system, a.session, a.values["wrong"] == "yes")
            for a in answers
            if a.trial.role == "main"
        ]
        systems = []
        for system in study.materials.systems:
            groups = st.tally((rater, yes) for s, rater, yes in seen if s == system).values()
            systems.append({"system": system, **st.share(groups, study.config.analysis.level)})
        return {"systems": systems}

    def report(self, study: Study, results: Result, report: ReportBuilder) -> None:
        systems = results["main"]["systems"]
        report.headline += [f"{s['system']}: {percent(s['share'])} look wrong." for s in systems]
        report.section("Artefacts").table(
            "Videos that look wrong",
            ["system", *share_head(report.level)],
            [[s["system"], *share_row(s)] for s in systems],
        )

    def overview(self, main: Result) -> list[tuple[str, ...]]:
        return [share_overview(s["system"], s) for s in main["systems"]]


KIND = Artefacts()
