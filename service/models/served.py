"""What is served: models by name."""

from collections.abc import Iterator, Sequence

from service.errors import UnknownModel
from service.models.model import Model


class Models:
    """The models that are served, by name."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._by_name = {model.card.name: model for model in models}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._by_name.values())

    def get(self, name: str, version: str | None = None) -> Model:
        """A model, in the version that is served or the one named.

        Raises:
            UnknownModel: naming what is served.
        """
        model = self._by_name.get(name)
        if model is None:
            served = list(self._by_name)
            raise UnknownModel(
                f"No model '{name[:64]}' is served here.", hint=f"There are: {', '.join(served)}.", models=served
            )
        if version is not None and version != model.card.version:
            raise UnknownModel(
                f"Model '{name}' is not served in version '{version[:20]}'.",
                hint=f"It is served in version {model.card.version}.",
                versions=[model.card.version],
            )
        return model
