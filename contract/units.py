"""Units and signs. Inside Understudy: eV, angstrom, eV/angstrom, eV/angstrom^3; force = -dE/dr; tensile stress > 0.

Values: CODATA 2014 as in ase.units, so that labels converted with ASE agree to the last digit.
"""

from typing import Final

HARTREE_EV: Final = 27.211386024367243
BOHR_ANGSTROM: Final = 0.5291772105638411
KCAL_MOL_EV: Final = 0.04336410390059322
HARTREE_PER_BOHR_EV_ANGSTROM: Final = HARTREE_EV / BOHR_ANGSTROM
EV_PER_ANGSTROM3_GPA: Final = 160.21766208
G_PER_CM3: Final = 1.66053906660
"""One u in a cubic angstrom."""

POTENTIAL_UNITS: Final[dict[str, str]] = {
    "positions": "angstrom",
    "cell": "angstrom",
    "energy": "eV",
    "energy_std": "eV",
    "atomic_energies": "eV",
    "forces": "eV/angstrom",
    "forces_std": "eV/angstrom",
    "virial": "eV",
    "stress": "eV/angstrom^3",
    "stress_std": "eV/angstrom^3",
}

POTENTIAL_SIGNS: Final[dict[str, str]] = {
    "forces": "-dE/dr of the committee mean",
    "virial": "dE/dstrain of the committee mean",
    "stress": "virial / |det cell|, tensile positive, Voigt order xx yy zz yz xz xy",
    "energy_std": "sample standard deviation over members, ddof = 1, times the scale of the card",
    "forces_std": "the same for each component",
    "stress_std": "the same for each component",
}

DARCY_M2: Final = 9.869233e-13
MILLIDARCY_M2: Final = 1e-3 * DARCY_M2


def permeability_in_units(voxel2: float, voxel_size_um: float) -> dict[str, float]:
    """A permeability in voxel^2, m^2 and millidarcy: k_voxel2, k_m2, k_mD."""
    m2 = voxel2 * (voxel_size_um * 1e-6) ** 2
    return {"k_voxel2": voxel2, "k_m2": m2, "k_mD": m2 / MILLIDARCY_M2}


FIELD_UNITS: Final[dict[str, str]] = {
    "voxel_size": "micrometre",
    "k_voxel2": "voxel^2",
    "k_m2": "m^2",
    "k_mD": "millidarcy",
    "porosity": "1",
    "connected_porosity": "1",
    "throat": "voxel",
    "velocity": "voxel^2",
}

FIELD_SIGNS: Final[dict[str, str]] = {
    "k_voxel2": "mean of the velocity field over all voxels, pores and solid: the superficial velocity of Darcy's law",
    "velocity": "component along the flow's axis times viscosity over pressure gradient, positive with the flow; "
    "in m/s: times voxel size squared, times pressure gradient, over viscosity",
    "axes": "x, y, z are the axes of the array as it is sent, first to last",
}
