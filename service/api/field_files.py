"""The velocity as a file, in pieces of a slice or a few, so that a large one is never in memory as a whole.

The component along the flow's axis times viscosity over pressure gradient, voxel^2; multiplied by the square of the
voxel size in metres it is the local permeability in m^2.
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

NPY: Final = "application/x-npy"
VTI: Final = "application/vnd.vtk.vti"
ZARR: Final = "application/zip"
_SLAB: Final = 8


def npy(field: Field, voxel_size_um: float) -> Iterator[bytes]:
    """NumPy's format 1.0, little-endian float32 in C order."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": tuple(int(n) for n in field.shape)}
    )
    yield head.getvalue()
    yield from _slabs(field)


def vti(field: Field, voxel_size_um: float) -> Iterator[bytes]:
    """VTK's XML ImageData with one value a cell, appended raw; lengths in micrometres.

    Source: https://docs.vtk.org/en/latest/vtk_file_formats/vtkxml_file_format.html.
    """
    extent = " ".join(f"0 {n}" for n in field.shape)
    yield (
        '<?xml version="1.0"?>\n'
        '<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64">\n'
        f'<ImageData WholeExtent="{extent}" Origin="0 0 0" Spacing="{" ".join([repr(voxel_size_um)] * 3)}">\n'
        f'<Piece Extent="{extent}"><CellData Scalars="velocity_voxel2">\n'
        '<DataArray type="Float32" Name="velocity_voxel2" format="appended" offset="0"/>\n'
        '</CellData></Piece></ImageData>\n<AppendedData encoding="raw">_'
    ).encode()
    yield (4 * field.size).to_bytes(8, "little")
    for z in range(field.shape[2]):
        yield np.asarray(field[:, :, z], "<f4").tobytes(order="F")
    yield b"</AppendedData></VTKFile>\n"


def zarr(field: Field, voxel_size_um: float) -> Iterator[bytes]:
    """A Zarr array of version 2 in a zip archive, stored, a chunk every eight slices.

    Source: https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html.
    """
    nx, ny, nz = (int(n) for n in field.shape)
    kind = {"zarr_format": 2, "dtype": "<f4", "order": "C", "fill_value": 0.0, "compressor": None, "filters": None}
    about = {"unit": "voxel^2", "voxel_size_um": voxel_size_um, "_ARRAY_DIMENSIONS": ["x", "y", "z"]}
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        archive.writestr(".zarray", json.dumps({**kind, "shape": [nx, ny, nz], "chunks": [_SLAB, ny, nz]}))
        archive.writestr(".zattrs", json.dumps(about))
        for number, slab in enumerate(_slabs(field)):
            archive.writestr(f"{number}.0.0", slab.ljust(4 * _SLAB * ny * nz, b"\0"))  # the last chunk is whole too
            yield sink.taken()
    yield sink.taken()


WRITERS: Final[dict[str, Callable[[Field, float], Iterator[bytes]]]] = {NPY: npy, VTI: vti, ZARR: zarr}


def _slabs(field: Field) -> Iterator[bytes]:
    for x in range(0, field.shape[0], _SLAB):
        yield np.ascontiguousarray(field[x : x + _SLAB], "<f4").tobytes()


class _Sink:
    """What a zip archive is written into, piece by piece; it cannot be wound back, and zipfile does without."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
