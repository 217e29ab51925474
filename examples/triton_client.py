"""The same models through NVIDIA's own tritonclient, unmodified: the gateway speaks the Open Inference Protocol.

pip install 'tritonclient[http]'
python examples/triton_client.py [model]
"""

import os
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from ase.io import read

ADDRESS = os.environ.get("UNDERSTUDY_URL", "http://127.0.0.1:8000").removeprefix("http://")


def main(model: str) -> None:
    atoms = read(Path(__file__).with_name("malonaldehyde.xyz"))
    tensors = {
        "numbers": atoms.numbers.astype(np.int64),
        "positions": atoms.positions.astype(np.float64),
        "natoms": np.array([len(atoms)], np.int64),
    }
    kinds = {"numbers": "INT64", "positions": "FP64", "natoms": "INT64"}
    inputs = []
    for name, array in tensors.items():
        tensor = triton.InferInput(name, list(array.shape), kinds[name])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    client = triton.InferenceServerClient(ADDRESS)
    print("ready:", client.is_server_ready(), client.is_model_ready(model))
    answer = client.infer(model, inputs)
    print("energy", answer.as_numpy("energy"), "eV  std", answer.as_numpy("energy_std"), "eV")
    print("forces", answer.as_numpy("forces").shape, "eV/angstrom")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "malonaldehyde")
