"""What is loaded: versions of models, each with its card, its digest, its family and its lanes."""

from service.models.loading import load_model, load_models
from service.models.model import MEAN, MEMBERS, FieldModel, Model, Served
from service.models.potentials import compute_of, load_potential
from service.models.served import Models, Standing

__all__ = [
    "MEAN",
    "MEMBERS",
    "FieldModel",
    "Model",
    "Models",
    "Served",
    "Standing",
    "compute_of",
    "load_model",
    "load_models",
    "load_potential",
]
