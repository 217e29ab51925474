"""The embedded engine: ONNX Runtime in this process, as many calls at once as workers, one thread a call on the CPU."""

from collections.abc import Sequence
from typing import Any, Final

import onnxruntime
from numpy.typing import NDArray

from contract.errors import UnsafeArtefact
from contract.repository import StoredModel
from contract.signatures import GRAPHS
from service.engines import Description, EngineUnavailable, Runner, Stop, Tensors
from service.engines.onnx_file import read_self_contained
from service.settings import Device

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
_DEVICES: Final = {CPU: "cpu", CUDA: "cuda"}
_CUDA_OPTIONS: Final = {
    "use_tf32": "0",  # 10 bits of mantissa are not enough for forces
    "arena_extend_strategy": "kSameAsRequested",  # every batch has another shape
    "cudnn_conv_algo_search": "HEURISTIC",
}
_LOG_ERRORS: Final = 3


class OnnxRuntime:
    """ONNX Runtime sessions on the CPU, or on an NVIDIA GPU where there is one.

    One thread a call and no spinning: on shared cores that gave the most calls a second and the steadiest latency
    (measured, 1 thread against 2 with and without spinning). Memory patterns are off because every batch has another
    shape, and each would be remembered.

    Args:
        concurrency: calls that run at once.
        device: where; "auto" is the GPU if it can be had.

    Raises:
        EngineUnavailable: a GPU is asked for, and this build of ONNX Runtime has no CUDA.
    """

    def __init__(self, concurrency: int, device: Device = "auto") -> None:
        self.concurrency = concurrency
        self._device = device
        self._providers = providers_for(device, onnxruntime.get_available_providers())
        if self._providers[0] == CUDA:
            onnxruntime.preload_dlls()
        self.description = Description("onnxruntime", onnxruntime.__version__, _DEVICES[self._providers[0]])

    def opens(self, stored: StoredModel, file: str) -> bool:
        """Whether the model has this graph."""
        return stored.has(file)

    def open(self, stored: StoredModel, file: str) -> Runner:
        """Load one graph and check that it takes and gives what its family's signature says.

        Raises:
            UnsafeArtefact: weights in other files, not an ONNX graph, or another signature.
            EngineUnavailable: a GPU is asked for, and the session does not run on it.
        """
        path = stored.file(file)
        content = read_self_contained(path)
        try:
            session = onnxruntime.InferenceSession(content, _options(), providers=_with_options(self._providers))
        except Exception as error:  # the binding's exceptions share no base of their own
            raise UnsafeArtefact(f"{path} cannot be loaded by ONNX Runtime: {str(error).splitlines()[0]}") from error
        _refuse_other_signature(session, stored, file)
        device = device_of(session.get_providers(), self._device)
        self.description = Description("onnxruntime", onnxruntime.__version__, device)
        outputs = [spec.name for spec in GRAPHS[stored.card.family][file].outputs]

        def run(tensors: Tensors, stop: Stop | None = None) -> dict[str, NDArray[Any]]:
            options = None if stop is None else _stopped_by(stop)
            if device == "cpu":
                return dict(zip(outputs, session.run(outputs, tensors, options), strict=True))
            return run_bound(session, outputs, tensors, options, device)

        return run

    def is_there(self) -> bool:
        """It runs in this process."""
        return True

    def close(self) -> None:
        """Nothing to do: sessions end with their runners."""


def providers_for(device: Device, available: Sequence[str]) -> list[str]:
    """The execution providers to ask for, best first.

    Raises:
        EngineUnavailable: a GPU is asked for, and this build of ONNX Runtime has no CUDA.
    """
    if device == "cpu" or (device == "auto" and CUDA not in available):
        return [CPU]
    if CUDA not in available:
        raise EngineUnavailable(
            "UNDERSTUDY_DEVICE=cuda, but this ONNX Runtime has no CUDA: uninstall onnxruntime, which hides it, then "
            "pip install -e clients/python -e '.[gpu]'"
        )
    return [CUDA, CPU]


def device_of(obtained: Sequence[str], wanted: Device) -> str:
    """The device that a session really runs on, by the providers that it got; a build that has CUDA may find no GPU.

    Raises:
        EngineUnavailable: it is not the one that was asked for.
    """
    device = _DEVICES.get(obtained[0], obtained[0])
    if wanted == "cuda" and device != "cuda":
        raise EngineUnavailable(
            f"UNDERSTUDY_DEVICE=cuda, but ONNX Runtime runs on {device}: it found no NVIDIA GPU, driver or CUDA "
            "library. See what nvidia-smi says, or set UNDERSTUDY_DEVICE=auto"
        )
    return device


def run_bound(
    session: onnxruntime.InferenceSession,
    outputs: Sequence[str],
    tensors: Tensors,
    options: onnxruntime.RunOptions | None,
    device: str,
) -> dict[str, NDArray[Any]]:
    """Run with inputs and outputs bound to a device: each crosses to it, or back, once."""
    binding = session.io_binding()
    for name, array in tensors.items():
        binding.bind_cpu_input(name, array)
    for name in outputs:
        binding.bind_output(name, device)
    session.run_with_iobinding(binding, options)
    return dict(zip(outputs, binding.copy_outputs_to_cpu(), strict=True))


def _with_options(providers: Sequence[str]) -> list[Any]:
    return [(name, _CUDA_OPTIONS) if name == CUDA else name for name in providers]


def _stopped_by(stop: Stop) -> onnxruntime.RunOptions:
    """Options of a call that ends before its next node when it is told to."""
    options = onnxruntime.RunOptions()
    stop.by(lambda: setattr(options, "terminate", True))
    return options


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False
    options.log_severity_level = _LOG_ERRORS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _refuse_other_signature(session: onnxruntime.InferenceSession, stored: StoredModel, file: str) -> None:
    signature = GRAPHS[stored.card.family][file]
    wanted = [{spec.name for spec in side} for side in (signature.inputs, signature.outputs)]
    found = [{node.name for node in side} for side in (session.get_inputs(), session.get_outputs())]
    if wanted[0] != found[0] or not wanted[1] <= found[1]:
        raise UnsafeArtefact(
            f"model '{stored.card.name}': {file} takes {sorted(found[0])} and gives {sorted(found[1])}; family "
            f"'{stored.card.family}' takes {sorted(wanted[0])} and gives {sorted(wanted[1])}"
        )
