"""From a repository to models that answer: every family by its own opener."""

from collections.abc import Callable
from typing import Final

from contract.errors import ModelNotFound
from contract.repository import ModelRepository, StoredModel
from service.engines import Engine
from service.lanes import Turns
from service.models.fields import load_field
from service.models.model import MEAN, Served
from service.models.potentials import load_potential
from service.models.served import Models
from service.settings import Limits

_OPENERS: Final[dict[str, Callable[[StoredModel, Engine, Turns, Limits], Served]]] = {
    "potential": load_potential,
    "field": load_field,
}


def load_models(repository: ModelRepository, engine: Engine, turns: Turns, limits: Limits) -> Models:
    """Verify, open and warm every model of a repository; a model of flow only if the engine runs it.

    Raises:
        RepositoryError: a model must not be served, naming the file and the reason; or there is none.
    """
    names = repository.names()
    if not names:
        raise ModelNotFound(
            f"there is no model in {repository.root}; name another folder with --model-repo or UNDERSTUDY_MODEL_REPO, "
            "or publish a model into it"
        )
    for name in names:
        repository.settle(name)
    stored = [repository.load(name) for name in sorted(names, key=lambda name: repository.family(name) == "field")]
    here = [each for each in stored if each.card.family != "field" or engine.opens(each, MEAN)]
    models = Models([load_model(each, engine, turns, limits) for each in here])
    for each in here:
        models.note_versions(each.card.name, repository.versions(each.card.name))
    return models


def load_model(stored: StoredModel, engine: Engine, turns: Turns, limits: Limits) -> Served:
    """Open one verified model of any family.

    Raises:
        RepositoryError: it must not be served, and why.
    """
    return _OPENERS[stored.card.family](stored, engine, turns, limits)
