"""Put a run's weights into the catalogue, with their scores written inside.

    python scripts/release_weights.py runs/x/last.safetensors --name temporal \
        --summary "the paper's temporal GAN" --data "..." --scores scores.json [--default]

The default model goes into the package, others into weights/, where a former default moves; with
--scorer a network that measures goes into the package, with --refiner or --motion the one that
corrects drawn mouths or moves heads, which are in no catalogue. The default model is one file: a
run of configs/pose.toml writes its speech encoder with it, and how that was made. Weights that a
run started from and that are not released themselves tell their own making with --ancestor. Tensors
are left as they are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from stillspeak.evaluation.measures.lipreading import load_lip_reader
from stillspeak.evaluation.measures.sync import load_sync_scorer
from stillspeak.motion.process import load_motion
from stillspeak.rendering.refine import load_refiner
from stillspeak.weights import file_sha256, load_model, read_info

ROOT = Path(__file__).resolve().parents[1]
RESOURCES = ROOT / "src" / "stillspeak" / "resources" / "weights"


def main() -> None:
    """Copy, annotate, register, and load once to be sure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--summary", required=True)
    parser.add_argument("--data", required=True, help="what it was trained on, with licence")
    parser.add_argument("--scores", type=Path, required=True, help="JSON of the benchmark")
    parser.add_argument("--ancestor", type=Path, nargs="*", default=[], help="what it started from")
    parser.add_argument("--default", action="store_true")
    parser.add_argument("--scorer", action="store_true", help="a network that measures")
    parser.add_argument("--refiner", action="store_true", help="the one of drawn mouths")
    parser.add_argument("--motion", action="store_true", help="the one that moves heads")
    arguments = parser.parse_args()

    with safe_open(arguments.weights, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    info = json.loads(metadata["info"])
    info["name"] = arguments.name
    info["licence"] = "MIT"
    info["data"] = arguments.data
    scores = json.loads(arguments.scores.read_text("utf-8"))
    resource = arguments.refiner or arguments.motion
    info["scores"] = scores if arguments.scorer or resource else scores["median"]
    info["ancestors"] = [_making(path) for path in arguments.ancestor]
    # Commands name the checkout's folder where they were given from elsewhere.
    metadata["info"] = json.dumps(info).replace(f"{ROOT}/", "")

    if resource:
        name = "mouth_refiner" if arguments.refiner else "motion"
        path = RESOURCES.parent / f"{name}.safetensors"
        save_file(tensors, path, metadata)
        path.chmod(0o644)
        (load_refiner if arguments.refiner else load_motion)(path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 2**20:.1f} MiB, loads and answers")
        return
    inside = arguments.default or arguments.scorer
    folder = RESOURCES if inside else ROOT / "weights"
    folder.mkdir(exist_ok=True)
    path = folder / f"{arguments.name}.safetensors"
    save_file(tensors, path, metadata)
    path.chmod(0o644)

    table_path = RESOURCES / "catalogue.json"
    table = json.loads(table_path.read_text("utf-8"))
    table["scorers" if arguments.scorer else "models"][arguments.name] = {
        "file": path.name,
        "sha256": file_sha256(path),
        "summary": arguments.summary,
    }
    if arguments.default:
        former = table["models"].get(table["default"])
        if former and table["default"] != arguments.name:
            (RESOURCES / former["file"]).rename(ROOT / "weights" / former["file"])
        table["default"] = arguments.name
    table_path.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    if arguments.scorer:
        {"lipnet": load_lip_reader, "sync": load_sync_scorer}[arguments.name]()
    else:
        load_model(arguments.name)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 2**20:.1f} MiB, loads and answers")


def _making(path: Path) -> dict[str, Any]:
    """How weights were made that are not released themselves."""
    info = read_info(path)["info"]
    told = ("command", "steps", "seconds", "precision", "history", "run", "versions")
    return {
        "file": path.name,
        "sha256": file_sha256(path),
        **{name: info[name] for name in told if name in info},
    }


if __name__ == "__main__":
    main()
