"""Inside real Triton's python backend: dynamic batching hands over several structures of different sizes at once."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        value = {name: parameters[name]["string_value"] for name in ("project", "graph", "cutoff")}
        sys.path.insert(0, value["project"])
        from benchmarks.peers.direct import Direct
        from contract.structures import checked_structure

        self.direct = Direct(Path(value["graph"]), float(value["cutoff"]))
        self.structure = checked_structure

    def execute(self, requests: list[Any]) -> list[Any]:
        structures = [
            self.structure(
                pb.get_input_tensor_by_name(request, "numbers").as_numpy().ravel(),
                pb.get_input_tensor_by_name(request, "positions").as_numpy().reshape(-1, 3),
            )
            for request in requests
        ]
        return [
            pb.InferenceResponse(
                [
                    pb.Tensor("energy", np.ascontiguousarray(energy)[None]),
                    pb.Tensor("forces", np.ascontiguousarray(forces)[None]),
                ]
            )
            for energy, forces in self.direct(structures)
        ]
