"""Makes samples of pictures."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from seatkeeper.artifacts.errors import SamplesDamaged
from seatkeeper.artifacts.precision import ImageInput
from seatkeeper.builder.conversion.libraries import pillow

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""What is read: Pillow's readers of other formats are less tried on what strangers send."""
PIXELS_MAX = 1 << 26
"""Most pixels of one picture, before it is resized."""


def picture(content: bytes, name: str, images: ImageInput) -> npt.NDArray[np.float32]:
    """Return the sample that a picture makes: 1 x channels x height x width, or as the layout says.

    Raises ``SamplesDamaged``, naming the file, for what is no picture, and ``BackendMissing`` where
    there is no library to read it.
    """
    library = pillow()
    try:
        with library.open(io.BytesIO(content), formats=FORMATS) as opened:
            if (pixels_there := opened.width * opened.height) > PIXELS_MAX:
                raise SamplesDamaged(
                    f"picture {name[:100]!r} has {pixels_there} pixels, over {PIXELS_MAX}"
                )
            resized = opened.convert("L" if images.order == "grey" else "RGB").resize(
                (images.width, images.height), library.Resampling.BILINEAR
            )
            pixels = np.asarray(resized, np.float32)
    except (OSError, ValueError, SyntaxError, library.DecompressionBombError) as error:
        raise SamplesDamaged(
            f"{name[:100]!r} is no picture that can be read: {error}"
        ) from error
    pixels = pixels.reshape(images.height, images.width, images.channels)
    if images.order == "bgr":
        pixels = pixels[:, :, ::-1]
    mean, std = (np.array(each, np.float32) for each in (images.mean, images.std))
    scaled = (pixels / 255 - mean) / std
    ordered = scaled.transpose(2, 0, 1) if images.layout == "nchw" else scaled
    return np.ascontiguousarray(ordered[np.newaxis], np.float32)
