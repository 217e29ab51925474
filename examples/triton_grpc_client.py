"""The same models over gRPC through NVIDIA's own tritonclient, unmodified: one call, then a stream of many.

pip install 'tritonclient[grpc]'
python examples/triton_grpc_client.py [model]
"""

import os
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from ase import Atoms
from ase.io import read

ADDRESS = os.environ.get("UNDERSTUDY_GRPC_URL", "127.0.0.1:8001")


def inputs_of(atoms: Atoms) -> list[triton.InferInput]:
    tensors = {"numbers": atoms.numbers.astype(np.int64), "positions": atoms.positions.astype(np.float64)}
    inputs = []
    for name, datatype in (("numbers", "INT64"), ("positions", "FP64")):
        inputs.append(triton.InferInput(name, tensors[name].shape, datatype))
        inputs[-1].set_data_from_numpy(tensors[name])
    return inputs


def main(model: str) -> None:
    atoms = read(Path(__file__).with_name("malonaldehyde.xyz"))
    with triton.InferenceServerClient(ADDRESS) as client:
        print("ready:", client.is_server_ready(), client.is_model_ready(model))
        answer = client.infer(model, inputs_of(atoms), client_timeout=10.0)
        print("energy", answer.as_numpy("energy"), "eV  std", answer.as_numpy("energy_std"), "eV")
        print("forces", answer.as_numpy("forces").shape, "eV/angstrom")

        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        for step in range(5):
            displaced = atoms.copy()
            displaced.rattle(0.01 * step, seed=step)
            client.async_stream_infer(model, inputs_of(displaced))
        for step in range(5):
            result, error = answers.get(timeout=10.0)
            print(f"displaced by {0.01 * step:.2f} angstrom:", error or f"{result.as_numpy('energy')[0]:.4f} eV")
        client.stop_stream()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "malonaldehyde")
