"""What is loaded: versions of models, each with its card, its digest, its family and its lanes."""

from service.models.loading import compute_of, load_model, load_models
from service.models.model import MEAN, MEMBERS, Model
from service.models.served import Models, Standing

__all__ = ["MEAN", "MEMBERS", "Model", "Models", "Standing", "compute_of", "load_model", "load_models"]
