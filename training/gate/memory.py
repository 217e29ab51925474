"""How much memory a batch takes, by its cost: measured at admission, so that the service can tell it before a run."""

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from contract.card import Memory
from contract.graphs import bucket, build_graph, collate
from contract.structures import Structure
from training.gate.engines import Arrays
from training.gate.errors import NotMeasured

ATOMS: Final = 1_000
WIDTHS: Final = (8, 32)
_MEASURE: Final = """
import json, os, sys
import numpy as np, onnxruntime
graph, *batches = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.enable_mem_pattern = False
session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
held = []
for batch in batches:
    with np.load(batch) as arrays:
        session.run(None, dict(arrays))
    with open("/proc/self/statm") as said:
        held.append(os.sysconf("SC_PAGE_SIZE") * int(said.read().split()[1]))
print(json.dumps(held))
"""


def working_memory(graph_file: Path, structures: Sequence[Structure], cutoff: float) -> Memory:
    """Working memory of one call at its peak, by neighbour slots and by atoms.

    Two batches of as many atoms, of which one has wider rows, are each run after a tiny one in a process of their own.
    What the process holds more after it is the peak: ONNX Runtime's arena, not seen otherwise, gives nothing back.

    Args:
        graph_file: such as model.onnx.
        structures: of the kind that the model is for; at least one.
        cutoff: angstrom.

    Raises:
        NotMeasured: the process failed, with what it said.
    """
    graphs = [build_graph(structure, cutoff) for structure in structures[:64]]
    many = list(islice(cycle(graphs), max(2, ATOMS // graphs[0].n_atoms)))
    least = max(graph.degree for graph in graphs)
    widths = [max(width, factor * bucket(least)) for width, factor in zip(WIDTHS, (1, 4), strict=True)]
    tiny, batches = collate(graphs[:1]), [collate(many, width) for width in widths]
    grown = [_grown(graph_file, tiny, batch) for batch in batches]
    atoms, slots = len(batches[0]["species"]), [batch["neighbours"].size for batch in batches]
    per_slot = max(0.0, (grown[1] - grown[0]) / (slots[1] - slots[0]))
    per_atom = max(0.0, (grown[0] - per_slot * slots[0]) / atoms)
    return Memory(bytes_per_slot=round(per_slot, 1), bytes_per_atom=round(per_atom, 1))


def _grown(graph_file: Path, tiny: Arrays, batch: Arrays) -> float:
    """Bytes that a process holds more after a batch than after a tiny one."""
    with TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("tiny.npz", "batch.npz")]
        for file, arrays in zip(files, (tiny, batch), strict=True):
            np.savez(file, allow_pickle=False, **arrays)
        ran = subprocess.run([sys.executable, "-c", _MEASURE, str(graph_file), *files], capture_output=True, text=True)
    if ran.returncode:
        raise NotMeasured(f"the memory of {graph_file.name} could not be measured: {ran.stderr.strip()[-300:]}")
    before, after = map(float, json.loads(ran.stdout))
    return after - before
