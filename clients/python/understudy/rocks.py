"""Rock images for the gateway: arrays and files as bodies that it reads, and its answer about them."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from understudy.errors import InvalidImage
from understudy.receipts import Receipt
from understudy.rock_files import TIFF_SUFFIXES, kind_of, read_labels, read_tiff
from understudy.wire import DomainVerdict, OnOutOfDomain

Axis: TypeAlias = Literal["x", "y", "z"]
RockImage: TypeAlias = "NDArray[Any] | str | os.PathLike[str]"

MODEL: Final = "permeability"
NPY: Final = "application/x-npy"
RAW: Final = "application/octet-stream"
TIFF: Final = "image/tiff"
_RAW_SUFFIXES: Final = (".raw", ".dat", ".bin")


@dataclass(frozen=True, slots=True)
class RockBody:
    """One image as it travels.

    Attributes:
        content: bytes of the body, and
        media_type: what they are.
        said: what raw bytes do not say themselves.
    """

    content: bytes
    media_type: str
    said: dict[str, str]


class Warned(BaseModel):
    """Something that may be wrong with the image, or makes its answer worth less."""

    model_config = ConfigDict(frozen=True, extra="allow")

    code: str
    text: str


class Permeability(BaseModel):
    """The answer for one rock image; numbers by axis (x, y, z: first to last axis of the array)."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    model: str
    version: str
    digest: str
    k_m2: dict[str, float] = Field(description="permeability, m^2; 0 where nothing can flow")
    k_mD: dict[str, float] = Field(description="the same in millidarcy")  # noqa: N815 (the unit's own spelling)
    k_voxel2: dict[str, float] = Field(description="the same in voxel^2")
    interval_95: dict[str, dict[str, tuple[float, float] | None]] = Field(
        description="by unit and axis, where it lies with 95 %; null for a single member or without flow"
    )
    porosity: float
    connected_porosity: dict[str, float] = Field(description="of the pores that join both ends of an axis")
    isolated_porosity: float | None = Field(None, description="of those that reach no side of the image")
    percolates: dict[str, bool]
    throat_voxels: dict[str, float | None] = Field(description="narrowest place of the widest way; null: not measured")
    flux_profile: dict[str, list[float]] = Field(description="voxel^4, of each slice across the axis")
    flux_std: dict[str, float] = Field(description="its standard deviation over its mean; 0 if mass is conserved")
    residuals: dict[str, dict[str, float]] = Field(
        {}, description="by axis, of the flux over the slices: flux_std, flux_largest; velocity_in_solid over the mean"
    )
    domain: DomainVerdict
    flags: list[str] = []
    warnings: list[Warned] = []
    image: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    receipt: Receipt | None = None


class RockOptions(TypedDict, total=False):
    """What may be chosen beside the image and its voxel size; see `Client.permeability`."""

    axes: str
    pore_value: int | Sequence[int]
    shape: Sequence[int]
    dtype: str
    order: Literal["C", "F"]
    byte_order: Literal["little", "big"]
    model: str
    on_out_of_domain: OnOutOfDomain
    model_digest: str


def rock_question(image: RockImage, options: RockOptions) -> tuple[RockBody, str, dict[str, str]]:
    """The body of a question about a rock, the model that is asked, and what the query says.

    Raises:
        InvalidImage
    """
    body = rock_body(image, options)
    said: dict[str, str] = {"axes": options.get("axes", "all")}
    if "pore_value" in options:
        values = options["pore_value"]
        said["pore_value"] = str(values) if isinstance(values, int) else ",".join(map(str, values))
    if "on_out_of_domain" in options:
        said["on_out_of_domain"] = options["on_out_of_domain"]
    if "model_digest" in options:
        said["model_digest"] = options["model_digest"]
    return body, options.get("model", MODEL), said


def rock_body(image: RockImage, options: RockOptions) -> RockBody:
    """An image as the body of a request.

    Args:
        image: an array [nx, ny, nz] of booleans (True is pore) or labels, or the path of a .npy, .npz (one array, or
            one that is called "image"), .nc, .zarr, .tif or .raw file, or of a folder of .tif slices.
        options: shape and dtype of a .raw file, which does not say them; its order, "C" where the last axis is fastest
            (the default) or "F" where the first is; its byte_order, "little" (the default) or "big".

    Raises:
        InvalidImage: the file cannot be read, or is of another kind.
    """
    if isinstance(image, np.ndarray):
        return RockBody(_npy(image), NPY, {})
    path = Path(image)
    suffix = path.suffix.lower()
    if (kind := kind_of(path)) is not None:
        return RockBody(_npy(read_labels(path, kind)), NPY, {})
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidImage(f"{path} cannot be read: {error}.", code="unreadable_image") from error
    if suffix == ".npy":
        return RockBody(content, NPY, {})
    if suffix in TIFF_SUFFIXES:
        return RockBody(content, TIFF, {})
    if suffix in _RAW_SUFFIXES:
        return RockBody(content, RAW, _said_of_raw(path, options))
    raise InvalidImage(
        f"{path} is of no kind that is read.",
        code="unknown_image_format",
        hint="Give a .npy, .npz, .nc, .zarr, .tif or .raw file, a folder of .tif slices, or a NumPy array.",
    )


def labels_of(body: RockBody) -> NDArray[Any]:
    """The array that a body holds, for those who need it here.

    Raises:
        InvalidImage
    """
    if body.media_type == NPY:
        return array_of(body.content)
    if body.media_type == TIFF:
        return read_tiff(io.BytesIO(body.content))
    shape = tuple(int(n) for n in body.said["shape"].split(","))
    if body.said["dtype"] == "bits":
        flat = np.unpackbits(np.frombuffer(body.content, np.uint8), count=int(np.prod(shape))).astype(bool)
    else:
        dtype = np.dtype(body.said["dtype"])
        flat = np.frombuffer(body.content, dtype.newbyteorder(">" if body.said.get("byte_order") == "big" else "<"))
    return flat.reshape(shape, order="F" if body.said.get("order") == "F" else "C")


def array_of(content: bytes) -> NDArray[Any]:
    """The array of a .npy file."""
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))


def _npy(array: NDArray[Any]) -> bytes:
    if array.dtype.hasobject:
        raise InvalidImage("An array of objects is no image.", code="invalid_image", hint="Give booleans or labels.")
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    return buffer.getvalue()


def _said_of_raw(path: Path, options: RockOptions) -> dict[str, str]:
    if "shape" not in options or "dtype" not in options:
        raise InvalidImage(
            f"{path} does not say its shape and type.",
            code="raw_without_shape",
            hint="Give shape and dtype, such as --shape 110,110,110 --dtype uint8 (and --order F where x is fastest).",
        )
    said = {"shape": ",".join(map(str, options["shape"])), "dtype": options["dtype"]}
    if "order" in options:
        said["order"] = options["order"]
    if "byte_order" in options:
        said["byte_order"] = options["byte_order"]
    return said
