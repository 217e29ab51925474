"""One loaded version of a model: its card, its digest, its family, its lanes, and who is using it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from contract.card import AnyCard, FieldCard, ModelCard
from contract.repository import StoredModel
from service.errors import UnknownOutput
from service.families.field import FlowFamily
from service.families.potential import Potential
from service.lanes import Lane
from service.models.warmth import Warm

MEAN: Final = "model.onnx"
MEMBERS: Final = "model_members.onnx"


@dataclass(slots=True, eq=False, kw_only=True)
class Served:
    """One version of a model of any family, from its loading until the last request that uses it has ended.

    `with model:` is a request under way. A model that is no longer served still ends what it has begun; its sessions
    go with the last reference to it.

    Attributes:
        stored: card, folder and digest, verified.
        lanes: by graph file.
        origin: the part of a receipt that is the same for every answer of this model.
        warm: which shapes its graphs have seen.
        users: requests under way.
    """

    stored: StoredModel
    lanes: dict[str, Lane]
    origin: Mapping[str, Any]
    warm: Warm = field(default_factory=Warm)
    users: int = 0
    _unused: asyncio.Event | None = None

    @property
    def card(self) -> AnyCard:
        """The model card."""
        return self.stored.card

    @property
    def version(self) -> str:
        """Its number."""
        return self.stored.card.version

    def __enter__(self) -> Self:
        self.users += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.users -= 1
        if not self.users and self._unused is not None:
            self._unused.set()

    async def drained(self) -> None:
        """Return when no request uses it any more."""
        while self.users:
            self._unused = asyncio.Event()
            await self._unused.wait()


@dataclass(slots=True, eq=False, kw_only=True)
class Model(Served):
    """A potential. The lane of the graph with the forces of each member is there only if the model has that file.

    Attributes:
        family: its pure functions.
    """

    family: Potential

    @property
    def card(self) -> ModelCard:
        """The model card."""
        return self.stored.potential_card

    def lane(self, member_forces: bool) -> Lane:
        """The queue for a graph.

        Raises:
            UnknownOutput: the forces of each member were asked of a model that does not have them.
        """
        if member_forces and MEMBERS not in self.lanes:
            raise UnknownOutput(
                f"Model '{self.card.name}' has neither forces_std nor stress_std: it has "
                f"{self.card.committee.members} member(s) and no graph with the forces of each that this engine runs.",
                hint="Leave it out, or ask a committee model on the onnxruntime or triton engine.",
                field="outputs",
            )
        return self.lanes[MEMBERS if member_forces else MEAN]


@dataclass(slots=True, eq=False, kw_only=True)
class FieldModel(Served):
    """A model of flow.

    Attributes:
        family: its pure functions.
        passes: over the tiles of an image that is too large for one call; 0: it has no graphs for that.
    """

    family: FlowFamily
    passes: int = 0

    @property
    def card(self) -> FieldCard:
        """The model card."""
        return self.stored.field_card

    @property
    def lane(self) -> Lane:
        """The queue of whole images."""
        return self.lanes[MEAN]
