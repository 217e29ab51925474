"""A model beside the reference that labelled it: every property of a metal computed alike for both."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from contract.card import Property
from training.simulators.labels import Reference
from training.validation.calculator import ReferenceCalculator
from training.validation.metals import MakeCalculator, cold_curve, fcc_properties, melt_rdf

UNITS: Final[Mapping[str, str]] = {
    "lattice_constant": "angstrom",
    "bulk_modulus": "GPa",
    "c11": "GPa",
    "c12": "GPa",
    "c44": "GPa",
    "vacancy": "eV",
    "surface_100": "J/m^2",
    "surface_111": "J/m^2",
    "hcp_minus_fcc": "eV/atom",
    "bcc_minus_fcc": "eV/atom",
}


class FccValidation(BaseModel):
    """Which crystal and melt are looked at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lattice_constant: float = Field(gt=0, description="first guess, angstrom")
    curve: float = Field(0.06, gt=0, lt=0.5, description="the cold curve reaches so far to both sides, relative")
    melt_lattice_constant: float = Field(gt=0, description="the melt has the volume of fcc with this one, angstrom")
    kelvin: float = Field(1200.0, gt=0, description="of the melt")
    melt_steps: int = Field(750, ge=1, description="of 2 fs, to melt, and again to settle")
    steps: int = Field(1500, ge=25, description="of 2 fs, over which the radial distribution is averaged")
    seeds: int = Field(2, ge=2, description="runs of the reference's melt, whose difference is the noise")


def compare_fcc(symbol: str, how: FccValidation, model: Reference, reference: Reference) -> dict[str, Any]:
    """Properties by name with their unit, of the model and of its reference; cold curve and melt as lists.

    Args:
        symbol: of the element.
        how: which crystal and melt.
        model: a committee (training/simulators/committee.py), or what stands in for one.
        reference: what labelled its data.
    """
    ours, theirs = (_properties(symbol, how, calculator) for calculator in (model, reference))
    scalars = {name: {"unit": unit, "model": ours[name], "reference": theirs[name]} for name, unit in UNITS.items()}
    return {
        "scalars": scalars,
        "cold_curve": _curves(symbol, how, model, reference),
        "melt": _melts(symbol, how, model, reference),
    }


def properties_of(compared: Mapping[str, Any]) -> list[Property]:
    """What `compare_fcc` found, as entries of a card; those that did not come to rest are left out."""
    found = [
        Property(name=name.replace("_", " "), unit=each["unit"], value=each["model"], reference=each["reference"])
        for name, each in compared["scalars"].items()
        if np.isfinite([each["model"], each["reference"]]).all()
    ]
    melt, curve = compared["melt"], compared["cold_curve"]
    return [
        *found,
        Property(
            name=f"cold curve, {curve['lattice_constant'][0]:.2f} to {curve['lattice_constant'][-1]:.2f} angstrom, "
            "root mean square difference",
            unit="meV/atom",
            value=curve["rms_mev_an_atom"],
            reference=0.0,
        ),
        Property(
            name=f"radial distribution of the melt at {melt['kelvin']:.0f} K, mean difference (of the reference: "
            "between two of its runs)",
            unit="1",
            value=melt["difference"],
            reference=melt["noise"],
        ),
    ]


def mean_difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Mean absolute difference of two radial distributions on one even grid."""
    return float(np.abs(first - second).mean())


def _maker(reference: Reference) -> MakeCalculator:
    """Makes a calculator for each structure: ASE's keep what they said of the last one."""
    return lambda: ReferenceCalculator(reference)


def _properties(symbol: str, how: FccValidation, of: Reference) -> dict[str, float]:
    return fcc_properties(symbol, how.lattice_constant, _maker(of)).as_dict()


def _curves(symbol: str, how: FccValidation, model: Reference, reference: Reference) -> dict[str, Any]:
    """Energy an atom, eV, over lattice constants, angstrom, with the root mean square difference in meV an atom."""
    constants = how.lattice_constant * np.linspace(1.0 - how.curve, 1.0 + how.curve, 13)
    ours, theirs = (cold_curve(symbol, constants, _maker(of)) for of in (model, reference))
    return {
        "lattice_constant": constants.tolist(),
        "model": ours.tolist(),
        "reference": theirs.tolist(),
        "rms_mev_an_atom": 1e3 * float(np.sqrt(((ours - theirs) ** 2).mean())),
    }


def _melts(symbol: str, how: FccValidation, model: Reference, reference: Reference) -> dict[str, Any]:
    """Radial distributions of the melt, and how far apart they are beside two runs of the reference."""
    r, ours = _melt(symbol, how, model, 0)
    theirs = [_melt(symbol, how, reference, seed)[1] for seed in range(how.seeds)]
    return {
        "kelvin": how.kelvin,
        "r": r.tolist(),
        "model": ours.tolist(),
        "reference": np.mean(theirs, axis=0).tolist(),
        "difference": mean_difference(ours, theirs[0]),
        "noise": mean_difference(theirs[0], theirs[1]),
    }


def _melt(symbol: str, how: FccValidation, of: Reference, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return melt_rdf(
        symbol, how.melt_lattice_constant, _maker(of), kelvin=how.kelvin, melt_steps=how.melt_steps, steps=how.steps,
        seed=seed,
    )  # fmt: skip
