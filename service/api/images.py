"""Bodies to label images: NumPy's .npy, raw bytes with a stated shape, one bit a voxel, and TIFF stacks.

What a body claims of its size is compared with what is there before memory is taken for it. Nothing is unpickled.
"""

import ast
import math
from collections.abc import Callable, Mapping
from mmap import mmap
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.packed import PackedImage
from service.api.tiff import MalformedTiff, read_tiff
from service.errors import BadImage, TooMany, UnsupportedMediaType
from service.settings import Limits

NPY: Final = "application/x-npy"
RAW: Final = "application/octet-stream"
TIFF: Final = "image/tiff"
_MAGIC: Final = b"\x93NUMPY"
_LONGEST_HEAD: Final = 10_000
"""Bytes, as numpy.load has it: parsing a head takes many times its size."""
_DTYPES: Final = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool", "bits")
_LONGEST: Final = 2**31
"""Voxels along a side, so that a claim can be counted and told."""
Labels = NDArray[Any] | PackedImage
Content = bytes | bytearray | mmap


def labels_of(body: Content, media_type: str, said: Mapping[str, str], limits: Limits) -> Labels:
    """The labels [nx, ny, nz] that a body holds.

    Args:
        body: whole.
        media_type: of it.
        said: shape, dtype, order and byte_order of raw bytes.
        limits: voxels of one image.

    Raises:
        UnsupportedMediaType, BadImage, TooMany
    """
    if media_type not in _READERS:
        hint = "Volumes do not travel as JSON: send .npy." if media_type == "application/json" else ""
        raise UnsupportedMediaType(
            f"Content-Type '{media_type[:60]}' is not read here.",
            hint=f"{hint} Send one of {', '.join(_READERS)}.".strip(),
            headers={"Accept": ", ".join(_READERS)},
            expected=list(_READERS),
        )
    return _READERS[media_type](body, said, limits)


def _npy(body: Content, said: Mapping[str, str], limits: Limits) -> Labels:
    """NumPy's format 1 to 3 (numpy.lib.format), read without its pickles."""
    if body[:6] != _MAGIC or len(body) < 12:
        raise _bad("The body is no .npy file.", "Write it with numpy.save, or name another Content-Type.")
    wide = body[6] > 1
    start = 12 if wide else 10
    end = start + int.from_bytes(body[8:start], "little")
    if end - start > _LONGEST_HEAD:
        raise _bad(f"The head of the .npy file is longer than {_LONGEST_HEAD:,} bytes.", "Write it with numpy.save.")
    try:
        header = ast.literal_eval(bytes(body[start:end]).decode("utf-8"))
        shape, dtype = tuple(int(n) for n in header["shape"]), np.dtype(header["descr"])
        order = "F" if header["fortran_order"] else "C"
    except (ValueError, SyntaxError, KeyError, TypeError, OverflowError, RecursionError, MemoryError):
        raise _bad("The head of the .npy file cannot be read.", "Write it with numpy.save.") from None
    if dtype.hasobject or dtype.kind not in "biuf":
        raise _bad(f"The .npy file holds {dtype}, not numbers.", "Save an array of booleans or whole numbers.")
    return _shaped(memoryview(body)[end:], shape, dtype, order, limits)


def _raw(body: Content, said: Mapping[str, str], limits: Limits) -> Labels:
    missing = [name for name in ("shape", "dtype") if name not in said]
    if missing:
        raise _bad(
            f"Raw bytes do not say their {' and '.join(missing)}.",
            "Add ?shape=110,110,110&dtype=uint8 (and order=F where x is fastest, byte_order=big where it is).",
            missing[0],
        )
    shape = _shape(said["shape"])
    if said["dtype"] not in _DTYPES:
        raise _bad(f"dtype is '{said['dtype'][:20]}'.", f"Give one of {', '.join(_DTYPES)}.", "dtype")
    order, byte_order = said.get("order", "C"), said.get("byte_order", "little")
    if order not in ("C", "F") or byte_order not in ("little", "big"):
        raise _bad(f"order is '{order[:9]}', byte_order '{byte_order[:9]}'.", "Give C or F; little or big.", "order")
    if said["dtype"] == "bits":
        return _bits(body, shape, order, limits)
    dtype = np.dtype(said["dtype"]).newbyteorder("<" if byte_order == "little" else ">")
    return _shaped(memoryview(body), shape, dtype, order, limits)


def _bits(body: Content, shape: tuple[int, ...], order: str, limits: Limits) -> Labels:
    """One bit a voxel, most significant first, as numpy.packbits writes them; 1 is pore."""
    voxels = counted(shape, limits)
    if len(body) != -(-voxels // 8):
        raise _size(len(body), -(-voxels // 8), shape)
    nx, ny, nz = shape
    bits = np.frombuffer(body, np.uint8)
    if voxels % 8 and int(bits[-1]) << voxels % 8 & 255:
        raise _bad("The bits behind the last voxel are not zero.", "Check the shape; pad with zeros.", "shape")
    if order == "F":
        return PackedImage.of_flat_bits(bits, (nz, ny, nx)).reversed_axes()
    return PackedImage.of_flat_bits(bits, (nx, ny, nz))


def _tiff(body: Content, said: Mapping[str, str], limits: Limits) -> Labels:
    """Pages are slices across z; within a page, rows go along y and columns along x: turned into x, y, z."""
    try:
        stack = read_tiff(bytes(body), limits.image_voxels)
    except MalformedTiff as error:
        raise _bad(
            f"The TIFF file {error}.", "Save it uncompressed or with Deflate or PackBits, as .npy, or raw."
        ) from None
    return np.ascontiguousarray(stack.transpose(2, 1, 0))


_READERS: Final[dict[str, Callable[[Content, Mapping[str, str], Limits], Labels]]] = {
    NPY: _npy,
    RAW: _raw,
    TIFF: _tiff,
}


def _shaped(data: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any], order: str, limits: Limits) -> Labels:
    voxels = counted(shape, limits)
    if len(data) != voxels * dtype.itemsize:
        raise _size(len(data), voxels * dtype.itemsize, shape)
    labels = np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")
    if labels.dtype == bool and (labels.view(np.uint8) > 1).any():
        raise _bad("Booleans other than 0 and 1.", "Send them as uint8, with pore_value.")
    return np.ascontiguousarray(labels.astype(dtype.newbyteorder("="), copy=False))


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise _bad(f"shape is '{text[:40]}'.", "Give three whole numbers, such as 110,110,110.", "shape")
    return shape


def counted(shape: tuple[int, ...], limits: Limits) -> int:
    """Voxels of a claimed shape.

    Raises:
        BadImage, TooMany
    """
    if len(shape) != 3 or not 1 <= min(shape) <= max(shape) <= _LONGEST:
        text = ", ".join(map(str, shape))[:60]
        raise _bad(f"The image has the shape [{text}].", "Send three dimensions.", "shape")
    voxels = math.prod(shape)
    if voxels > limits.image_voxels:
        raise TooMany(
            f"The image has {voxels:,} voxels; one may have {limits.image_voxels:,}.",
            hint="Send a part of it.",
            limit=limits.image_voxels,
            got=voxels,
            unit="voxels",
        )
    return voxels


def _size(got: int, expected: int, shape: tuple[int, ...]) -> BadImage:
    text = "x".join(map(str, shape))
    return BadImage(
        f"{text} voxels take {expected:,} bytes; there are {got:,}.",
        hint="Check shape and dtype, and that the file is whole.",
        field="shape",
        expected=expected,
        got=got,
    )


def _bad(detail: str, hint: str, field: str = "image") -> BadImage:
    return BadImage(detail, hint=hint, field=field)
