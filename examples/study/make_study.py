"""A survey that people can answer: a still head against a head that moves.

    python examples/study/make_study.py my-study [PHOTO ...]
    stillspeak study serve my-study/study

The demo's portrait, or each photo, says both halves of the demo's sentence with three seeds, once
with head motion and once without; all else is the same. Then raters who do not exist answer, so
that there is a report to look at: my-study/simulated-report/index.html. Their answers mean nothing
and are not those of the study.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

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
HALVES = ((0.0, 3.5), (3.5, 7.0))  # seconds, cut in a pause
SEEDS = (0, 1, 2)
SYSTEMS = {"living": 1.0, "still": 0.0}  # head motion
SIZE = 512


def main(folder: Path, photos: list[Any]) -> None:
    speech = load_audio(Path(str(files("stillspeak"))) / "resources" / "speech.flac")
    with Animator() as animator:
        for system, head_motion in SYSTEMS.items():
            (folder / system).mkdir(parents=True)
            for face, photo in enumerate(photos):
                for seed in SEEDS:
                    for half, (start, end) in enumerate(HALVES):
                        piece = speech[round(start * RATE) : round(end * RATE)]
                        animation = animator.animate(
                            photo, (piece, RATE), size=SIZE, seed=seed, head_motion=head_motion
                        )
                        animation.save(folder / system / f"{face}-{seed}-{half}.mp4")

    init_study(folder / "study", "preference", [folder / system for system in SYSTEMS])

    # In place of people: they prefer the living one three times in four.
    study = Study.load(folder / "study")
    database = sqlite_url(folder / "study" / "simulated.db")
    with AnswerStore(study, database, durable=False) as store:
        simulate(study, store, raters=20, truth=Truth(share=0.75))
    report = write_report(study.folder, folder / "simulated-report", database=database)
    print(f"an example of a report, on answers of 20 raters who do not exist: {report.page}")


if __name__ == "__main__":
    name, *given = sys.argv[1:] or ["my-study"]
    main(Path(name), given or [astronaut()])
