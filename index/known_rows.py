"""Which rows of a table training has touched, one bit each: what else is looked up means nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.errors import BundleError
from index.packed import open_array


def save_known(folder: Path, known: Mapping[str, NDArray[np.bool_]]) -> None:
    """Write (rows,) bool of each tower as bits."""
    for tower, rows in known.items():
        np.save(folder / _file(tower), np.packbits(rows))


def open_known(folder: Path, rows: int, tower: str) -> NDArray[np.bool_] | None:
    """(rows,) bool of a tower; None for a bundle that does not say, as the first did not.

    Raises BundleError when the file is of another table.
    """
    path = folder / _file(tower)
    if not path.is_file():
        return None
    bits = open_array(path)
    if bits.shape != ((rows + 7) // 8,):
        raise BundleError(f"{path}: is of a table of another size than {rows} rows; export the bundle again")
    return np.unpackbits(bits, count=rows).view(np.bool_)


def _file(tower: str) -> str:
    return f"known.{tower}.npy"
