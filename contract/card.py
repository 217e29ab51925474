"""The model card: everything a caller, an engine and the gate must know of a model without loading it."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contract.errors import InvalidCard
from contract.layout import is_companion

SCHEMA_VERSION: Final = 1
ALONE_OR_BATCHED: Final = "alone or batched"
"""How the gate's checks of the isolation contract are named, after the graph's file and before the tensor."""


def _own_name(name: str) -> str:
    if is_companion(name):
        raise ValueError("a name that ends so is kept for a further graph of another model")
    return name


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$"), AfterValidator(_own_name)]
Version = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


C = TypeVar("C", bound="Card")


class DataSource(_Part):
    """Where training labels came from."""

    name: str
    origin: str
    licence: str
    sha256: Sha256
    count: int = Field(gt=0, description="labelled configurations used, after cuts")
    level_of_theory: str
    citation: str
    notes: str = ""


class Detection(_Part):
    """How well a kind of structure that the training data do not hold is told from held-out frames that they do."""

    kind: str
    auroc: float = Field(ge=0, le=1, description="by the largest distance of an atom's surroundings; 0.5 is chance")
    flagged: float = Field(ge=0, le=1, description="share with the verdict edge or out")
    count: int = Field(gt=0, description="structures of the kind")


class Surroundings(_Part):
    """The atomic environments of the training data, see contract/environments.py."""

    centres: int = Field(gt=0, description="training environments kept of each element")
    out_beyond: float = Field(gt=1, description="distance above which an answer is out; from 1 on it is at the edge")
    held_out_flagged: float = Field(ge=0, le=1, description="share of held-out frames with the verdict edge or out")
    detection: list[Detection] = Field(default_factory=list)


class Bead(_Part):
    """What a symbol means in a coarse-grained model: not an element."""

    label: str = Field(description="what a bead is called")
    stands_for: str = Field(description="the atoms that it stands for, and where it lies among them")
    mass_u: float = Field(gt=0, description="what dynamics must take in place of the element's mass")


class ThermodynamicState(_Part):
    """A state of a bulk system that the training data are from."""

    kelvin: float = Field(gt=0)
    density_g_cm3: float = Field(gt=0)


class Domain(_Part):
    """What the model was trained on; outside it an answer is flagged."""

    elements: list[str] = Field(min_length=1)
    cutoff_angstrom: float = Field(gt=0)
    formulas: list[str] | None = Field(
        None, description="Hill formulas of the training set; null means any composition"
    )
    min_distance_angstrom: dict[str, float] = Field(
        default_factory=dict, description="smallest distance in training by sorted pair of elements, such as C-H"
    )
    energy_std_in_ev: float | None = Field(None, description="energy_std below which an answer is in the domain")
    energy_std_out_ev: float | None = Field(None, description="energy_std above which an answer is out of it")
    energy_std_atoms: int | None = Field(
        None, gt=0, description="both are for so many atoms and grow with a structure's number; null: for any number"
    )
    surroundings: Surroundings | None = None
    beads: dict[str, Bead] = Field(
        default_factory=dict, description="of a coarse-grained model, by symbol: these elements stand for beads"
    )
    states: list[ThermodynamicState] = Field(
        default_factory=list, description="of a model that is valid at given states only"
    )
    periodic: bool = Field(description="trained on periodic structures")
    description: str

    def energy_std_limits(self, atoms: int) -> tuple[float | None, float | None]:
        """The std in eV below which an answer on so many atoms is in the domain, and above which it is out of it."""
        times = 1.0 if self.energy_std_atoms is None else atoms / self.energy_std_atoms
        inside, outside = self.energy_std_in_ev, self.energy_std_out_ev
        return None if inside is None else times * inside, None if outside is None else times * outside


class Split(_Part):
    """How data were parted."""

    method: str
    train: int
    valid: int
    test: int
    seed: int


class Metric(_Part):
    """One number on data the model never saw."""

    name: str
    value: float
    unit: str
    count: int = Field(description="structures it was taken over")
    interval_95: tuple[float, float] | None = None


class Comparison(_Part):
    """The same metric for something else trained or fitted on the same split."""

    name: str
    metrics: list[Metric]
    notes: str = ""


class Property(_Part):
    """What a model says of matter, beside what the reference that labelled its data says of it."""

    name: str
    unit: str
    value: float
    reference: float


class Coverage(_Part):
    """How often the truth lies within an interval of the calibrated standard deviation around the answer."""

    nominal: float = Field(gt=0, lt=1, description="what the interval is to hold")
    observed: float = Field(ge=0, le=1)
    count: int = Field(gt=0, description="numbers it was taken over")


class Calibration(_Part):
    """How the members' spread of one quantity becomes a standard deviation of the size of its error."""

    scale: float = Field(
        ge=0, description="times the members' sample standard deviation: one calibrated standard deviation holds 68 %"
    )
    floor: float = Field(0.0, ge=0, description="joined to the members' standard deviation as the root of both squares")
    half_width_95: float = Field(gt=0, description="calibrated standard deviations that hold 95 %")
    against: str = Field(description="what the answers were compared with")
    fitted_to: int = Field(gt=0, description="numbers the scale was fitted to; no weight was")
    coverage: list[Coverage] = Field(description="on data that neither the weights nor the scale have seen")
    rank_correlation: float | None = Field(None, description="Spearman's, of the spread with the size of the error")


class Committee(_Part):
    """Members whose spread is the uncertainty."""

    members: int = Field(ge=1)
    ddof: Literal[1] = 1
    energy: Calibration | None = None
    forces: Calibration | None = Field(
        None, description="of each component; null where no forces were held out: then the scale of the energy is used"
    )
    log_permeability: Calibration | None = Field(None, description="of its natural logarithm, for models of flow")

    @property
    def energy_scale(self) -> float:
        """What turns the members' spread of the energy into a standard deviation; 1 where it was not calibrated."""
        return 1.0 if self.energy is None else self.energy.scale

    @property
    def force_scale(self) -> float:
        """The same for forces and stress, which are derivatives of the energy."""
        return self.energy_scale if self.forces is None else self.forces.scale


class TeacherGap(_Part):
    """How far a student is from its teacher on structures that neither was fitted to."""

    energy_ev_per_atom: float = Field(ge=0, description="mean size of the difference")
    forces_ev_angstrom: float = Field(ge=0, description="mean over structures of the root mean square difference")
    energy_bound_ev_per_atom: float = Field(
        ge=0, description="of one structure in twenty it is larger; a running mean above it on live traffic is drift"
    )
    forces_bound_ev_angstrom: float = Field(ge=0, description="the same for forces")
    count: int = Field(gt=0, description="structures it was taken over")


class Teacher(_Part):
    """The slower model that this one was distilled from, which may check its answers."""

    name: Name
    version: Version
    digest: Sha256
    gap: TeacherGap | None = None


class BatchPoint(_Part):
    """One measurement of the batching curve."""

    slots: int
    milliseconds: float


class Memory(_Part):
    """Working memory of one engine call at its peak, beside the loaded model: so much a slot, and so much an atom."""

    bytes_per_slot: float = Field(ge=0)
    bytes_per_atom: float = Field(ge=0)


class BatchingCurve(_Part):
    """Time against neighbour slots on one device, measured at admission."""

    device: str
    engine: str
    threads: int
    points: list[BatchPoint]
    best_slots: int = Field(gt=0, description="slots per call with the lowest time per slot")
    memory: dict[str, Memory] = Field(default_factory=dict, description="of one call by graph file, such as model.onnx")

    @property
    def gains(self) -> bool:
        """Whether some larger batch takes less time per slot than the smallest; what was not measured may gain."""
        alone, *batches = [point.milliseconds / point.slots for point in self.points] or [0.0]
        return not batches or min(batches) < alone


class Training(_Part):
    """What made the weights."""

    pipeline: str
    config_sha256: Sha256
    seed: int
    parameters: int = Field(gt=0)
    cpu_seconds: float
    epochs: int
    revision: str = Field("", description="git revision of the code")
    versions: dict[str, str] = Field(default_factory=dict)


class ModelFile(_Part):
    """One file of a version, by its path relative to the model's folder."""

    path: str = Field(pattern=r"^[1-9][0-9]*/[A-Za-z0-9._-]+$")
    sha256: Sha256
    bytes: int


class Check(_Part):
    """One admission check, what was measured and what was allowed."""

    name: str
    measured: float
    bound: float
    unit: str = ""
    detail: str = Field("", description="over what it was measured, or what failed")

    @property
    def passed(self) -> bool:
        """At most what is allowed; not a number never is."""
        return self.measured <= self.bound


class FlowDomain(_Part):
    """The porous media that a model of flow was trained on; outside them an answer is flagged."""

    porosity: tuple[float, float] = Field(description="of the whole image, smallest and largest in training")
    length_scale_voxels: tuple[float, float] = Field(
        description="square root of the mean over the pores of (distance to the wall - 1/2)^2, likewise"
    )
    lengths_voxels: tuple[int, int] = Field(description="shortest and longest side of a training image")
    families: list[str] = Field(min_length=1, description="kinds of media")
    ends: str = Field(description="how the image goes on at its faces, in training and in every answer")
    log_std_in: float = Field(gt=0, description="std of log permeability below which an answer is in the domain")
    log_std_out: float = Field(gt=0, description="the same above which it is out of it")
    description: str


class Card(_Part):
    """What the card of every family says."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Name
    version: Version
    purpose: str
    architecture: dict[str, str | int | float | bool | list[int] | list[float] | list[list[int]] | dict[str, float]]
    units: dict[str, str]
    signs: dict[str, str]
    data: list[DataSource] = Field(min_length=1)
    split: Split
    metrics: list[Metric] = Field(min_length=1)
    compared_with: list[Comparison] = Field(min_length=1)
    properties: list[Property] = Field(default_factory=list, description="that no label states, computed alike of both")
    committee: Committee
    training: Training
    batching: BatchingCurve
    checks: list[Check] = Field(min_length=1)
    files: list[ModelFile] = Field(min_length=1)
    exporter: dict[str, str]
    created: date
    licence: str
    citation: list[str]

    @property
    def science(self) -> list[str]:
        """Lines that an answer depends on beside the files: part of the version's digest."""
        return []


class ModelCard(Card):
    """A served potential. Written by the gate, read by everyone."""

    family: Literal["potential"]
    energy_is: Literal["potential energy", "free energy"] = Field(
        "potential energy",
        description="a free energy is one of the beads at the states of the domain, up to a constant",
    )
    domain: Domain
    atomic_reference_ev: dict[str, float] = Field(description="per element, added to the graph's energy in float64")
    teacher: Teacher | None = None
    max_slots: int = Field(gt=0, description="neighbour slots above which a request is refused")

    @property
    def science(self) -> list[str]:
        """The references that are added outside the graph."""
        return [f"{element} {energy!r}" for element, energy in sorted(self.atomic_reference_ev.items())]


class FieldCard(Card):
    """A served model of flow through voxel images. Written by the gate, read by everyone."""

    family: Literal["field"]
    domain: FlowDomain
    divisor: int = Field(gt=0, description="lengths are padded with solid to a multiple of it")
    max_voxels: int = Field(gt=0, description="voxels above which a request is refused")


AnyCard = ModelCard | FieldCard
_ANY_CARD: TypeAdapter[AnyCard] = TypeAdapter(Annotated[AnyCard, Field(discriminator="family")])


def read_card(path: Path) -> AnyCard:
    """Read and validate card.json.

    Raises:
        InvalidCard: naming the file and each field that is missing or wrong.
    """
    try:
        return _ANY_CARD.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InvalidCard(f"{path} does not exist; a model folder needs a card.json") from None
    except ValidationError as error:
        raise InvalidCard(f"{path}: {_faults(error)}") from None


def checked_card(**fields: Any) -> ModelCard:
    """A new card of a potential from its fields.

    Raises:
        InvalidCard: naming each field that is missing or wrong.
    """
    return _checked(ModelCard, fields)


def checked_field_card(**fields: Any) -> FieldCard:
    """A new card of a model of flow from its fields.

    Raises:
        InvalidCard: naming each field that is missing or wrong.
    """
    return _checked(FieldCard, fields)


def _checked(kind: type[C], fields: dict[str, Any]) -> C:
    try:
        return kind(**fields)
    except ValidationError as error:
        raise InvalidCard(f"the card of model '{fields.get('name')}': {_faults(error)}") from None


def _faults(error: ValidationError) -> str:
    """Each fault by its field; the union's tag, which pydantic puts first, is no field of the card."""
    tags = ("potential", "field")
    places = [(e["loc"][1:] if e["loc"][:1] and e["loc"][0] in tags else e["loc"], e["msg"]) for e in error.errors()]
    return "; ".join(f"{'.'.join(map(str, place))}: {message}" for place, message in places)
