"""Image files as grey pixels of a declared size."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ...crypto.errors import CorruptError

MAX_PIXELS = 100_000_000  # a small file can unfold to many gigabytes


def read_image(path: Path, size: int, where: str) -> npt.NDArray[np.float64]:
    """Return grey values [size · size] in [0, 255], row by row, each the mean of the area that it covers.

    A transparent image lies on white; a photograph is turned upright. Raises CorruptError (no file, not PNG
    or JPEG, damaged, too large), naming the file and `where`.
    """
    place = f"{where}: {path}"
    if not path.is_file():
        raise CorruptError(f"{place} does not exist", "Put the file there, correct the path, or empty the cell.")
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise CorruptError(f"{place} has {image.width} × {image.height} pixels", "Scale it down.")
            grey = _grey(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise CorruptError(f"{place} cannot be read: {error}", "Export it again, as PNG or JPEG.") from error
    resized = grey.resize((size, size), Image.Resampling.BOX)
    return np.asarray(resized, dtype=np.float64).reshape(-1)


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit: conversion would cut off, not scale
        return Image.fromarray((np.asarray(image).astype(np.float64) / 257.0).astype(np.float32))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("L")
    return image.convert("L")
