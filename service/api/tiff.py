"""Stacks of grey pages in TIFF (revision 6.0): strips, 8 or 16 bits, uncompressed, Deflate or PackBits.

Sizes are known from the tags before anything is unpacked, and a strip is never unpacked beyond its size. Of a
directory only the tags that are named here are read, and no more strips than a page has rows: strips and tags may
overlap, so that a small file could otherwise ask for any amount of memory and time.
"""

import struct
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _OFFSETS, _SAMPLES, _ROWS, _COUNTS = 256, 257, 258, 259, 273, 277, 278, 279
_TILES: Final = 322
_PREDICTOR: Final = 317
_READ: Final = (_WIDTH, _LENGTH, _BITS, _COMPRESSION, _OFFSETS, _SAMPLES, _ROWS, _COUNTS, _TILES, _PREDICTOR)
_MOST_STRIPS: Final = 65_536
_MOST_CHANNELS: Final = 64
_KINDS: Final = {1: "B", 3: "H", 4: "I"}
_DEFLATE: Final = (8, 32946)
_PACKBITS: Final = 32773
_MOST_PAGES: Final = 65_536


class MalformedTiff(ValueError):
    """Not such a stack; the text goes on after "The TIFF file"."""


def read_tiff(content: bytes, most_voxels: int) -> NDArray[Any]:
    """The pages of a stack, [pages, rows, columns].

    Raises:
        MalformedTiff: cut off, of several sizes, in colour, or packed in another way.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        raise MalformedTiff("does not begin like one (BigTIFF is not read)")
    try:
        return _pages(content, order, most_voxels)
    except (struct.error, zlib.error, IndexError, KeyError) as error:
        raise MalformedTiff(f"is cut off or damaged ({type(error).__name__})") from None


def _pages(content: bytes, order: str, most_voxels: int) -> NDArray[Any]:
    pages: list[NDArray[Any]] = []
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    seen = set()
    while at and len(pages) < _MOST_PAGES:
        if at in seen:
            raise MalformedTiff("goes round in circles")
        seen.add(at)
        tags, at = _tags(content, at, order)
        voxels = tags[_WIDTH][0] * tags[_LENGTH][0] * (len(pages) + 1)
        if voxels > most_voxels:
            raise MalformedTiff(f"has more than {most_voxels:,} voxels")
        pages.append(_page(content, tags, order))
        if pages[-1].shape != pages[0].shape or pages[-1].dtype != pages[0].dtype:
            raise MalformedTiff("has pages of several sizes or types")
    if not pages:
        raise MalformedTiff("has no page")
    return np.stack(pages)


def _tags(content: bytes, at: int, order: str) -> tuple[dict[int, tuple[int, ...]], int]:
    """The whole numbers of a directory by tag, and where the next directory is."""
    (count,) = struct.unpack_from(f"{order}H", content, at)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", content, entry)
        if tag not in _READ or kind not in _KINDS:
            continue
        if number > (_MOST_STRIPS if tag in (_OFFSETS, _COUNTS) else _MOST_CHANNELS):
            raise MalformedTiff(f"has {number:,} values of the tag {tag}")
        layout = f"{order}{number}{_KINDS[kind]}"
        size = struct.calcsize(layout)
        place = entry + 8 if size <= 4 else struct.unpack_from(f"{order}I", content, entry + 8)[0]
        tags[tag] = struct.unpack_from(layout, content, place)
    (following,) = struct.unpack_from(f"{order}I", content, at + 2 + 12 * count)
    return tags, following


def _page(content: bytes, tags: dict[int, tuple[int, ...]], order: str) -> NDArray[Any]:
    bits, compression = tags.get(_BITS, (1,)), tags.get(_COMPRESSION, (1,))[0]
    if tags.get(_SAMPLES, (1,))[0] != 1 or bits[0] not in (8, 16):
        raise MalformedTiff(f"has {len(bits)} channel(s) of {bits[0]} bits; one of 8 or 16 is read")
    if _TILES in tags or tags.get(_PREDICTOR, (1,))[0] != 1:
        raise MalformedTiff("is tiled or uses a predictor")
    width, length = tags[_WIDTH][0], tags[_LENGTH][0]
    offsets, sizes = tags[_OFFSETS], tags[_COUNTS]
    if not width or len(offsets) != len(sizes) or len(offsets) > length:
        raise MalformedTiff(f"has {len(offsets)} strips of {len(sizes)} sizes in a page of {width} x {length}")
    dtype = np.dtype(f"{order}u{bits[0] // 8}")
    rows, left, strips = tags.get(_ROWS, (length,))[0], length, []
    for offset, size in zip(offsets, sizes, strict=True):
        wanted = min(rows, left) * width * dtype.itemsize
        strips.append(_unpacked(memoryview(content)[offset : offset + size], compression, wanted))
        left -= min(rows, left)
    data = b"".join(strips)
    if len(data) != width * length * dtype.itemsize:
        raise MalformedTiff("is cut off: a page has fewer bytes than its size says")
    return np.frombuffer(data, dtype).reshape(length, width).astype(dtype.newbyteorder("="), copy=False)


def _unpacked(strip: memoryview, compression: int, size: int) -> bytes | memoryview:
    if compression == 1:
        return strip[:size]
    if compression in _DEFLATE:
        return zlib.decompressobj().decompress(strip, size) if size else b""
    if compression == _PACKBITS:
        return _from_packbits(bytes(strip[: 2 * size]), size)  # at worst a byte of head for each of data
    raise MalformedTiff(f"is compressed by method {compression}, which is not read")


def _from_packbits(strip: bytes, size: int) -> bytes:
    out, at = bytearray(), 0
    while at < len(strip) and len(out) < size:
        head = strip[at]
        if head < 128:
            out += strip[at + 1 : at + 2 + head]
            at += 2 + head
        else:
            if head > 128:
                out += strip[at + 1 : at + 2] * (257 - head)
            at += 2 if head > 128 else 1
    return bytes(out[:size])
