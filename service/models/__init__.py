"""What is loaded: models by name, each with its card, its digest, its family and its lanes."""

from service.models.loading import compute_of, load_model, load_models
from service.models.model import MEAN, MEMBERS, Model
from service.models.served import Models

__all__ = ["MEAN", "MEMBERS", "Model", "Models", "compute_of", "load_model", "load_models"]
