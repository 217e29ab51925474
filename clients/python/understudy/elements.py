"""Chemical symbols and formulas, so that neither ASE nor the gateway is needed to name an atom."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

_PERIODIC_TABLE = """
X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc
Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po
At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
SYMBOLS: Final[tuple[str, ...]] = tuple(_PERIODIC_TABLE.split())


def symbols(numbers: Iterable[int]) -> list[str]:
    """Chemical symbols of atomic numbers; a number outside 1..118 is shown as itself."""
    return [SYMBOLS[z] if 0 < z < len(SYMBOLS) else f"Z={z}" for z in map(int, numbers)]


def hill_formula(numbers: Iterable[int]) -> str:
    """Hill formula, such as C3H4O2: carbon and hydrogen first where there is carbon, then the alphabet."""
    counts = Counter(symbols(numbers))
    first = [s for s in ("C", "H") if s in counts] if "C" in counts else []
    order = first + sorted(s for s in counts if s not in first)
    return "".join(s + (str(counts[s]) if counts[s] > 1 else "") for s in order)
