"""One served version of a model: its card, its digest, its family and its lanes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from contract.card import ModelCard
from contract.repository import StoredModel
from service.errors import UnknownOutput
from service.families.potential import Potential
from service.lanes import Lane

MEAN: Final = "model.onnx"
MEMBERS: Final = "model_members.onnx"


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One served version of a model.

    Attributes:
        stored: card, folder and digest, verified.
        family: its pure functions.
        lanes: by graph file; the one with the forces of each member is there only if the model has that file.
        origin: the part of a receipt that is the same for every answer of this model.
    """

    stored: StoredModel
    family: Potential
    lanes: dict[str, Lane]
    origin: Mapping[str, Any]

    @property
    def card(self) -> ModelCard:
        """The model card."""
        return self.stored.card

    def lane(self, member_forces: bool) -> Lane:
        """The queue for a graph.

        Raises:
            UnknownOutput: the forces of each member were asked of a model that does not have them.
        """
        if member_forces and MEMBERS not in self.lanes:
            raise UnknownOutput(
                f"Model '{self.card.name}' has no forces_std: it has {self.card.committee.members} member(s) "
                "and no graph with the forces of each that this engine runs.",
                hint="Leave it out, or ask a committee model on the onnxruntime or triton engine.",
                field="outputs",
            )
        return self.lanes[MEMBERS if member_forces else MEAN]
