"""The arms of the training claims are what they say."""

import numpy as np
import pytest

from benchmarks.permeability_training import ARMS, by_width
from contract.flow import flow_inputs
from training.networks.msnet import MSNet
from training.networks.permeability import FEATURES


def _parameters(name: str) -> int:
    return sum(p.numel() for p in MSNet(ARMS[name].network, FEATURES).parameters())


def test_one_wide_scale_has_as_many_parameters_as_three() -> None:
    assert _parameters("conduction, 1 wide scale") == pytest.approx(_parameters("conduction, 3 scales"), rel=0.02)


def test_an_arm_without_the_estimate_sees_only_how_wide_the_pores_are() -> None:
    inputs = flow_inputs(np.random.default_rng(0).random((12, 12, 12)) < 0.7, 2, 4)
    seen = by_width(inputs)
    inside = seen.estimate[inputs.pore > 0]
    assert inside == pytest.approx(np.full(inside.shape, inputs.length_scale**2))
    assert not seen.estimate[inputs.pore == 0].any()
    assert seen.pores is inputs.pores
