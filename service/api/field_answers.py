"""What is said of flow through a rock: the whole answer as plain values, and a slice of its field as a picture."""

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.packed import isolated_porosity
from contract.units import FIELD_SIGNS, FIELD_UNITS, permeability_in_units
from service.errors import BadImage
from service.families.field import FlowPrediction
from service.flow import FlowAnswer
from service.rock import Rock, interval_warning, octants, throat_of, warnings_of


def said_of(answer: FlowAnswer, rock: Rock, receipt: Mapping[str, Any]) -> dict[str, Any]:
    """The whole answer as plain values; numbers by axis where they have one."""
    each = {prediction.axis: prediction for prediction in answer.predictions}
    card = answer.model.card
    permeabilities = {axis: permeability_in_units(p.permeability, rock.voxel_size_um) for axis, p in each.items()}
    intervals = {axis: _interval(p, rock) for axis, p in each.items()}
    throats = [throat_of(rock, prediction) for prediction in answer.predictions]
    geometries = {axis: p.geometry for axis, p in each.items()}
    return {
        "model": card.name,
        "version": card.version,
        "digest": answer.model.stored.digest,
        "units": FIELD_UNITS,
        "signs": FIELD_SIGNS,
        "image": {
            "shape": list(rock.image.shape),
            "voxel_size_um": rock.voxel_size_um,
            "pore_values": rock.pore_values,
            "pore_values_detected": rock.detected,
            "octant_porosity": octants(rock.image),
        },
        **{unit: {a: k[unit] for a, k in permeabilities.items()} for unit in ("k_m2", "k_mD", "k_voxel2")},
        "interval_95": {unit: {a: _of(i, unit) for a, i in intervals.items()} for unit in ("k_m2", "k_mD", "k_voxel2")},
        "log_k_std": {axis: p.log_std for axis, p in each.items()},
        "porosity": rock.image.porosity,
        "connected_porosity": {axis: p.connected_porosity for axis, p in geometries.items()},
        "isolated_porosity": isolated_porosity(rock.image),
        "percolates": {axis: p.percolates for axis, p in geometries.items()},
        "throat_voxels": dict(zip(each, throats, strict=True)),
        "flux_profile": {axis: p.flux for axis, p in each.items()},
        "flux_std": {axis: p.flux_std for axis, p in each.items()},
        "residuals": {axis: p.residuals for axis, p in each.items()},
        "boundary": card.domain.ends,
        "padded_to": {axis: list(p.geometry.padded) for axis, p in each.items()},
        "tiles": {axis: p.tiles for axis, p in each.items()},
        "domain": _domain(each),
        "flags": answer.flags,
        "warnings": [
            *warnings_of(rock, answer.predictions, throats),
            *interval_warning(card.committee.log_permeability),
        ],
        "seconds": answer.seconds,
        "receipt": receipt,
    }


def said_beside_field(prediction: FlowPrediction, rock: Rock) -> str:
    """What a file of a field does not say, in one line, as a dictionary of RFC 9651."""
    said = {**permeability_in_units(prediction.permeability, rock.voxel_size_um), **prediction.residuals}
    return ", ".join([f'axis="{prediction.axis}"', *(f'{key.lower()}="{value:.6g}"' for key, value in said.items())])


def _interval(prediction: FlowPrediction, rock: Rock) -> dict[str, tuple[float, float]] | None:
    if prediction.interval_95 is None:
        return None
    low, high = (permeability_in_units(k, rock.voxel_size_um) for k in prediction.interval_95)
    return {unit: (low[unit], high[unit]) for unit in low}


def _of(interval: Mapping[str, tuple[float, float]] | None, unit: str) -> tuple[float, float] | None:
    return None if interval is None else interval[unit]


def _domain(each: Mapping[str, FlowPrediction]) -> dict[str, Any]:
    order = ("in", "edge", "out")
    worst = max((p.domain.verdict for p in each.values()), key=order.index)
    reasons = [f"{axis}: {reason}" for axis, p in each.items() for reason in p.domain.reasons]
    return {"in_domain": worst != "out", "verdict": worst, "reasons": reasons}


def slice_of(prediction: FlowPrediction, query: Mapping[str, str]) -> bytes:
    """A plane along the flow's axis, which points up, through the middle or where the query says; solid black."""
    field, axis = prediction.velocity, prediction.geometry.axis
    if field is None:
        return b""
    across = 1 if axis == 0 else 0
    at = query.get("slice", str(field.shape[across] // 2))
    if not at.isdecimal() or int(at) >= field.shape[across]:
        raise BadImage(
            f"slice is '{at[:20]}'.", hint=f"Give a number from 0 to {field.shape[across] - 1}.", field="slice"
        )
    plane = np.take(field, int(at), across)
    pore = plane != 0.0
    top = float(np.quantile(plane[pore], 0.99)) if pore.any() else 1.0
    grey = np.where(pore, 40 + 215 * np.clip(plane / max(top, 1e-12), 0.0, 1.0), 0).astype(np.uint8)
    return png(np.ascontiguousarray((grey.T if axis == 2 else grey)[::-1]))


def png(grey: NDArray[np.uint8]) -> bytes:
    """An 8-bit grey picture [rows, columns] as PNG (ISO/IEC 15948)."""
    rows, columns = grey.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), grey], axis=1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 6)) + chunk(b"IEND", b"")
