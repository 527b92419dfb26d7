"""Fuzzes one kind of input: image, audio, weights, cache, configuration or study.

    python scripts/fuzz.py image --cases 10000             # by chance; --seed S for another one
    python scripts/fuzz.py image --cases 100000 --guided   # guided by coverage, with atheris

Both try what the tests in tests/fuzz try, and hold it to the same contract: tests/support/fuzz.py
says which. By chance, findings are collected, one a place in the code; atheris stops at the first
one and leaves the case in the working folder. Exit code 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

PACKAGES = ["stillspeak"]
"""What atheris watches the coverage of."""


def by_chance(name: str, cases: int, seed: int, keep: Path | None) -> int:
    """Try cases and say what was found. Returns the number of findings."""
    from support.fuzz import FindingError, check, place_of, plain_case
    from support.fuzz_targets import targets

    target = targets()[name]
    target.seeds  # noqa: B018 - not to be timed
    chance = random.Random(seed)
    found: dict[str, tuple[int, str]] = {}
    began = time.perf_counter()
    for number in range(cases):
        case = plain_case(target, chance)
        if keep is not None:
            (keep / f"{name}.last").write_bytes(case)  # for what ends the process
        try:
            check(target, case)
        except FindingError as error:
            place = place_of(error)
            form = target.forms[case[0] % len(target.forms)].name
            if f"{form}: {place}" not in found and keep is not None:
                (keep / f"{name}-{len(found)}.case").write_bytes(case)
            count, text = found.get(f"{form}: {place}", (0, str(error)))
            found[f"{form}: {place}"] = (count + 1, text)
        if (number + 1) % 5000 == 0:
            print(f"{number + 1} cases, {len(found)} findings", file=sys.stderr)
    print(
        json.dumps(
            {
                "target": name,
                "cases": target.cases,
                "seed": seed,
                "seconds": round(time.perf_counter() - began, 1),
                "worked": target.worked,
                "refused": dict(target.refused),
                "slowest_seconds": round(target.slowest, 2),
                "largest_growth_mib": round(target.growth / 2**20),
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "findings": len(found),
            }
        )
    )
    for place, (count, text) in found.items():
        print(f"{count} x {place}\n    {text[:300]!r}")
    return len(found)


def guided(
    name: str, cases: int, seed: int, seconds: int, corpus: Path | None, keep: Path | None
) -> None:
    """Hand over to atheris, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=PACKAGES, enable_loader_override=False):
        from support.fuzz import SECONDS, check, damage
        from support.fuzz_targets import targets
    target = targets()[name]
    target.seeds  # noqa: B018 - good inputs, made before the coverage is counted

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        """Damage to the structure half of the time, libFuzzer's own otherwise."""
        chance = random.Random(seed)
        if chance.random() < 0.15 or not data:
            number = chance.randrange(len(target.forms))
            return (bytes([number]) + chance.choice(target.seeds[number]))[:most]
        if chance.random() < 0.4:
            return bytes(atheris.Mutate(data, most))
        number = data[0] % len(target.forms)
        content = damage(data[1:], chance, target.forms[number], target.seeds[number])
        return (data[:1] + content)[:most]

    def report() -> None:
        print(
            json.dumps(
                {
                    "target": name,
                    "guided_cases": target.cases,
                    "worked": target.worked,
                    "slowest_seconds": round(target.slowest, 2),
                    "largest_growth_mib": round(target.growth / 2**20),
                }
            ),
            flush=True,
        )

    def one(data: bytes) -> None:
        if keep is not None:
            (keep / f"{name}.last").write_bytes(data)  # for what ends the process
        check(target, data)
        if target.cases % 1000 == 0:
            report()

    options = [
        f"-runs={cases}", f"-seed={seed}", f"-max_total_time={seconds}", "-max_len=60000",
        f"-timeout={2 * SECONDS:.0f}", "-rss_limit_mb=0", "-len_control=0", "-verbosity=0",
        "-print_final_stats=1",
    ]  # fmt: skip
    folders = [str(corpus)] if corpus else []
    atheris.Setup([sys.argv[0], *options, *folders], one, custom_mutator=mutated)
    atheris.Fuzz()


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "target", choices=["image", "audio", "weights", "cache", "configuration", "study"]
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true", help="by coverage, with atheris")
    parser.add_argument("--seconds", type=int, default=0, help="at most so many, with --guided")
    parser.add_argument("--corpus", type=Path, help="keeps what --guided found worth keeping")
    parser.add_argument("--keep", type=Path, help="folder for the cases behind findings")
    given = parser.parse_args()
    faulthandler.enable()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if given.guided:
        guided(given.target, given.cases, given.seed, given.seconds, given.corpus, given.keep)
    else:
        sys.exit(bool(by_chance(given.target, given.cases, given.seed, given.keep)))


if __name__ == "__main__":
    main()
