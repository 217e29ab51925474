"""A graph must give the answers that lie beside it, on this engine and this machine, before anybody is answered."""

import zipfile
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.errors import NotReproduced, UnsafeArtefact
from contract.repository import StoredModel
from contract.signatures import GRAPHS
from service.engines import Runner

REFERENCE: Final = "reference.npz"
RELATIVE: Final = 1e-4
ABSOLUTE: Final = 1e-3
"""eV, eV/angstrom: what another device may round otherwise; a wrong graph is off by far more."""
Arrays = dict[str, NDArray[Any]]


def refuse_other_answers(stored: StoredModel, file: str, runner: Runner) -> None:
    """Run the reference inputs of a version, where it has any for this graph, and compare.

    Raises:
        NotReproduced: naming the graph, the output and the difference.
        UnsafeArtefact: the reference cannot be read.
    """
    if not stored.has(REFERENCE):
        return
    inputs, expected = _read(stored)
    if not {spec.name for spec in GRAPHS[stored.card.family][file].inputs} <= inputs.keys():
        return
    outputs = runner(inputs)
    for name in sorted(expected.keys() & outputs.keys()):
        if not _close(outputs[name], expected[name]):
            raise NotReproduced(
                f"model '{stored.card.name}' version {stored.card.version}: {file} does not give the {name} of "
                f"{REFERENCE} ({_difference(outputs[name], expected[name])}); publish it again"
            )


def _close(got: NDArray[Any], right: NDArray[Any]) -> bool:
    return got.shape == right.shape and bool(np.allclose(got, right, rtol=RELATIVE, atol=ABSOLUTE))


def _difference(got: NDArray[Any], right: NDArray[Any]) -> str:
    if got.shape != right.shape:
        return f"shape {got.shape} instead of {right.shape}"
    return f"off by {np.abs(got - right).max():.3g}"


def _read(stored: StoredModel) -> tuple[Arrays, Arrays]:
    path = stored.file(REFERENCE)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UnsafeArtefact(f"{path} cannot be read: {error}") from None
    sides = [{k.removeprefix(side): v for k, v in held.items() if k.startswith(side)} for side in ("in/", "out/")]
    return sides[0], sides[1]
