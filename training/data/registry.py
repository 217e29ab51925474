"""Public data sets that a user can fetch to retrain: where they are, what they are, and the sha256 they must have."""

from dataclasses import dataclass
from typing import Final, Literal

from training.data.provenance import Provenance
from training.data.qm22 import EnergyZero

_QM22_COMMIT: Final = "fcb74a59c5e6f6a03c3e0116c5d21d6359fdb0e3"
_COMP6_COMMIT: Final = "79f41c156f8e19506fe951b5513b98e7c534a503"
_QM22: Final = "QM-22: Bowman, Qu, Conte, Nandi, Houston, Yu, J. Chem. Phys. 156, 240901 (2022)"
_QU_2018: Final = "Qu et al., J. Chem. Theory Comput. 14, 3381 (2018)"


@dataclass(frozen=True, slots=True)
class PublicData:
    """One downloadable file.

    Attributes:
        provenance: what ends on the model card.
        url: of the exact version that was hashed.
        filename: in the cache.
        sha256: the file must have it.
        format: reader.
        energy_zero: of QM-22 files.
        recommended_max_energy_ev: frames higher than this are broken apart or far from the region of interest.
        size_mb: of the download.
    """

    provenance: Provenance
    url: str
    filename: str
    sha256: str
    format: Literal["qm22", "ani_hdf5"]
    size_mb: float
    energy_zero: EnergyZero = "total"
    recommended_max_energy_ev: float | None = None


def _qm22(
    name: str,
    file: str,
    sha256: str,
    size_mb: float,
    level: str,
    paper: str,
    energy_zero: EnergyZero = "total",
    recommended_max_energy_ev: float | None = None,
) -> PublicData:
    return PublicData(
        provenance=Provenance(
            name=f"QM-22 {name}",
            origin=f"https://github.com/jmbowma/QM-22/blob/{_QM22_COMMIT}/{file}",
            licence="Apache-2.0",
            level_of_theory=level,
            citation=f"{paper}; {_QM22}",
        ),
        url=f"https://raw.githubusercontent.com/jmbowma/QM-22/{_QM22_COMMIT}/{file}",
        filename=file,
        sha256=sha256,
        format="qm22",
        size_mb=size_mb,
        energy_zero=energy_zero,
        recommended_max_energy_ev=recommended_max_energy_ev,
    )


REGISTRY: Final[dict[str, PublicData]] = {
    "qm22-malonaldehyde": _qm22(
        "malonaldehyde",
        "Malonaldehyde.zip",
        "1727bf367aba9de82b932c08fd8a9051a2fce0c6a1ec9b1e05f427cb6165f6e5",
        2.1,
        "CCSD(T)/CBS",
        "Wang et al., J. Chem. Phys. 128, 224314 (2008)",
        energy_zero="relative",
        recommended_max_energy_ev=4.0,
    ),
    "qm22-ethanol": _qm22(
        "ethanol",
        "Ethanol.zip",
        "7c49d71f22f4144abcacd27a113d6370ebf53617e982cba576c0275a7085b4dd",
        2.8,
        "B3LYP",
        "Houston et al., J. Chem. Phys. 156, 044120 (2022)",
    ),
    "qm22-methane": _qm22(
        "methane",
        "Methane.zip",
        "d1ba10916cfbab1a84f10f383b4accdabbcdd52fd0c29d9ca452bf1f22a88d10",
        1.2,
        "B3LYP",
        "Nandi et al., J. Chem. Theory Comput. 15, 2826 (2019)",
    ),
    "qm22-formic-acid-dimer": _qm22(
        "formic acid dimer",
        "Formic_acid_dimer.zip",
        "1685836302b3e73d8039bddf44dbae78ef17b4dff908c621e10ac658f411d42f",
        2.5,
        "CCSD(T)",
        _QU_2018,
        recommended_max_energy_ev=3.0,
    ),
    "qm22-n-methylacetamide": _qm22(
        "N-methylacetamide",
        "N-methylacetamide.zip",
        "1264b0592eb12f03b2dffefb5b8efb616571b0c9ca9f943e6530b21fc4e8e6d4",
        1.9,
        "B3LYP",
        "Nandi et al., J. Chem. Phys. 151, 084306 (2019)",
    ),
    "qm22-hydronium": _qm22(
        "hydronium",
        "Hydronium.zip",
        "f2fe8f98d5c1b1af33824e706a4757392b89ac2efb53ac1a5fab09f52b418080",
        2.2,
        "CCSD(T)",
        _QU_2018,
        energy_zero="relative",
    ),
    "qm22-h2co-hcoh": _qm22(
        "H2CO and HCOH",
        "H2CO_and_HCOH.zip",
        "3ba72b18a24e3f67435798762b66a1f5063e5f209513811c775765e0368f5416",
        2.3,
        "MRCI",
        _QU_2018,
        recommended_max_energy_ev=5.0,
    ),
    "qm22-ochco-cation": _qm22(
        "OCHCO cation",
        "OCHCO_cation.zip",
        "628591f6a997830ee1b947a83f44569efe70ee9dcc069045568add1447b9bed5",
        0.5,
        "CCSD(T)",
        _QU_2018,
        energy_zero="relative",
    ),
    "qm22-tropolone": _qm22(
        "tropolone",
        "Tropolone.zip",
        "17aea645f4688c5206bd34370b5635b1ff9ba3c22a61a7c9c07e1af7661cc1ab",
        2.8,
        "B3LYP",
        "Houston et al., J. Chem. Phys. 153, 024107 (2020)",
        recommended_max_energy_ev=4.0,
    ),
    "comp6-s66x8": PublicData(
        provenance=Provenance(
            name="COMP6 S66x8",
            origin=f"https://github.com/isayev/COMP6/tree/{_COMP6_COMMIT}/COMP6v1/s66x8",
            licence="MIT",
            level_of_theory="wB97X/6-31G*",
            citation="Smith, Nebgen, Lubbers, Isayev, Roitberg, J. Chem. Phys. 148, 241733 (2018)",
        ),
        url=(f"https://raw.githubusercontent.com/isayev/COMP6/{_COMP6_COMMIT}/COMP6v1/s66x8/s66x8_wb97x6-31gd.h5"),
        filename="s66x8_wb97x6-31gd.h5",
        sha256="c4708b2659cc3608e231ce8d1810f8407011f94bf98739a5e427c8723b19c778",
        format="ani_hdf5",
        size_mb=2.3,
    ),
}
