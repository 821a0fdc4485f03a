"""Image files as pixels of a declared size: grey, or in colours for a pretrained model."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ...crypto.errors import CorruptError
from .absent import absent

MAX_PIXELS = 64_000_000  # a small file can unfold to many gigabytes
MAX_FILE = 256 << 20  # bytes
SQUEEZED = 1.25  # the longer side by the shorter one: above it a person sees that the picture is distorted


def read_image(path: Path, size: int) -> tuple[npt.NDArray[np.float64], bool]:
    """Return grey values [size · size] in [0, 255], row by row, each the mean of the area that it covers.

    And whether that squeezes the picture: its sides are too different. A transparent image lies on white; a photograph
    is turned upright. Raises CorruptError (no file, not PNG or JPEG, damaged, too large) without the file's name, which
    may be a student's: the caller names the cell.
    """
    grey = _opened(path, _grey)
    resized = grey.resize((size, size), Image.Resampling.BOX)
    return np.asarray(resized, dtype=np.float64).reshape(-1), max(grey.size) > SQUEEZED * min(grey.size)


def read_colours(path: Path, size: int) -> npt.NDArray[np.float32]:
    """Return red, green and blue [3, size, size] in [0, 1]; else as `read_image`, with its errors."""
    colours = _opened(path, _colours)
    return scaled(np.asarray(colours, dtype=np.float32).transpose(2, 0, 1) / np.float32(255.0), size)


def scaled(planes: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Return planes [c, h, w] as [c, size, size]: interpolated, and averaged where they shrink."""
    shape = (size, size)
    parts = [Image.fromarray(plane).resize(shape, Image.Resampling.BILINEAR) for plane in planes]
    return np.stack([np.asarray(part, dtype=np.float32) for part in parts])


def _opened(path: Path, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    if not path.is_file():
        raise absent(path)
    if path.stat().st_size > MAX_FILE:
        raise CorruptError(f"the file has more than {MAX_FILE >> 20} MiB", "Scale it down.")
    try:
        with warnings.catch_warnings(), Image.open(path, formats=("PNG", "JPEG")) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if image.width * image.height > MAX_PIXELS:
                what = f"the image has {image.width} × {image.height} pixels, more than {MAX_PIXELS}"
                raise CorruptError(what, "Scale it down.")
            return convert(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        advice = "Export it again, as PNG or JPEG."
        raise CorruptError("the file is no PNG or JPEG, or is damaged", advice) from None


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit: conversion would cut off, not scale
        return Image.fromarray(np.asarray(image).astype(np.float32) / np.float32(257.0))
    if image.has_transparency_data:
        return _on_white(image).convert("L")
    return image.convert("L")


def _colours(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _grey(image).convert("L").convert("RGB")
    if image.has_transparency_data:
        return _on_white(image).convert("RGB")
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
