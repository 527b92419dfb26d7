"""A tiny preference survey from what comes with stillspeak: with blinks and without.

    python examples/study/make_study.py my-study
    stillspeak study serve my-study/study

The demo's portrait says three pieces of the demo's sentence, once with blinks, brows and small
movements of the head, once with the lips alone. Then raters who do not exist answer, so that
there is a report to look at: my-study/report/index.html.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from skimage.data import astronaut

from stillspeak import Animator
from stillspeak.media.audio import load_audio
from stillspeak.study.kinds import Study
from stillspeak.study.records import Truth
from stillspeak.study.report import write_report
from stillspeak.study.simulate import simulate
from stillspeak.study.store import AnswerStore, sqlite_url
from stillspeak.study.videos import init_study

RATE = 16_000
PIECES = ((0.0, 0.8), (0.8, 1.6), (1.6, 2.4))  # seconds
SYSTEMS = {
    "lively": {"blink": 1.0, "expression": 1.0, "head_motion": 1.0},
    "lips": {"blink": 0.0, "expression": 0.0, "head_motion": 0.0},
}


def main(folder: Path) -> None:
    speech = load_audio(Path(str(files("stillspeak"))) / "resources" / "speech.flac")
    portrait = astronaut()
    with Animator() as animator:
        for system, strengths in SYSTEMS.items():
            (folder / system).mkdir(parents=True)
            for number, (start, end) in enumerate(PIECES):
                piece = speech[round(start * RATE) : round(end * RATE)]
                animation = animator.animate(portrait, (piece, RATE), crop=True, **strengths)
                animation.save(folder / system / f"piece{number}.mp4")

    init_study(folder / "study", "preference", [folder / system for system in SYSTEMS])

    # In place of people: they prefer the lively one three times in four.
    study = Study.load(folder / "study")
    database = sqlite_url(folder / "study" / "simulated.db")
    with AnswerStore(study, database, durable=False) as store:
        simulate(study, store, raters=20, truth=Truth(share=0.75))
    report = write_report(study.folder, folder / "report", database=database)
    print(*report.headline, report.page, sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "my-study"))
