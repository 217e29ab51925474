"""The tensors of the Open Inference Protocol by family: the domain's own, not those of a graph."""

from dataclasses import dataclass
from typing import Any, Final

from service.models import MEMBERS, FieldModel, Model, Served


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the domain's signature; -1 is a free size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False
    source: str = ""

    def metadata(self) -> dict[str, Any]:
        """As a model's metadata describe it."""
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}

    def config(self) -> dict[str, Any]:
        """As Triton's model configuration describes it."""
        kind = {"name": self.name, "data_type": f"TYPE_{self.datatype}", "dims": self.shape}
        return {**kind, "optional": True} if self.optional else kind


_INPUTS: Final = (
    Tensor("numbers", "INT64", (-1,)),
    Tensor("positions", "FP64", (-1, 3)),
    Tensor("natoms", "INT64", (-1,), optional=True),
    Tensor("cell", "FP64", (-1, 3, 3), optional=True),
    Tensor("pbc", "BOOL", (-1, 3), optional=True),
)
_OUTPUTS: Final = (
    Tensor("energy", "FP64", (-1,)),
    Tensor("forces", "FP32", (-1, 3)),
    Tensor("virial", "FP64", (-1, 3, 3)),
    Tensor("in_domain", "BOOL", (-1,)),
    Tensor("atomic_energy", "FP64", (-1,), source="atomic_energies"),
)
_COMMITTEE_OUTPUTS: Final = (Tensor("energy_std", "FP64", (-1,)),)
_MEMBER_OUTPUTS: Final = (Tensor("forces_std", "FP32", (-1, 3)), Tensor("stress_std", "FP64", (-1, 6)))
_PERIODIC_OUTPUTS: Final = (Tensor("stress", "FP64", (-1, 6)),)
_TEACHER_OUTPUTS: Final = (
    Tensor("teacher_energy", "FP64", (-1,)),
    Tensor("teacher_forces", "FP32", (-1, 3)),
    Tensor("teacher_gap", "FP64", (-1, 3)),
)
TEACHER: Final = frozenset(tensor.name for tensor in _TEACHER_OUTPUTS)
OF_A_VOLUME: Final = ("stress", "stress_std")

FIELD_INPUTS: Final = (
    Tensor("image", "UINT8", (-1, -1, -1)),
    Tensor("voxel_size_um", "FP64", (1,)),
    Tensor("axes", "INT64", (-1,), optional=True),
    Tensor("pore_values", "INT64", (-1,), optional=True),
)
_FIELD_OUTPUTS: Final = (
    Tensor("k_m2", "FP64", (-1,)),
    Tensor("k_mD", "FP64", (-1,)),
    Tensor("k_voxel2", "FP64", (-1,)),
    Tensor("porosity", "FP64", (1,)),
    Tensor("connected_porosity", "FP64", (-1,)),
    Tensor("flux_std", "FP64", (-1,)),
    Tensor("in_domain", "BOOL", (-1,)),
    Tensor("velocity", "FP32", (-1, -1, -1, -1)),
)
_INTERVAL: Final = (Tensor("k_mD_interval_95", "FP64", (-1, 2)),)
SILENT_FIELDS: Final = frozenset({"velocity"})


def platform_of(model: Served) -> str:
    """The kind of model, as metadata name it."""
    return f"understudy_{model.card.family}"


def inputs_of(model: Served) -> tuple[Tensor, ...]:
    """The inputs that a model takes."""
    return FIELD_INPUTS if isinstance(model, FieldModel) else _INPUTS


def outputs_of(model: Served) -> tuple[Tensor, ...]:
    """The outputs that a model can be asked for."""
    if isinstance(model, FieldModel):
        calibrated = model.card.committee.members > 1 and model.card.committee.log_permeability is not None
        return (*_FIELD_OUTPUTS, *(_INTERVAL if calibrated else ()))
    return _of_potential(model) if isinstance(model, Model) else ()


def _of_potential(model: Model) -> tuple[Tensor, ...]:
    committee = _COMMITTEE_OUTPUTS if model.card.committee.members > 1 else ()
    members = _MEMBER_OUTPUTS if MEMBERS in model.lanes else ()
    teacher = _TEACHER_OUTPUTS if model.card.teacher is not None else ()
    return (*_OUTPUTS, *committee, *members, *_PERIODIC_OUTPUTS, *teacher)


def listed_outputs(model: Served) -> tuple[Tensor, ...]:
    """The outputs of every answer, for clients that ask for whatever is listed.

    Left out, though they are given when asked for: the stress of a model that was trained on structures without a
    volume, what costs an answer of the teacher, and a field as large as the image.
    """
    of_a_volume = () if isinstance(model, Model) and model.card.domain.periodic else OF_A_VOLUME
    silent = {*TEACHER, *SILENT_FIELDS, *of_a_volume}
    return tuple(tensor for tensor in outputs_of(model) if tensor.name not in silent)
