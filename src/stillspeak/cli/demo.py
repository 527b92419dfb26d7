"""``stillspeak demo``: the bundled example."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from stillspeak.cli.common import Device, Model, Overwrite, Quiet, save


def demo(
    output: Annotated[Path, "-o", "--output", "Where to write it."] = Path("demo.mp4"),
    model: Model = "default",
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Make the bundled example speak: a public-domain portrait and a bundled sentence."""
    from importlib.resources import files

    from skimage.data import astronaut

    from stillspeak.animate import Animator
    from stillspeak.media.video_writer import check_output

    check_output(output, overwrite=overwrite)
    speech = Path(str(files("stillspeak"))) / "resources" / "speech.flac"
    with Animator(model, device=device) as animator:
        animation = animator.animate(astronaut(), speech)  # type: ignore[no-untyped-call]
        save(animation, output, overwrite=overwrite, quiet=quiet)
    if not quiet:
        print(output.resolve())
