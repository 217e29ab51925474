"""The language of the wire: the small parts of requests and answers, as the gateway and its clients both read them.

Arrays of any size travel beside these, as tensors (`understudy.framing`) or as plain JSON lists.
Unknown members are ignored, so that an older client understands a newer gateway.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from understudy.receipts import Receipt, Weights

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]
Voigt = tuple[float, float, float, float, float, float]
Verdict = Literal["in", "edge", "out"]
OptionalOutput = Literal["forces_std", "stress_std", "atomic_energies"]
Priority = Literal["interactive", "bulk"]
OnOutOfDomain = Literal["answer", "flag", "refuse"]
Check = Literal["teacher"]
Escalate = Literal["never", "flagged", "always"]
Promise = Literal["bitwise", "tolerance"]
ReplayVerdict = Literal["bitwise", "within_tolerance", "different", "not_compared"]
Flag = Literal["out_of_domain", "edge_of_domain", "high_std", "teacher_gap"]
Command = Literal["load", "unload", "reload", "promote", "rollback", "shadow"]

UNITS: Final[Mapping[str, str]] = {
    "positions": "angstrom",
    "cell": "angstrom",
    "energy": "eV",
    "energy_std": "eV",
    "atomic_energies": "eV",
    "forces": "eV/angstrom",
    "forces_std": "eV/angstrom",
    "stress": "eV/angstrom^3",
    "stress_std": "eV/angstrom^3",
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class StructureIn(_Part):
    """Atoms in space, as a caller sends them."""

    numbers: list[int] = Field(description="atomic numbers, one per atom", min_length=1)
    positions: list[Vector] = Field(description="angstrom, [n, 3]")
    cell: Matrix | None = Field(None, description="angstrom, rows are lattice vectors; needed where pbc is true")
    pbc: bool | tuple[bool, bool, bool] = Field(False, description="periodic along each lattice vector")


class PredictRequest(_Part):
    """Body of `POST /v1/predict/{model}` as JSON."""

    structures: list[StructureIn] = Field(min_length=1)
    outputs: list[OptionalOutput] = Field([], description="asked for in addition to energy, forces and stress")
    version: str | None = Field(None, description="of the model; by default the promoted one")
    timeout_s: float | None = Field(None, gt=0, description="seconds that the answer may take")
    deterministic: bool = Field(
        False, description="run each structure alone, so that its answer is bitwise the same in every company"
    )
    on_out_of_domain: OnOutOfDomain = Field(
        "flag",
        description="where the model was not trained. answer: the verdict says so; flag: the result is marked too; "
        "refuse: 422 in place of an answer",
    )
    check: Check | None = Field(
        None, description="teacher: what the model's teacher says, and the gap, in the same answer"
    )
    escalate: Escalate = Field(
        "never", description="which structures the teacher answers in place of the model: flagged ones, or all"
    )
    model_digest: str | None = Field(
        None,
        pattern="^[0-9a-f]{12,64}$",
        description="the weights that must answer, by their digest or at least its first 12 digits; 412 if others are "
        "served",
    )
    priority: Priority = Field(
        "interactive", description="bulk waits for interactive work of everyone, but for a least share"
    )


class DomainVerdict(_Part):
    """Whether the model was trained for what it was asked."""

    in_domain: bool
    verdict: Verdict = Field(description="in, at the edge of, or out of the training domain")
    reasons: list[str] = Field([], description="one sentence each; empty when in the domain")
    atoms: list[int] = Field([], description="indices of the atoms that the reasons speak of")


class Gap(_Part):
    """What a student differs from its teacher by, on one structure."""

    energy_ev_per_atom: float = Field(description="student minus teacher")
    forces_rms_ev_angstrom: float = Field(description="root mean square over the components of all atoms")
    forces_max_ev_angstrom: float = Field(description="the longest difference vector of an atom")


class Uncertainty(_Part):
    """How to read energy_std, forces_std and stress_std."""

    members: int = Field(description="committee members; with a single one there is no standard deviation")
    ddof: int = Field(1, description="the divisor of the variance is members - ddof")
    calibrated: bool = Field(
        False,
        description="standard deviations were scaled so that one holds the error of 68 % of held-out frames; otherwise "
        "they are the members' own",
    )
    half_width_95: dict[str, float] = Field(
        {},
        description="by quantity, how many standard deviations hold 95 %; only of what was compared with held-out data",
    )


class Answerer(Weights):
    """Who answered, and how to read its standard deviations."""

    uncertainty: Uncertainty | None = None


class TeacherOpinion(Answerer):
    """What the teacher says of a structure."""

    energy: float = Field(description="eV, total")
    energy_std: float | None = Field(None, description="eV, over the teacher's members")
    gap: Gap
    forces: list[Vector] | None = Field(None, description="eV/angstrom, [n, 3]; in JSON, with check=teacher")


class ResultHead(_Part):
    """What is small in the answer for one structure."""

    energy: float | None = Field(None, description="eV, total")
    energy_std: float | None = Field(
        None,
        description="eV, standard deviation over the committee, calibrated where `uncertainty` says so: then it holds "
        "the error in 68 % of cases; null for a single member",
    )
    domain: DomainVerdict
    flags: list[str] = Field([], description="why to hesitate; left out where on_out_of_domain is answer")
    answered_by: Answerer | None = Field(
        None, description="the model or its teacher; only where escalation was asked for"
    )
    teacher: TeacherOpinion | None = Field(None, description="only where the teacher was asked too")


class Result(ResultHead):
    """The whole answer for one structure, as JSON."""

    forces: list[Vector] = Field(description="eV/angstrom, [n, 3], -dE/dr of the committee mean")
    stress: Voigt | None = Field(
        None, description="eV/angstrom^3, xx yy zz yz xz xy, tensile positive; only when periodic in 3 directions"
    )
    forces_std: list[Vector] | None = Field(None, description="eV/angstrom, as energy_std; only when asked for")
    stress_std: Voigt | None = Field(
        None, description="eV/angstrom^3, as energy_std; only when asked for and periodic in 3 directions"
    )
    atomic_energies: list[float] | None = Field(None, description="eV, one per atom; only when asked for")


class _Answer(_Part):
    model: str
    version: str
    digest: str = Field(description="SHA-256 of the model that answered")
    units: dict[str, str] = Field(description="of every quantity in the answer")
    uncertainty: Uncertainty | None = None
    receipt: Receipt | None = Field(None, description="what this answer depends on; keep it to ask for it again")


class PredictionHead(_Answer):
    """JSON head of a binary answer; the arrays follow as tensors."""

    results: list[ResultHead]


class PredictionAnswer(_Answer):
    """The same answer wholly as JSON."""

    results: list[Result]


class SizeIn(_Part):
    """A structure by its size alone; either neighbours or the density."""

    atoms: int = Field(gt=0)
    neighbours: float | None = Field(None, description="within the model's cutoff, of the atom that has most")
    atoms_per_cubic_angstrom: float | None = Field(None, description="from which mean neighbours are estimated")


class PlanRequest(_Part):
    """Body of `POST /v1/plan`: that of a prediction with the model's name, or sizes in place of structures."""

    model: str
    structures: list[StructureIn] | None = None
    sizes: list[SizeIn] | None = None
    outputs: list[OptionalOutput] = []
    deterministic: bool = False


class PlannedRefusal(_Part):
    """Why a structure would be refused."""

    code: str
    detail: str
    hint: str = ""


class PlannedStructure(_Part):
    """What one structure would cost."""

    atoms: int
    neighbours: int = Field(description="of the atom that has most")
    slots: int
    refusal: PlannedRefusal | None = None
    domain: DomainVerdict | None = Field(None, description="without the committee's spread, which only a run shows")


class PlannedSeconds(_Part):
    """How long it would take now."""

    queue: float
    engine: float
    total: float


class LimitHit(_Part):
    """A limit that the request would hit."""

    name: str
    limit: float
    got: float
    unit: str


class ModelPlan(_Part):
    """What a request would cost one model."""

    model: str
    version: str
    digest: str
    fits: bool = Field(description="it would be answered")
    slots: int = Field(description="neighbour slots: the unit of cost")
    batches: int = Field(description="engine calls")
    seconds: PlannedSeconds | None = Field(None, description="null where the card has no curve for the graph")
    memory_bytes: int | None = Field(None, description="beyond the loaded model; null where the card does not say")
    measured_on: str = ""
    limits: list[LimitHit] = []


class PlanAnswer(ModelPlan):
    """Answer of `POST /v1/plan`."""

    structures: list[PlannedStructure]
    alternative: ModelPlan | None = Field(None, description="the fastest other model that fits, if it is faster")


class ReplayRequest(_Part):
    """Body of `POST /v1/replay`."""

    receipt: Receipt
    structures: list[StructureIn] = Field(min_length=1, description="as they were asked, with all digits")
    results: list[dict[str, Any]] | None = Field(None, description="of the first answer, to compare with")


class ReplayReport(_Part):
    """Whether the answer is still the same."""

    verdict: ReplayVerdict = Field(description="bitwise: energies and forces are equal to the last bit")
    promised: Promise = Field(
        description="bitwise only if the first answer was deterministic, and engine, software and platform are the same"
    )
    reason: str
    changed: dict[str, tuple[Any, Any]] = Field(
        {}, description="what bits depend on and is not as it was: then and now"
    )
    energy_difference_ev: float | None = None
    forces_difference_ev_angstrom: float | None = None
    tolerance: dict[str, float] = {}


class ReplayAnswer(PredictionAnswer):
    """Answer of `POST /v1/replay`: the prediction as it is now, and the comparison."""

    replay: ReplayReport


class ModelSummary(_Part):
    """One line of `GET /v1/models`."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    name: str
    family: str
    version: str = ""
    digest: str = ""
    purpose: str = ""
    elements: list[str] = []
    formulas: list[str] | None = Field(None, description="Hill formulas trained on; null where any composition goes")
    beads: dict[str, str] = Field({}, description="of a coarse-grained model: what each symbol stands for")
    members: int = Field(1, description="committee members; energy_std needs at least two")


class ModelList(_Part):
    """Answer of `GET /v1/models`."""

    models: list[ModelSummary]


class CommandIn(_Part):
    """Body of `POST /v1/admin/models/{model}/{command}`."""

    version: str | None = Field(None, description="of the model; what it is by default depends on the command")
    force: bool = Field(False, description="promote without a good record, or step down")


class VersionState(_Part):
    """How it stands with one version of a model."""

    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"] = Field(description="whether it can be asked")
    reason: str = Field("", description="why it cannot")
    digest: str = Field("", description="SHA-256 of what is loaded")
    requests: int = Field(0, description="under way")


class ShadowReport(_Part):
    """What is known of a version that follows live traffic; differences are from the promoted version's answers."""

    version: str
    digest: str = ""
    requests: int = Field(description="followed")
    requests_wanted: int = Field(description="before it may be promoted")
    structures: int = Field(0, description="compared")
    outside: int = Field(0, description="structures not compared, being out of the promoted version's domain")
    failed: int = Field(0, description="requests that it gave no answer to")
    missed: int = Field(0, description="requests not followed because the gateway was busy")
    energy_rms_mev_per_atom: float = 0.0
    energy_max_mev_per_atom: float = 0.0
    forces_rms_ev_per_angstrom: float = 0.0
    forces_max_ev_per_angstrom: float = 0.0
    latency_ratio: float | None = Field(None, description="time of its answers over that of the promoted version's")
    drift: list[str] = Field([], description="how it differs by more than is allowed, one sentence each")


class ModelVersions(_Part):
    """Answer to a command, and one line of `GET /v1/admin/models`."""

    model: str
    done: str = Field("", description="what the command did")
    promoted: str | None = Field(None, description="the version that answers those who name none")
    versions: list[VersionState] = []
    shadow: ShadowReport | None = None


class VersionsList(_Part):
    """Answer of `GET /v1/admin/models`."""

    models: list[ModelVersions]


class Problem(_Part):
    """An error body: RFC 9457, with a stable code, a remedy, and facts as further members."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    type: str = "about:blank"
    title: str = ""
    status: int
    code: str
    detail: str
    hint: str = ""
    error: str = Field("", description="detail and hint in one line, for KServe clients")
    request_id: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """The typed particulars beside the standard members."""
        return dict(self.model_extra or {})
