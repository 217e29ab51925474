"""LitServe with its own batching, two workers; JSON, since that is what its users send.

python -m benchmarks.peers.lit PORT GRAPH CUTOFF
"""

import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np

from benchmarks.peers.direct import Direct
from contract.structures import Structure, checked_structure

BATCH = 16
WINDOW_S = 0.005
WORKERS = 2


class Potential(litserve.LitAPI):
    """The graph behind LitServe's hooks."""

    def setup(self, device: str) -> None:
        self.direct = Direct(Path(sys.argv[2]), float(sys.argv[3]))

    def decode_request(self, request: dict[str, Any]) -> Structure:
        return checked_structure(request["numbers"], np.array(request["positions"]))

    def batch(self, inputs: list[Structure]) -> list[Structure]:
        return inputs

    def predict(self, structures: list[Structure]) -> list[Any]:
        return self.direct(structures)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"energy": output[0].tolist(), "forces": output[1].tolist()}


if __name__ == "__main__":
    api = Potential(max_batch_size=BATCH, batch_timeout=WINDOW_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, timeout=120)
    server.run(port=int(sys.argv[1]), log_level="error", generate_client_file=False)
