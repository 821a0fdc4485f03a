"""Real data, split into institutions: one folder with `dataset.toml` each (design.md section 12)."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...crypto.errors import UsageError
from ...crypto.extras import extra
from ...node.data.importers import oulad
from ...node.data.importers.common import Options, write_institution

DIGITS_LEAST = 40  # images an institution has at least


def prepare_digits(folder: Path, institutions: int, alpha: float, seed: int) -> list[Path]:
    """Write scikit-learn's 1,797 digits (8 × 8 pixels of 0 to 16), split by label from Dirichlet(`alpha`).

    Every image is its own subject: the writers are not named in the source. About a quarter is held out by salt.
    Returns the institutions' folders. Raises UsageError if the images do not suffice for `institutions`.
    """
    with extra("sims"):  # a second that OULAD need not pay
        from sklearn.datasets import load_digits  # noqa: PLC0415

    source = load_digits()
    if not 1 <= institutions <= len(source.target) // (2 * DIGITS_LEAST):
        raise UsageError(f"{institutions} institutions cannot share {len(source.target)} digits", "Ask for 1 to 22.")
    owner = _dirichlet(source.target, institutions, alpha, np.random.default_rng(seed))
    folders = []
    for number in range(institutions):
        rows = np.flatnonzero(owner == number)
        table = {"image": pa.array([f"digit-{row:04d}" for row in rows.tolist()])}
        table |= {f"pixel{pixel}": pa.array(source.data[rows, pixel].astype(np.uint8)) for pixel in range(64)}
        table["digit"] = pa.array([str(label) for label in source.target[rows].tolist()])
        path = folder / f"institution-{number + 1}"
        write_institution(path, {"digits": pa.table(table)}, DIGITS_TOML)
        folders.append(path)
    return folders


def _dirichlet(
    labels: npt.NDArray[np.int64], institutions: int, alpha: float, source: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return the owner of each image. Those with too few take from the one that has most, so that all can train."""
    owner = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = source.permutation(np.flatnonzero(labels == label))
        shares = np.cumsum(source.dirichlet(np.full(institutions, alpha)))[:-1]
        for number, part in enumerate(np.split(rows, (shares * len(rows)).astype(np.int64))):
            owner[part] = number
    while (counts := np.bincount(owner, minlength=institutions)).min() < DIGITS_LEAST:
        moved = source.choice(np.flatnonzero(owner == counts.argmax()), DIGITS_LEAST - counts.min(), replace=False)
        owner[moved] = counts.argmin()
    return owner


DIGITS_TOML = """# scikit-learn's digits (UCI "Optical Recognition of Handwritten Digits"). The source does not name
# the writers, so the unit of privacy is the single image.
format = 1
[unit]
kind = "record"
[tables.digits]
path = "digits.parquet"
key = "image"
[[modality]]
name = "image"
kind = "image"
prefix = "pixel"
low = 0
high = 16
[[task]]
name = "digit"
kind = "multiclass"
column = "digit"
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
[split]
share = 0.25
salt = "digits"
"""


def prepare_oulad(source: Path, folder: Path, institutions: int) -> list[tuple[str, Path]]:
    """Write OULAD at day 56, one institution a module (7), or AAA, BBB and two groups (4); see importers/oulad.py.

    `source` is the folder `oulad/` of the shared data. Returns (name, folder) pairs. Raises UsageError if a file is
    missing or `institutions` is neither 4 nor 7, CorruptError if a file is damaged.
    """
    by = {7: "module", 4: "four"}.get(institutions)
    if by is None:
        raise UsageError(f"OULAD for {institutions} institutions", "Ask for 7 (a module each) or 4.")
    return oulad.run(source, folder, Options(by=by), lambda _what, _done, _total: None)
