"""Draws docs/figures: the architecture, from the networks themselves.

    python scripts/figures.py            # writes the pictures
    python scripts/figures.py --check    # says which of them are not those of the code, exit code 1

Every size comes from a network that is built here (without memory, on PyTorch's meta device)
from the default model's own configuration or from ``configs/``, and every function named is
looked up. A test runs ``--check``, so a change of the architecture that leaves the figures behind
does not pass. The same code gives the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import torch
from torch import Tensor, nn

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.decoders import UNetDecoder
from stillspeak.models.discriminators import (
    FrameDiscriminator,
    SequenceDiscriminator,
    SyncDiscriminator,
)
from stillspeak.models.encoders import SpeechContextEncoder
from stillspeak.models.generator import Generator
from stillspeak.models.pose import POSE_NUMBERS
from stillspeak.models.regions import region_box
from stillspeak.models.speech import BANDS
from stillspeak.system.configuration import read_toml
from stillspeak.training.config import RunConfig, run_config
from stillspeak.weights import DEFAULT_MODEL, catalogue, load_model

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "figures"

INK, FAINT, PAPER = "#1f2933", "#7b8794", "#ffffff"
COLOURS = {
    "input": ("#fff4d6", "#b7791f"),
    "code": ("#e3f0ff", "#2b6cb0"),
    "decode": ("#e6f6ec", "#2f855a"),
    "discriminator": ("#fbe6ea", "#b83256"),
    "state": ("#efe8fb", "#6b46c1"),
    "plain": ("#f4f5f7", "#7b8794"),
}
"""Fill and outline of a kind of box."""


# --- drawing ----------------------------------------------------------------------------------


@dataclass
class Canvas:
    """An SVG picture that is put together piece by piece. Places are in pixels."""

    width: int
    height: int
    title: str
    parts: list[str] = field(default_factory=list)

    def box(
        self, x: int, y: int, width: int, height: int, lines: Sequence[str], kind: str = "plain"
    ) -> None:
        """A box with centred lines, the first one bold."""
        fill, outline = COLOURS[kind]
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" '
            f'stroke="{outline}" stroke-width="1.5"/>'
        )
        first = y + height / 2 - 8 * (len(lines) - 1) + 4.5
        for index, line in enumerate(lines):
            bold = index == 0 and len(lines) > 1
            self.text(x + width / 2, first + 16 * index, line, bold=bold)

    def text(
        self,
        x: float,
        y: float,
        line: str,
        *,
        anchor: str = "middle",
        bold: bool = False,
        size: int = 13,
        colour: str = INK,
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" '
            f'fill="{colour}"{weight}>{escape(line)}</text>'
        )

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> None:
        """A line through points with a head at its end."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        style = ' stroke-dasharray="5 4"' if dashed else ""
        colour = FAINT if dashed else INK
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{style} '
            f'marker-end="url(#head{"-faint" if dashed else ""})"/>'
        )

    def svg(self) -> str:
        heads = "".join(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{colour}"/></marker>'
            for name, colour in (("head", INK), ("head-faint", FAINT))
        )
        # A white ground, so that it reads on dark pages as well.
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" '
                f'height="{self.height}" viewBox="0 0 {self.width} {self.height}" role="img" '
                'font-family="system-ui, Helvetica, Arial, sans-serif">',
                f"<title>{escape(self.title)}</title>",
                f"<defs>{heads}</defs>",
                f'<rect width="{self.width}" height="{self.height}" rx="10" fill="{PAPER}"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


# --- reading the networks ---------------------------------------------------------------------


def default_config() -> GeneratorConfig:
    """The default model's, from inside its weights file."""
    return load_model(DEFAULT_MODEL, verify=False).config


def configured(name: str) -> RunConfig:
    """A file of configs/."""
    path = ROOT / "configs" / name
    return run_config(read_toml(path), name=name)


def on_meta(make: Callable[[], nn.Module]) -> Any:
    """A network without numbers: shapes alone."""
    with torch.device("meta"):
        return make().eval()


def shapes_in(network: nn.Module, run: Callable[[], object]) -> dict[str, tuple[int, ...]]:
    """The shape of what each module gave last while ``run`` ran, by its name."""
    seen: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: object, result: object) -> None:
            if isinstance(result, Tensor):
                seen[name] = tuple(result.shape)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in network.named_modules()]
    with torch.no_grad():
        run()
    for one in hooks:
        one.remove()
    return seen


def parameters(*modules: nn.Module) -> str:
    """How many numbers are learned, for people."""
    count = sum(p.numel() for module in modules for p in module.parameters())
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"


def area(shape: Sequence[int]) -> str:
    return f"{shape[-2]} x {shape[-1]}"


def named(*places: str) -> None:
    """Make sure that what a figure names exists.

    Raises:
        AttributeError, ImportError: it does not.
    """
    for place in places:
        module, _, name = place.rpartition(".")
        getattr(import_module(f"stillspeak.{module}"), name)


def traced(config: GeneratorConfig) -> tuple[Generator, dict[str, tuple[int, ...]]]:
    """A generator, and the shapes of everything while it makes one frame."""
    generator: Generator = on_meta(lambda: Generator(config))
    still = torch.empty(1, 3, config.height, config.width, device="meta")
    windows = torch.empty(1, 1, config.window, device="meta")
    noise = torch.empty(1, 1, config.noise_dim, device="meta")
    shapes = shapes_in(generator, lambda: generator(still, windows, noise))
    return generator, shapes


# --- the figures ------------------------------------------------------------------------------


def overview() -> Canvas:
    """The paper's Figure 1: two inputs, one output; as the steps of the main path."""
    config = default_config()
    named(
        "media.image.load_image",
        "face.landmarks.MediaPipeDetector",
        "face.align.crop_face",
        "media.audio.load_audio",
        "media.audio.frame_windows",
        "models.generator.Generator",
        "rendering.renderer.FaceRenderer",
        "rendering.mouth.MouthLayers",
        "media.video_writer.write_video",
    )
    picture = Canvas(940, 312, "From a still and a sound to a video: the modules on the way")
    top, bottom, tall = 36, 216, 72
    crop = f"{config.height} x {config.width} x 3"
    seconds = f"{config.window / config.sample_rate:.3g} s, {config.window:,} samples"
    rows: Iterable[tuple[int, list[tuple[str, list[str]]]]] = (
        (
            top,
            [
                ("input", ["still image", "any size", "media/image"]),
                ("code", ["face found", "478 points", "face/landmarks"]),
                ("code", ["aligned crop", crop, "face/align"]),
            ],
        ),
        (
            bottom,
            [
                ("input", ["speech", "any format", "media/audio"]),
                ("code", ["waveform", f"mono, {config.sample_rate:,} Hz", "media/audio"]),
                ("code", ["a window a frame", seconds, f"{config.fps} a second"]),
            ],
        ),
    )
    for y, row in rows:
        for index, (kind, lines) in enumerate(row):
            x = 24 + 176 * index
            picture.box(x, y, 152, tall, lines, kind)
            if index:
                picture.arrow((x - 24, y + tall / 2), (x, y + tall / 2))
        end = 24 + 176 * 2 + 152
        picture.arrow(
            (end, y + tall / 2),
            (end + 20, y + tall / 2),
            (end + 20, 162 + (-14 if y == top else 14)),
            (end + 42, 162 + (-14 if y == top else 14)),
        )
    picture.box(570, 120, 104, 84, ["Generator", "the mouth's", "pose", "models/"], "decode")
    picture.arrow((674, 162), (696, 162))
    picture.box(
        696, 120, 104, 84, ["lips, teeth", "and tongue in", "layers", "rendering/"], "decode"
    )
    picture.arrow((800, 162), (822, 162))
    picture.box(822, 120, 98, 84, ["video", "mp4, webm,", "gif, PNGs", "media/video"], "input")
    picture.arrow((100, top), (100, 18), (748, 18), (748, 120), dashed=True)
    picture.text(430, 13, "the photo itself, at its own resolution", size=11, colour=FAINT)
    return picture


def system() -> Canvas:
    """The paper's Figure 2: the generator and its discriminators."""
    run = configured("paper.toml")
    ours = configured("slim.toml")
    config = run.generator
    generator = on_meta(lambda: Generator(config))
    frame: FrameDiscriminator = on_meta(lambda: FrameDiscriminator(run.frame_discriminator, config))
    sequence: SequenceDiscriminator = on_meta(
        lambda: SequenceDiscriminator(run.sequence_discriminator, config)
    )
    sync: SyncDiscriminator = on_meta(
        lambda: SyncDiscriminator(ours.sync_discriminator, ours.generator)
    )
    first = next(m for m in frame.modules() if isinstance(m, nn.Conv2d))
    layers = sum(isinstance(m, nn.Conv2d) for m in frame.modules())
    picture = Canvas(900, 420, "Generator and discriminators")
    picture.box(24, 40, 130, 58, ["still", f"{config.height} x {config.width} x 3"], "input")
    picture.box(
        24, 180, 130, 58, ["audio windows", f"{config.window_seconds:g} s a frame"], "input"
    )
    picture.box(24, 320, 130, 58, ["Gaussian noise", f"{config.noise_dim} numbers"], "input")
    picture.box(
        214,
        150,
        150,
        118,
        [
            "Generator",
            f"identity {parameters(generator.identity_encoder)}",
            f"context {parameters(generator.context_encoder)}",
            f"noise {parameters(generator.noise_generator)}",
            f"decoder {parameters(generator.decoder)}",
        ],
        "decode",
    )
    picture.arrow((154, 69), (184, 69), (184, 180), (214, 180))
    picture.arrow((154, 209), (214, 209))
    picture.arrow((154, 349), (184, 349), (184, 240), (214, 240))
    picture.box(424, 150, 110, 58, ["generated", "frames"], "plain")
    picture.box(424, 320, 110, 58, ["real", "frames"], "plain")
    picture.arrow((364, 179), (424, 179))
    discriminators = (
        (
            40,
            [
                "Frame discriminator",
                f"{layers} layers, {parameters(frame)}",
                f"one frame and the still: {first.in_channels} channels",
                f"paper 2.2.1; {run.adversarial.frames} frames of a clip",
            ],
        ),
        (
            165,
            [
                "Sequence discriminator",
                f"{parameters(sequence)}, GRU of {sequence.gru.num_layers} layers",
                "all frames and their audio windows",
                "paper 2.2.2",
            ],
        ),
        (
            290,
            [
                "Sync discriminator",
                f"{parameters(sync)}",
                f"{sync.frames} frames ({sync.region}), "
                f"{sync.frames / ours.generator.fps:g} s of sound",
                "not in the paper",
            ],
        ),
    )
    for y, lines in discriminators:
        picture.box(604, y, 270, 88, lines, "discriminator")
        picture.arrow((534, 170), (564, 170), (564, y + 34), (604, y + 34))
        picture.arrow((534, 358), (580, 358), (580, y + 54), (604, y + 54))
    picture.arrow((154, 55), (604, 55), dashed=True)
    picture.text(390, 48, "the still as a condition", size=11, colour=FAINT)
    picture.arrow((100, 238), (100, 286), (548, 286), (548, 222), (604, 222), dashed=True)
    picture.arrow((548, 286), (548, 312), (604, 312), dashed=True)
    picture.text(330, 281, "the sound as a condition", size=11, colour=FAINT)
    picture.text(450, 408, "configs/paper.toml; the sync discriminator: configs/slim.toml", size=11)
    return picture


def generator_figure(config: GeneratorConfig, title: str, source: str) -> Canvas:
    """The paper's Figure 3a: encoder down, decoder up, codes from below."""
    generator, shapes = traced(config)
    levels = len(config.identity_channels)
    decoder = generator.decoder
    assert isinstance(decoder, UNetDecoder)
    picture = Canvas(940, 62 * (levels + 1) + 234, title)
    row = [52 + 62 * level for level in range(levels + 2)]

    picture.text(150, 24, f"Identity encoder, {parameters(generator.identity_encoder)}", bold=True)
    picture.text(520, 24, f"Frame decoder, {parameters(decoder)}", bold=True)
    picture.box(60, row[0] - 14, 180, 38, [f"still, {config.height} x {config.width} x 3"], "input")
    for level in range(levels):
        shape = shapes[f"identity_encoder.layers.{level}"]
        width = 170 - 18 * level
        y = row[level + 1] - 14
        picture.box(150 - width // 2, y, width, 34, [f"{area(shape)} x {shape[1]}"], "code")
        picture.arrow((150, row[level] + (24 if not level else 20)), (150, y))

    # What each level of the decoder gives, coarse to fine; skips come in at the fused levels.
    fused = len(decoder.fuse)
    fine_first = list(range(levels))
    for level in fine_first:
        coarse_index = levels - 1 - level
        name = f"decoder.up.{coarse_index - 1}.0" if coarse_index else "decoder.root.0"
        shape = shapes[name]
        width = 170 - 18 * level
        y = row[level + 1] - 14
        picture.box(520 - width // 2, y, width, 34, [f"{area(shape)} x {shape[1]}"], "decode")
        if level:
            picture.arrow((520, y), (520, row[level] + 20))
        if coarse_index < fused:
            left, right = 150 + width // 2, 520 - width // 2
            picture.arrow((left, y + 17), (right, y + 17), dashed=True)
    picture.text(335, row[1] - 26, "skip connections", size=11, colour=FAINT)

    head = shapes["decoder.head"]
    y = row[0] - 14
    picture.arrow((520, row[1] - 14), (520, y + 38))
    picture.box(435, y, 170, 38, [f"frame, {area(head)} x {head[1]}"], "input")

    # The codes.
    low = row[-1] + 10
    code = config.identity_dim
    picture.arrow((150, row[levels] + 20), (150, low - 18))
    picture.box(100, low - 18, 100, 40, ["z_id", f"{code} numbers"], "state")
    audio = generator.context_encoder.frame_encoder
    steps = " ".join(str(step) for step in config.audio_steps)
    widths = ", ".join(str(width) for width in config.audio_channels)
    base = low + 60
    picture.box(
        24,
        base,
        132,
        62,
        ["audio window", f"{config.window_seconds:g} s", f"{config.window:,} samples"],
        "input",
    )
    picture.box(
        180,
        base,
        260,
        62,
        [f"1-D convolutions, {parameters(audio)}", f"steps {steps}", f"channels {widths}"],
        "code",
    )
    picture.arrow((156, base + 31), (180, base + 31))
    gru = generator.context_encoder.gru
    assert gru is not None
    picture.box(
        464,
        base,
        130,
        62,
        [f"GRU, {gru.num_layers} layers", f"{gru.input_size} to {gru.hidden_size}"],
        "code",
    )
    picture.arrow((440, base + 31), (464, base + 31))
    picture.box(690, base - 10, 226, 36, [f"noise, std {config.noise_std:g}"], "input")
    noise = generator.noise_generator.gru
    assert noise is not None
    picture.box(690, base + 40, 226, 36, [f"GRU, {noise.num_layers} layer"], "code")
    picture.arrow((803, base + 26), (803, base + 40))

    picture.box(420, low - 18, 200, 40, ["latent", f"{config.latent_dim} numbers"], "state")
    picture.arrow((200, low + 2), (420, low + 2))
    picture.text(310, low - 4, f"z_id {code}", size=11, colour=FAINT)
    picture.arrow((529, base), (529, low + 22))
    picture.text(534, low + 44, f"z_c {config.context_dim}", anchor="start", size=11, colour=FAINT)
    picture.arrow((690, base + 58), (650, base + 58), (650, low + 2), (620, low + 2))
    picture.text(656, low + 30, f"z_n {config.noise_dim}", anchor="start", size=11, colour=FAINT)
    picture.arrow((520, low - 18), (520, row[levels] + 20))
    picture.text(470, base + 100, f"{source}; {parameters(generator)} parameters", size=11)
    return picture


def pose_figure(config: GeneratorConfig, title: str, source: str) -> Canvas:
    """The default model: what hears, what says the mouth's pose, and what draws it."""
    generator = on_meta(lambda: Generator(config))
    encoder = generator.context_encoder
    assert isinstance(encoder, SpeechContextEncoder)
    named("models.speech.LogMel", "rendering.mouth.MouthLayers", "face.mouth.POSE_POINTS")
    speech, pose = config.speech, config.pose
    layers = len(speech.ahead)
    picture = Canvas(940, 330, title)
    tall = 84
    top, bottom = 50, 190
    picture.text(24, 28, f"Speech encoder, {parameters(encoder.speech)}", anchor="start", bold=True)
    window = f"{config.window:,} samples a frame"
    later = (config.window - config.hop) / 2 / config.sample_rate * 1000
    ahead = " + ".join(str(20 * tokens) for tokens in speech.ahead)
    row: tuple[tuple[str, list[str]], ...] = (
        ("input", ["sound", window, f"{later:g} ms after it"]),
        ("code", ["log-mel spectra", f"{BANDS} bands, every 10 ms", "a level that falls"]),
        ("code", ["2 convolutions", f"{speech.width} wide", "a token every 20 ms"]),
        (
            "state",
            [f"{layers} attention layers", f"{20 * speech.behind} ms back,", f"{ahead} ms ahead"],
        ),
        ("code", ["features", f"{speech.width} a token", "2 tokens a frame"]),
    )
    for index, (kind, lines) in enumerate(row):
        x = 24 + 182 * index
        picture.box(x, top, 160, tall, lines, kind)
        if index:
            picture.arrow((x - 22, top + tall / 2), (x, top + tall / 2))
    last = 24 + 182 * 4 + 80
    picture.arrow((last, top + tall), (last, bottom))
    name = f"Pose predictor, {parameters(encoder.pose)}"
    picture.text(916, bottom + tall + 22, name, anchor="end", bold=True)
    back: tuple[tuple[str, list[str]], ...] = (
        ("state", ["GRU", f"{pose.hidden} numbers", "and a view beside it"]),
        ("code", ["pose", f"{pose.basis} directions,", f"{POSE_NUMBERS // 2} points"]),
        ("decode", ["mouth in layers", "lips, teeth, tongue", "no network"]),
        ("input", ["frame", "the photo's own", "pixels and size"]),
    )
    for index, (kind, lines) in enumerate(back):
        x = 24 + 182 * (4 - index)
        picture.box(x, bottom, 160, tall, lines, kind)
        if index:
            picture.arrow((x + 182, bottom + tall / 2), (x + 160, bottom + tall / 2))
    picture.box(24, bottom, 160, tall, ["still", "any size", "lips as they rest"], "input")
    x = 24 + 182 * 2 + 80
    y = bottom + tall
    picture.arrow((104, y), (104, y + 24), (x, y + 24), (x, y), dashed=True)
    picture.text(280, y + 42, "the rest pose, light and teeth of the still", size=11, colour=FAINT)
    picture.text(470, 320, source, size=11)
    return picture


def sequence_figure() -> Canvas:
    """The paper's Figure 3b: the sequence discriminator, unrolled."""
    run = configured("paper.toml")
    config = run.generator
    network: SequenceDiscriminator = on_meta(
        lambda: SequenceDiscriminator(run.sequence_discriminator, config)
    )
    frames = torch.empty(1, 2, 3, config.height, config.width, device="meta")
    windows = torch.empty(1, 2, config.window, device="meta")
    shapes = shapes_in(network, lambda: network(frames, windows))
    image, heard = shapes["image_head"], shapes["audio"]
    convs = sum(isinstance(m, nn.Conv2d) for m in network.layers) + 1
    waves = sum(isinstance(m, nn.Conv1d) for m in network.audio.modules())
    picture = Canvas(900, 440, "Sequence discriminator")
    top, bottom, left, right = region_box(network.region, config.height, config.width)
    left_of: list[int] = []
    for index, (x, moment) in enumerate(((40, "frame 1"), (290, "frame 2"), (580, "frame T"))):
        sizes = f"{bottom - top} x {right - left} x 3"
        picture.box(x, 366, 104, 48, [moment, sizes], "input")
        picture.box(x + 116, 366, 104, 48, ["its window", f"{config.window:,}"], "input")
        picture.box(x, 270, 104, 64, ["image CNN", f"{convs} layers", f"{image[1]}"], "code")
        picture.box(x + 116, 270, 104, 64, ["1-D CNN", f"{waves} layers", f"{heard[1]}"], "code")
        picture.arrow((x + 52, 366), (x + 52, 334))
        picture.arrow((x + 168, 366), (x + 168, 334))
        picture.arrow((x + 52, 270), (x + 52, 250), (x + 90, 250), (x + 90, 232))
        picture.arrow((x + 168, 270), (x + 168, 250), (x + 130, 250), (x + 130, 232))
        for layer in range(network.gru.num_layers):
            y = 196 - 66 * layer
            lines = [f"GRU, layer {layer + 1}: {network.gru.hidden_size}"]
            picture.box(x + 20, y, 180, 36, lines, "state")
            if layer:
                picture.arrow((x + 110, y + 66), (x + 110, y + 36))
            if index:
                picture.arrow((left_of[-1] + 200, y + 18), (x + 20, y + 18), dashed=index == 2)
        left_of.append(x)
    last = left_of[-1] + 110
    linear = [m for m in network.classifier if isinstance(m, nn.Linear)]
    sizes = " to ".join(str(m.in_features) for m in linear) + f" to {linear[-1].out_features}"
    picture.box(last - 100, 44, 200, 48, ["classifier, 2 layers", sizes], "discriminator")
    assert len(linear) == 2
    picture.arrow((last, 130), (last, 92))
    picture.arrow((last, 44), (last, 22))
    picture.text(last - 108, 30, "real, and its own sound?", anchor="end")
    picture.text(24, 30, f"{parameters(network)} parameters; configs/paper.toml", anchor="start")
    return picture


def figures() -> dict[str, str]:
    """Every figure's file name and content."""
    default = catalogue()[DEFAULT_MODEL].name
    assert (default_config().height, default_config().width) == (FRAME_HEIGHT, FRAME_WIDTH)
    return {
        "overview.svg": overview().svg(),
        "system.svg": system().svg(),
        "generator-paper.svg": generator_figure(
            configured("paper.toml").generator, "The paper's generator", "configs/paper.toml"
        ).svg(),
        "generator-default.svg": pose_figure(
            default_config(), "The default model", f"the released model {default}"
        ).svg(),
        "sequence-discriminator.svg": sequence_figure().svg(),
    }


def main() -> int:
    """Write the figures, or compare them with what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    stale = []
    for name, content in figures().items():
        path = arguments.folder / name
        if arguments.check:
            if not path.is_file() or path.read_text("utf-8") != content:
                stale.append(name)
            continue
        arguments.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
        print(path)
    for name in stale:
        print(f"{name}: not what the code is; run python scripts/figures.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
