"""What comes back for one structure, and how a batch's answer is parted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.errors import BadAnswer
from understudy.framing import Array
from understudy.receipts import Receipt
from understudy.wire import Answerer, DomainVerdict, Gap, PredictionHead, ResultHead, TeacherOpinion, Uncertainty

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """What the model's teacher says of the same structure.

    Attributes:
        weights: which ones, and how to read energy_std.
        energy: eV, total.
        energy_std: eV, over the teacher's members.
        forces: [n, 3] eV/angstrom; None unless `check` was asked for.
        gap: what the model differs from it by.
    """

    weights: Answerer
    energy: float
    energy_std: float | None
    forces: Floats | None
    gap: Gap

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, as the gateway writes it."""
        forces = {} if self.forces is None else {"forces": self.forces.tolist()}
        said = {"energy": self.energy, "energy_std": self.energy_std, "gap": self.gap.model_dump(), **forces}
        return {**self.weights.model_dump(), **said}


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer for one structure.

    Attributes:
        energy: eV, total.
        forces: [n, 3] eV/angstrom, -dE/dr of the committee mean.
        stress: [6] eV/angstrom^3, Voigt order xx yy zz yz xz xy, tensile positive; None unless periodic in three
            directions.
        energy_std: eV, standard deviation over the committee, calibrated where `uncertainty` says so; None for a single
            member.
        forces_std: [n, 3] eV/angstrom, the same for each force component; None unless asked for.
        stress_std: [6] eV/angstrom^3, the same for the stress; None unless asked for.
        atomic_energies: [n] eV; None unless asked for.
        domain: whether the model was trained for such a structure, and if not, why and where.
        model, version, digest: which weights answered.
        units: of every quantity, as the gateway states them.
        flags: why to hesitate: out_of_domain, edge_of_domain, high_std, teacher_gap.
        answered_by: the model or its teacher; None unless escalation was asked for.
        teacher: what the teacher says; None unless it was asked.
        receipt: what this answer depends on, to ask for it again; None from a gateway that gives none.
        uncertainty: how many members they are taken over, whether calibrated, and how wide an interval of 95 % is.
    """

    energy: float
    forces: Floats
    stress: Floats | None
    energy_std: float | None
    forces_std: Floats | None
    stress_std: Floats | None
    atomic_energies: Floats | None
    domain: DomainVerdict
    model: str
    version: str
    digest: str
    units: Mapping[str, str]
    uncertainty: Uncertainty | None
    receipt: Receipt | None = None
    flags: tuple[str, ...] = ()
    answered_by: Answerer | None = None
    teacher: Teacher | None = None

    @property
    def max_force(self) -> float:
        """eV/angstrom, norm of the largest force on an atom."""
        return float(np.linalg.norm(self.forces, axis=1).max())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, shaped as one of the `results` of `POST /v1/predict/{model}`."""
        arrays = {
            "forces": self.forces,
            "stress": self.stress,
            "forces_std": self.forces_std,
            "stress_std": self.stress_std,
            "atomic_energies": self.atomic_energies,
        }
        said = {
            "energy": self.energy,
            "energy_std": self.energy_std,
            **{name: array.tolist() for name, array in arrays.items() if array is not None},
            "domain": self.domain.model_dump(),
            "flags": list(self.flags),
        }
        if self.answered_by is not None:
            said["answered_by"] = self.answered_by.model_dump()
        if self.teacher is not None:
            said["teacher"] = self.teacher.to_dict()
        return said


def part(head: PredictionHead, tensors: Mapping[str, Array], natoms: Sequence[int]) -> list[Prediction]:
    """One prediction per structure from the answer for a batch.

    Args:
        head: the answer's JSON.
        tensors: energy [B], forces [N, 3]; where present energy_std [B], stress, stress_std [B, 6], forces_std [N, 3],
            atomic_energies [N].
        natoms: atoms of each structure, as they were sent.

    Raises:
        BadAnswer: the answer is not for these structures.
    """
    _check(head, tensors, natoms)
    ends = np.cumsum(natoms)
    return [
        _prediction(head, result, tensors, index, slice(int(end) - n, int(end)))
        for index, (result, end, n) in enumerate(zip(head.results, ends, natoms, strict=True))
    ]


def _check(head: PredictionHead, tensors: Mapping[str, Array], natoms: Sequence[int]) -> None:
    structures, atoms = len(natoms), int(sum(natoms))
    shapes: dict[str, tuple[int, ...]] = {
        "energy": (structures,),
        "energy_std": (structures,),
        "stress": (structures, 6),
        "stress_std": (structures, 6),
        "forces": (atoms, 3),
        "forces_std": (atoms, 3),
        "atomic_energies": (atoms,),
        "teacher_energy": (structures,),
        "teacher_forces": (atoms, 3),
    }
    missing = [name for name in ("energy", "forces") if name not in tensors]
    wrong = [n for n, shape in shapes.items() if n in tensors and tensors[n].shape != shape]
    if missing or wrong or len(head.results) != structures:
        raise BadAnswer(
            f"The answer is not for the {structures} structures and {atoms} atoms that were sent: "
            f"{len(head.results)} results, missing tensors {missing}, tensors of another shape {wrong}.",
            hint="The gateway and this client may be of different versions.",
        )


def _prediction(
    head: PredictionHead, result: ResultHead, tensors: Mapping[str, Array], index: int, atoms: slice
) -> Prediction:
    return Prediction(
        energy=float(tensors["energy"][index]),
        forces=np.array(tensors["forces"][atoms], np.float64),
        stress=_copy(tensors.get("stress"), index),
        energy_std=_energy_std(result, tensors.get("energy_std"), index),
        forces_std=_copy(tensors.get("forces_std"), atoms),
        stress_std=_copy(tensors.get("stress_std"), index),
        atomic_energies=_copy(tensors.get("atomic_energies"), atoms),
        domain=result.domain,
        model=head.model,
        version=head.version,
        digest=head.digest,
        units=head.units,
        uncertainty=head.uncertainty,
        receipt=None if head.receipt is None else head.receipt.of(index),
        flags=tuple(result.flags),
        answered_by=result.answered_by,
        teacher=_teacher(result.teacher, tensors, atoms),
    )


def _teacher(said: TeacherOpinion | None, tensors: Mapping[str, Array], atoms: slice) -> Teacher | None:
    if said is None:
        return None
    forces = _copy(tensors.get("teacher_forces"), atoms)
    weights = Answerer.model_validate(said.model_dump())
    return Teacher(weights, said.energy, said.energy_std, forces, said.gap)


def _copy(tensor: Array | None, where: int | slice) -> Floats | None:
    """Float64 of its own, so that a kept prediction does not keep its whole batch alive."""
    return None if tensor is None else np.array(tensor[where], np.float64)


def _energy_std(result: ResultHead, tensor: Array | None, index: int) -> float | None:
    value = result.energy_std if tensor is None else float(tensor[index])
    return None if value is None or np.isnan(value) else value
