"""Chemical symbols and formulas, without a chemistry library."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

_PERIODIC_TABLE = """
X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc
Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po
At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
SYMBOLS: Final[tuple[str, ...]] = tuple(_PERIODIC_TABLE.split())
NUMBERS: Final[dict[str, int]] = {symbol: number for number, symbol in enumerate(SYMBOLS)}


def symbols(numbers: Iterable[int]) -> list[str]:
    """Chemical symbols of atomic numbers 1..118."""
    return [SYMBOLS[number] for number in numbers]


def hill_formula(numbers: NDArray[np.integer]) -> str:
    """Hill formula of a structure, such as C3H4O2: carbon, hydrogen, then the alphabet."""
    counts = {SYMBOLS[z]: int(n) for z, n in zip(*np.unique(numbers, return_counts=True), strict=True)}
    first = [s for s in ("C", "H") if s in counts] if "C" in counts else []
    order = first + sorted(s for s in counts if s not in first)
    return "".join(s + (str(counts[s]) if counts[s] > 1 else "") for s in order)
