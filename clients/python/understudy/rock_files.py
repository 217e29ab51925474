"""Rock images from files of several kinds as arrays: NumPy's, NetCDF, Zarr, TIFF stacks and folders of TIFF slices.

What a file claims of its size is compared with a limit before memory is taken for it. NetCDF, Zarr and TIFF need
`pip install './clients/python[rocks]'`; without it the gateway still reads .npy, .npz, raw and TIFF stacks.
"""

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from understudy.errors import InvalidImage

MOST_BYTES: Final = 8 * 2**30
TIFF_SUFFIXES: Final = (".tif", ".tiff")
_IMAGE: Final = ("image", "segmented", "labels")
_INFLATED: Final = 2.0
"""A zip archive holds at most so many times the bytes of its array, and a little."""
Labels = NDArray[Any]


def kind_of(path: Path) -> str | None:
    """The kind of file among those that are read here; None: another."""
    if path.suffix.lower() == ".zarr" or path.name.lower().endswith(".zarr.zip"):
        return "zarr"
    if path.is_dir():
        return "slices" if any(_slices(path)) else None
    return {".npz": "npz", ".nc": "netcdf"}.get(path.suffix.lower())


def read_labels(path: Path | BinaryIO, kind: str) -> Labels:
    """The image of a file of a kind that `kind_of` names.

    Raises:
        InvalidImage: it cannot be read, is too large, or does not say which of its arrays is the image.
    """
    try:
        return _READERS[kind](path)
    except ModuleNotFoundError as error:
        raise InvalidImage(
            f"{path} needs {error.name}, which is not installed.",
            code="missing_reader",
            hint="In a clone: pip install './clients/python[rocks]'; or save the image as .npy.",
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, zipfile.BadZipFile) as error:
        raise InvalidImage(f"{path} cannot be read: {error}.", code="unreadable_image") from error


def read_tiff(path: Path | BinaryIO) -> Labels:
    """A stack: pages along z, rows along y, columns along x.

    Raises:
        InvalidImage
    """
    return read_labels(path, "tiff")


def _npz(path: Path) -> Labels:
    """The one array of an archive, or the one that is called "image"; packed bits with their shape too."""
    with np.load(path, allow_pickle=False) as arrays:
        if "image" not in arrays.files and len(arrays.files) != 1:
            raise KeyError(f"it holds {', '.join(arrays.files)}, and none is called image")
        image = arrays["image"] if "image" in arrays.files else arrays[arrays.files[0]]
        if image.ndim == 1 and "shape" in arrays.files:
            shape = tuple(int(n) for n in arrays["shape"])
            return np.unpackbits(image, count=math.prod(shape)).reshape(shape).astype(bool)
        return np.asarray(image)


def _netcdf(path: Path) -> Labels:
    """The one variable of three dimensions, or the one with a usual name, as it lies in the file."""
    with import_module("netCDF4").Dataset(path, "r") as data:
        data.set_auto_maskandscale(False)
        image = data.variables[_chosen({n: v.shape for n, v in data.variables.items()})]
        _refuse_large(image.shape, image.dtype)
        return np.asarray(image[...])


def _zarr(path: Path) -> Labels:
    """The array, or in a group the one array of three dimensions, or the one with a usual name."""
    zarr = import_module("zarr")
    if not path.is_file():
        return _of_store(zarr, path, None)
    with closing(zarr.storage.ZipStore(path, mode="r")) as store:
        return _of_store(zarr, store, path)


def _of_store(zarr: Any, store: Any, archive: Path | None) -> Labels:
    found = zarr.open(store, mode="r")
    if isinstance(found, zarr.Group):
        found = found[_chosen({name: array.shape for name, array in found.arrays()})]
    size = _refuse_large(found.shape, found.dtype)
    if archive is not None:
        _refuse_bomb(archive, size)
    return np.asarray(found[...])


def _tiff(path: Path | BinaryIO) -> Labels:
    """Pages along z, rows along y, columns along x."""
    with import_module("tifffile").TiffFile(path) as file:
        pages = file.series[0]
        _refuse_large(pages.shape, pages.dtype)
        return np.ascontiguousarray(np.asarray(pages.asarray()).T)


def _folder(path: Path) -> Labels:
    """One slice a file, in the order of their names: along z."""
    read = import_module("tifffile").imread
    files = _slices(path)
    first = np.asarray(read(files[0]))
    _refuse_large((len(files), *first.shape), first.dtype)
    slices = [first, *(np.asarray(read(file)) for file in files[1:])]
    if {(s.shape, s.dtype) for s in slices} != {(first.shape, first.dtype)} or first.ndim != 2:
        raise ValueError("its slices are of several sizes or types, or not grey")
    return np.ascontiguousarray(np.stack(slices).T)


def _slices(path: Path) -> Sequence[Path]:
    return sorted(file for file in path.iterdir() if file.suffix.lower() in TIFF_SUFFIXES)


def _chosen(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The name of the image among arrays."""
    solid = [name for name, shape in shapes.items() if len(shape) == 3]
    named = [name for name in solid if name.lower() in _IMAGE]
    if len(named) == 1 or len(solid) == 1:
        return (named or solid)[0]
    raise KeyError(
        f"it holds {', '.join(solid) or 'nothing'} with three dimensions, and none is called {' or '.join(_IMAGE)}"
    )


def _refuse_large(shape: Sequence[int], dtype: Any) -> int:
    size = math.prod(int(n) for n in shape) * int(np.dtype(dtype).itemsize)
    if size > MOST_BYTES:
        raise ValueError(f"its image claims {size:,} bytes; {MOST_BYTES:,} are read")
    return size


def _refuse_bomb(path: Path, size: int) -> None:
    """Refuse an archive whose entries are much larger than its array."""
    with zipfile.ZipFile(path) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
    if total > _INFLATED * size + 2**20:
        raise ValueError(f"its entries have {total:,} bytes, its image {size:,}")


_READERS: Final[dict[str, Callable[[Any], Labels]]] = {
    "npz": _npz,
    "netcdf": _netcdf,
    "zarr": _zarr,
    "tiff": _tiff,
    "slices": _folder,
}
