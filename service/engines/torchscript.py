"""TorchScript in this process: model.pt, the everyday graph. No other module of the service imports torch."""

import hashlib
import io
import warnings
from typing import Any

import torch
from numpy.typing import NDArray

from contract.errors import DigestMismatch, UnsafeArtefact
from contract.layout import GRAPH
from contract.repository import StoredModel
from contract.signatures import GRAPHS
from service.engines import Description, EngineUnavailable, Runner, Stop, Tensors
from service.settings import Device

FILE = "model.pt"


class TorchScript:
    """Runs what the exporter traced, one thread a call. There is no TorchScript of the graph with the members' forces.

    Args:
        concurrency: calls that run at once.
        device: where; "auto" is the GPU if torch finds one.

    Raises:
        EngineUnavailable: a GPU is asked for, and torch finds none.
    """

    def __init__(self, concurrency: int, device: Device = "auto") -> None:
        there = torch.cuda.is_available()
        if device == "cuda" and not there:
            raise EngineUnavailable(
                "UNDERSTUDY_DEVICE=cuda, but torch finds no GPU: see what nvidia-smi says, install a torch with CUDA, "
                "or set UNDERSTUDY_DEVICE=auto"
            )
        self.concurrency = concurrency
        self._device = "cuda" if there and device != "cpu" else "cpu"
        self.description = Description("torchscript", torch.__version__, self._device)
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(1)

    def opens(self, stored: StoredModel, file: str) -> bool:
        """Whether the model has this graph as TorchScript."""
        return file == GRAPH and stored.has(FILE)

    def open(self, stored: StoredModel, file: str) -> Runner:
        """Load the everyday graph.

        Raises:
            ModelNotFound: the model has no TorchScript.
            DigestMismatch: the file is not the one on the card; it is not unpacked.
            UnsafeArtefact: another graph is asked for, or torch cannot load the file.
        """
        if file != GRAPH:
            raise UnsafeArtefact(
                f"model '{stored.card.name}' has no TorchScript of {file}; set UNDERSTUDY_ENGINE=onnxruntime for it"
            )
        path = stored.file(FILE)
        content = path.read_bytes()
        on_card = next(entry.sha256 for entry in stored.card.files if entry.path == f"{stored.card.version}/{FILE}")
        if hashlib.sha256(content).hexdigest() != on_card:
            raise DigestMismatch(f"{path} differs from the sha256 on its card; restore it or publish the model again")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is in maintenance: we know
                module = torch.jit.load(io.BytesIO(content), map_location=self._device)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise UnsafeArtefact(f"{path} cannot be loaded by torch: {str(error).splitlines()[0]}") from error
        signature = GRAPHS[stored.card.family][file]

        def run(tensors: Tensors, stop: Stop | None = None) -> dict[str, NDArray[Any]]:
            with torch.inference_mode():
                inputs = [torch.from_numpy(tensors[spec.name]).to(self._device) for spec in signature.inputs]
                outputs = module(*inputs)
                return {
                    spec.name: output.cpu().numpy() for spec, output in zip(signature.outputs, outputs, strict=True)
                }

        return run

    def is_there(self) -> bool:
        """It runs in this process."""
        return True

    def close(self) -> None:
        """Give torch its threads back."""
        torch.set_num_threads(self._threads_before)
