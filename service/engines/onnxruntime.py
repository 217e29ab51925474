"""The embedded engine: ONNX Runtime in this process, one thread a call, as many calls at once as workers."""

from typing import Any, Final

import onnxruntime
from numpy.typing import NDArray

from contract.errors import UnsafeArtefact
from contract.repository import StoredModel
from contract.signatures import GRAPHS
from service.engines import Description, Runner, Stop, Tensors
from service.engines.onnx_file import read_self_contained

_LOG_ERRORS: Final = 3


class OnnxRuntime:
    """ONNX Runtime sessions on the CPU.

    One thread a call and no spinning: on shared cores that gave the most calls a second and the steadiest latency
    (measured, 1 thread against 2 with and without spinning). Memory patterns are off because every batch has another
    shape, and each would be remembered.

    Args:
        concurrency: calls that run at once.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.description = Description("onnxruntime", onnxruntime.__version__, "cpu")

    def open(self, stored: StoredModel, file: str) -> Runner:
        """Load one graph and check that it takes and gives what its family's signature says.

        Raises:
            UnsafeArtefact: weights in other files, not an ONNX graph, or another signature.
        """
        path = stored.file(file)
        content = read_self_contained(path)
        try:
            session = onnxruntime.InferenceSession(content, _options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # the binding's exceptions share no base of their own
            raise UnsafeArtefact(f"{path} cannot be loaded by ONNX Runtime: {str(error).splitlines()[0]}") from error
        _refuse_other_signature(session, stored, file)
        outputs = [spec.name for spec in GRAPHS[stored.card.family][file].outputs]

        def run(tensors: Tensors, stop: Stop | None = None) -> dict[str, NDArray[Any]]:
            options = None if stop is None else _stopped_by(stop)
            return dict(zip(outputs, session.run(outputs, tensors, options), strict=True))

        return run


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
