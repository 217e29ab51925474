"""The work that every peer does with a batch: neighbour lists, collate, engine, split. No server in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.graphs import build_graph, collate


class Direct:
    """Energies (eV, without references) and forces (eV/angstrom) of structures in one engine call.

    Args:
        graph: model.onnx.
        cutoff: angstrom.
    """

    def __init__(self, graph: Path, cutoff: float) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._cutoff = cutoff

    def __call__(self, structures: Sequence[Any]) -> list[tuple[NDArray[np.float64], NDArray[np.float32]]]:
        """Per structure the energies [M] of the members and the forces [n, 3] of their mean."""
        graphs = [build_graph(structure, self._cutoff) for structure in structures]
        energy, forces = self._session.run(["energy", "forces"], collate(graphs))
        ends = np.cumsum([graph.n_atoms for graph in graphs])[:-1]
        return list(zip(energy.T, np.split(forces, ends), strict=True))
