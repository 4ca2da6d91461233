"""Samples for the models of the list: real ones where packages have them, made ones where not.

Each maker returns an array for each input, the samples along its first dimension. The same count
gives the same samples on every machine with the same Python.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from bench.models.fetch import File, fetched

Floats = npt.NDArray[np.float32]
Arrays = Mapping[str, npt.NDArray[np.generic]]

SEED = 20261129
_SCIKIT = "scikit-image==0.26.0"
PICTURES = tuple(
    File(_SCIKIT, f"skimage/data/{name}.png", sha256)
    for name, sha256 in (
        ("page", "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3"),
        ("text", "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1"),
        ("astronaut", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
        ("chelsea", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
        ("coffee", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
        ("camera", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
        ("motorcycle_left", "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179"),
    )
)
_PAGES, _PHOTOGRAPHS = PICTURES[:2], PICTURES[2:]
_FONTS = (
    "DejaVuSans",
    "DejaVuSerif",
    "DejaVuSansMono",
    "DejaVuSans-Bold",
    "DejaVuSerif-Italic",
)
_WORDS = (
    *("seat", "grant", "Lease 42", "queue", "Invoice No. 7731", "TOTAL", "due 2026-11-29"),
    *(
        "engine",
        "build",
        "FENCE",
        "node-3",
        "1,024",
        "98.6 %",
        "holder",
        "Platform",
        "EUR 17.50",
    ),
)
MAGIKA_BYTES = 1024
MAGIKA_PADDING = 256
RATE = 16_000


def photographs(folder: Path, count: int) -> Arrays:
    """Cuts of photographs, 320 x 320, red first, from 0 to 1."""
    return {"images": np.stack([_tensor(cut) for cut in _cuts(folder, _PHOTOGRAPHS, count)])}


def pages(folder: Path, count: int) -> Arrays:
    """Cuts of scanned pages and of photographs with lines of text on them, from -1 to 1."""
    random = np.random.default_rng(SEED)
    cuts = []
    for number, cut in enumerate(_cuts(folder, (*_PAGES, *_PHOTOGRAPHS), count)):
        if number % 2:
            drawing = ImageDraw.Draw(cut)
            for _ in range(4):
                left, top = (int(each) for each in random.integers(0, 220, 2))
                colour = tuple(int(each) for each in random.integers(0, 255, 3))
                drawing.text((left, top), _words(random), colour, _font(random, 20))
        cuts.append(2 * _tensor(cut) - 1)
    return {"x": np.stack(cuts)}


def lines(_folder: Path, count: int, width: int = 320) -> Arrays:
    """Lines of text, 48 pixels high, from -1 to 1, with a little noise."""
    random = np.random.default_rng(SEED)
    made = []
    for _ in range(count):
        paper = tuple(int(each) for each in random.integers(200, 256, 3))
        image = Image.new("RGB", (width, 48), paper)
        ImageDraw.Draw(image).text((4, 6), _words(random), (10, 10, 30), _font(random, 30))
        noise = random.normal(0, 0.02, (1, 3, 48, width))
        made.append((2 * _tensor(image) - 1 + noise).clip(-1, 1).astype(np.float32))
    return {"x": np.stack(made)}


def short_lines(folder: Path, count: int) -> Arrays:
    """Lines of text, 192 pixels wide."""
    return lines(folder, count, 192)


def files(_folder: Path, count: int) -> Arrays:
    """Begin and end of files of this Python: sources, libraries, data."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size)
    by_kind: dict[str, list[Path]] = {}
    for path in found:
        by_kind.setdefault(path.suffix, []).append(path)
    kinds = sorted(by_kind, key=lambda kind: (-len(by_kind[kind]), kind))[:20]
    chosen = [
        by_kind[kind][n] for n in range(count) for kind in kinds if n < len(by_kind[kind])
    ]
    return {
        "bytes": np.stack([_ends(path.read_bytes()) for path in chosen[:count]])[:, np.newaxis]
    }


def voice(_folder: Path, count: int) -> Arrays:
    """Sounds of 36 ms at 16 kHz, and the state of a beginning."""
    random = np.random.default_rng(SEED)
    times = np.arange(576) / RATE
    sounds = []
    for number in range(count):
        pitch, loudness = random.uniform(90, 250), random.uniform(0.02, 0.5)
        formants = random.uniform((300, 900), (800, 2500))
        sound = np.zeros(576)
        for harmonic in range(1, 30):
            tone = harmonic * pitch
            gain = sum(np.exp(-(((tone - f) / 150) ** 2)) for f in formants) + 0.02
            sound += gain * np.sin(2 * np.pi * tone * times + random.uniform(0, 6))
        kind = number % 4  # two of four have a voice, one is silent, one is noise
        voiced = loudness * sound / np.abs(sound).max() if kind < 2 else 0.0
        sounds.append(voiced + random.normal(0, (0.005, 0.01, 0.001, 0.1)[kind], 576))
    state = np.zeros((count, 2, 1, 128), np.float32)
    return {"input": np.stack(sounds).astype(np.float32)[:, np.newaxis], "state": state}


def _cuts(folder: Path, pictures: tuple[File, ...], count: int) -> Iterator[Image.Image]:
    random = np.random.default_rng(SEED)
    opened = [Image.open(fetched(file, folder)).convert("RGB") for file in pictures]
    for number in range(count):
        picture = opened[number % len(opened)]
        side = int(random.integers(min(picture.size) // 2, min(picture.size) + 1))
        left = int(random.integers(0, picture.width - side + 1))
        top = int(random.integers(0, picture.height - side + 1))
        yield picture.resize(
            (320, 320), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
        )


def _tensor(image: Image.Image) -> Floats:
    pixels = np.asarray(image, np.float32) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[np.newaxis])


def _words(random: np.random.Generator) -> str:
    return " ".join(random.choice(_WORDS, int(random.integers(1, 4))))


def _font(random: np.random.Generator, size: int) -> ImageFont.FreeTypeFont:
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / f"{random.choice(_FONTS)}.ttf"), size)


def _ends(content: bytes) -> npt.NDArray[np.int32]:
    row = np.full(2 * MAGIKA_BYTES, MAGIKA_PADDING, np.int32)
    begin, end = content.lstrip()[:MAGIKA_BYTES], content.rstrip()[-MAGIKA_BYTES:]
    row[: len(begin)] = np.frombuffer(begin, np.uint8)
    if end:
        row[-len(end) :] = np.frombuffer(end, np.uint8)
    return row
