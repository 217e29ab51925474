"""Where the embedded engine runs: what is asked for, what is obtained, and what is told. No GPU is needed."""

import onnxruntime
import pytest
from references import MALONALDEHYDE, reference, shipped

from service.engines import EngineUnavailable
from service.engines.onnxruntime import CPU, CUDA, OnnxRuntime, device_of, providers_for, run_bound

HERE = "cuda" if CUDA in onnxruntime.get_available_providers() else "cpu"


@pytest.mark.parametrize(
    ("device", "available", "asked"),
    [
        ("auto", [CUDA, CPU], [CUDA, CPU]),
        ("auto", ["TensorrtExecutionProvider", CUDA, CPU], [CUDA, CPU]),
        ("auto", [CPU], [CPU]),
        ("cpu", [CUDA, CPU], [CPU]),
        ("cuda", [CUDA, CPU], [CUDA, CPU]),
    ],
)
def test_providers_are_asked_for_by_device(device: str, available: list[str], asked: list[str]) -> None:
    assert providers_for(device, available) == asked  # type: ignore[arg-type]


def test_a_build_without_cuda_refuses_to_start_when_cuda_was_asked_for() -> None:
    with pytest.raises(EngineUnavailable, match=r"UNDERSTUDY_DEVICE=cuda.*pip install .*\.\[gpu\]"):
        providers_for("cuda", [CPU])


def test_what_the_session_obtained_is_told_not_what_the_build_could() -> None:
    assert device_of([CUDA, CPU], "auto") == "cuda"
    assert device_of([CPU], "auto") == "cpu"


def test_a_session_that_fell_back_to_the_cpu_is_refused_when_cuda_was_asked_for() -> None:
    with pytest.raises(EngineUnavailable, match="nvidia-smi"):
        device_of([CPU], "cuda")


@pytest.mark.skipif(HERE == "cuda", reason="this build of ONNX Runtime has CUDA")
def test_the_engine_refuses_cuda_on_this_machine() -> None:
    with pytest.raises(EngineUnavailable):
        OnnxRuntime(1, "cuda")
    assert OnnxRuntime(1, "auto").description.device == "cpu"


def test_a_run_with_bound_inputs_and_outputs_gives_the_same_answers() -> None:
    stored = shipped(MALONALDEHYDE)
    inputs, expected = reference(stored)
    session = onnxruntime.InferenceSession(stored.file("model.onnx"), providers=[CPU])
    outputs = run_bound(session, list(expected), inputs, None, "cpu")
    for name, array in zip(expected, session.run(list(expected), inputs), strict=True):
        assert (outputs[name] == array).all(), name
