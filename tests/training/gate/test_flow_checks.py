"""The gate of flow models finds a graph whose answer depends on where the rock lies in its image."""

import numpy as np

from training.gate.engines import Arrays, Engine
from training.gate.flow import FlowSubmission, moved_images_are_alike
from training.networks.msnet import MSNetConfig
from training.networks.permeability import PermeabilityCommittee
from training.sampling.porous_media import packs


def submission(engine: Engine) -> FlowSubmission:
    committee = PermeabilityCommittee.of(MSNetConfig(scales=3), members=2, mean_distance=1.0, factor=1.0)
    images = [packs(16, 0.5, np.random.default_rng(seed)) for seed in range(3)]
    return FlowSubmission(engine, committee, images, 0.1, 0.2)


def conduction(tensors: Arrays) -> Arrays:
    """The estimate itself, which sees no position."""
    flow = tensors["estimate"].sum(axis=(1, 2, 3), dtype=np.float64)
    return {"velocity": tensors["estimate"], "member_flow": np.stack([flow, flow])}


def sloping(tensors: Arrays) -> Arrays:
    """The estimate, larger from side to side of the image."""
    slope = np.linspace(0.5, 1.5, tensors["estimate"].shape[1], dtype=np.float32)[:, None, None]
    return conduction({**tensors, "estimate": slope * tensors["estimate"]})


def test_an_answer_that_depends_on_where_the_rock_lies_is_found() -> None:
    (alike,), (sloped,) = (list(moved_images_are_alike(submission(engine))) for engine in (conduction, sloping))
    assert alike.passed
    assert alike.measured < 1e-6
    assert not sloped.passed
