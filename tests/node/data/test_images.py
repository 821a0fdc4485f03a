"""Image files: grey, resized by area, and refused when they are something else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collegium.crypto.errors import CorruptError
from collegium.node.data import images
from collegium.node.data.images import read_image


def test_a_pixel_is_the_mean_of_its_area(tmp_path: Path) -> None:
    pixels = np.array([[0, 100, 10, 10], [100, 200, 10, 10], [0, 0, 255, 255], [0, 0, 255, 255]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 2)[0].tolist() == [100, 10, 0, 255]


@pytest.mark.parametrize(
    ("mode", "colour", "grey"),
    [
        ("1", 1, 255),
        ("L", 77, 77),
        ("I;16", 65535, 255),
        ("RGB", (255, 0, 0), 76),
        ("RGBA", (0, 0, 0, 0), 255),  # transparent: the white below
        ("RGBA", (0, 0, 0, 255), 0),
        ("LA", (0, 0), 255),
    ],
)
def test_every_mode_becomes_grey(tmp_path: Path, mode: str, colour: int | tuple[int, ...], grey: int) -> None:
    Image.new(mode, (5, 3), colour).save(tmp_path / "a.png")
    assert np.allclose(read_image(tmp_path / "a.png", 4)[0], grey, atol=1)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    picture = Image.new("L", (64, 64), 0)
    picture.paste(255, (0, 0, 64, 32))  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    picture.save(tmp_path / "a.jpg", exif=exif)
    pixels, _ = read_image(tmp_path / "a.jpg", 2)
    assert (pixels[:2] < 10).all()
    assert (pixels[2:] > 245).all()


def test_bad_files_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(CorruptError, match="the file does not exist"):
        read_image(path, 4)
    Image.effect_noise((60, 60), 50).save(path)
    good = path.read_bytes()
    for bad in (b"", b"\x89PNG", good[: len(good) // 2], good[:40] + bytes(200) + good[240:], b"GIF89a" + bytes(50)):
        path.write_bytes(bad)
        with pytest.raises(CorruptError, match="no PNG or JPEG"):
            read_image(path, 4)
    path.write_bytes(good)
    monkeypatch.setattr(images, "MAX_PIXELS", 3599)
    with pytest.raises(CorruptError, match="60 × 60 pixels"):
        read_image(path, 4)


def test_who_is_far_from_square_is_squeezed(tmp_path: Path) -> None:
    for width, height, squeezed in ((40, 40, False), (45, 40, False), (60, 40, True), (40, 60, True)):
        Image.new("L", (width, height), 9).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png", 4)[1] is squeezed, (width, height)
