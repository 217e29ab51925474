"""An ASE calculator that asks a gateway."""

import warnings
from collections.abc import Collection
from typing import Any, get_args

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.outputs import Properties, all_outputs

from understudy.client import Client
from understudy.errors import InvalidStructure, ModelChanged
from understudy.options import PredictOptions
from understudy.predictions import Prediction
from understudy.wire import OnOutOfDomain, OptionalOutput


class OutOfDomainWarning(UserWarning):
    """A structure lies outside of what the model was trained on."""


class UnderstudyCalculator(Calculator):
    """Energy, forces and stress of `ase.Atoms` from a gateway.

        atoms.calc = UnderstudyCalculator("http://127.0.0.1:8000", "malonaldehyde")
        atoms.get_potential_energy()          # eV
        atoms.calc.results["energy_std"]      # eV
        atoms.calc.results["domain"].reasons

    `results` holds energy and free_energy (eV, the same number), forces (eV/angstrom), energies (eV, one per atom),
    stress (eV/angstrom^3, xx yy zz yz xz xy, tensile positive; only for atoms periodic in three directions), and beyond
    ASE's own names energy_std (eV, None for a single member), domain (`understudy.wire.DomainVerdict`), digest, receipt
    (`understudy.receipts.Receipt`), and where they were asked for forces_std (eV/angstrom) and stress_std
    (eV/angstrom^3).

    Args:
        url: the gateway's address, or a `Client`; by default `UNDERSTUDY_URL`, else http://127.0.0.1:8000.
        model: the model's name.
        on_out_of_domain: where the model was not trained, `flag` issues an OutOfDomainWarning, `refuse` raises
            OutOfDomain, `answer` only notes it in `results["domain"]`.
        deterministic: bitwise the same answers whoever else asks the gateway; slower where many do.
        model_digest: the weights that must answer, by their digest or at least its first 12 digits.
        forces_std: also ask for the standard deviation of each component of forces and stress; slower.
        key: where the gateway asks for one; by default `UNDERSTUDY_KEY`.

    Raises:
        OutOfDomain: on calculation, where `on_out_of_domain` is `refuse`.
        DigestMismatch: on calculation, when other weights are served than `model_digest` names.
        ModelChanged: on calculation, when the gateway answers with other weights than at first: one trajectory, one
            model.
    """

    name = "understudy"
    implemented_properties = ["energy", "free_energy", "forces", "stress", "energies"]  # noqa: RUF012 (ASE's way)
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012
    discard_results_on_any_change = True

    def __init__(
        self,
        url: str | Client | None = None,
        model: str = "",
        *,
        on_out_of_domain: OnOutOfDomain = "flag",
        forces_std: bool = False,
        deterministic: bool = False,
        model_digest: str | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not model:
            raise ValueError("UnderstudyCalculator needs a model's name; 'understudy models' lists them.")
        if on_out_of_domain not in get_args(OnOutOfDomain):
            raise ValueError(f"on_out_of_domain is '{on_out_of_domain}'; it may be 'answer', 'flag' or 'refuse'.")
        self.client = url if isinstance(url, Client) else Client(url, key=key)
        spreads: Collection[OptionalOutput] = ("forces_std", "stress_std") if forces_std else ()
        self.options: PredictOptions = {
            "outputs": ("atomic_energies", *spreads),
            "deterministic": deterministic,
            "on_out_of_domain": on_out_of_domain,
            "model_digest": model_digest,
        }
        self._digests: dict[str, str] = {}
        super().__init__(model=model, **kwargs)  # type: ignore[no-untyped-call]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Collection[str] = ("energy",),
        system_changes: Collection[str] = all_changes,
    ) -> None:
        """Ask the gateway; ASE calls this when the atoms have changed."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        if self.atoms is None:
            raise InvalidStructure("There are no atoms to calculate.", hint="Call it as atoms.get_potential_energy().")
        prediction = self.client.predict(str(self.parameters["model"]), self.atoms, **self.options)
        self._require_same_weights(prediction)
        self._heed_domain(prediction)
        self.results = _results(prediction)

    def export_properties(self) -> Properties:
        """The results that ASE has a name for."""
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})

    def _require_same_weights(self, prediction: Prediction) -> None:
        first = self._digests.setdefault(prediction.model, prediction.digest)
        if first != prediction.digest:
            raise ModelChanged(
                f"'{prediction.model}' answered with digest {prediction.digest[:12]}, at first with {first[:12]}.",
                hint="Make a new UnderstudyCalculator to go on with the new weights.",
                facts={"expected": first, "got": prediction.digest},
            )

    def _heed_domain(self, prediction: Prediction) -> None:
        domain = prediction.domain
        if domain.in_domain or self.options["on_out_of_domain"] == "answer":
            return
        reasons = "; ".join(domain.reasons) or "no reason given"
        warnings.warn(f"Outside the domain of '{prediction.model}': {reasons}.", OutOfDomainWarning, stacklevel=4)


def _results(prediction: Prediction) -> dict[str, Any]:
    results = {
        "energy": prediction.energy,
        "free_energy": prediction.energy,
        "forces": prediction.forces,
        "energies": prediction.atomic_energies,
        "stress": prediction.stress,
        "forces_std": prediction.forces_std,
        "stress_std": prediction.stress_std,
    }
    known = {name: value for name, value in results.items() if value is not None}
    beyond = {name: getattr(prediction, name) for name in ("energy_std", "domain", "digest", "receipt")}
    return {**known, **beyond}
