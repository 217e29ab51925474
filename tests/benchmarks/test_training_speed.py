"""The benchmark of training steps takes every batch of both, on one thread."""

import pytest
import torch

hippynn = pytest.importorskip("hippynn")

from benchmarks import training_speed  # noqa: E402
from training.objectives.forces import EnergyForceObjective  # noqa: E402


def test_both_train_on_all_batches_and_their_ratio_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_speed, "FRAMES", 8)
    monkeypatch.setattr(training_speed, "ROUNDS", 1)
    found = training_speed.case("student", 4, EnergyForceObjective(mode="adjoint"), "_pytorch_raw")
    assert found["hippynn_kernel"] == "_pytorch_raw"
    assert found["times"] == pytest.approx(found["hippynn"] / found["ours"])
    assert torch.get_num_threads() == 1
