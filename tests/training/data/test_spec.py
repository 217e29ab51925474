import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from contract.units import HARTREE_EV
from training.data import DataSpec, load
from training.data.checks import UnsoundData
from training.data.errors import Unreachable, UnreadableData
from training.data.registry import REGISTRY

SPEC: TypeAdapter[Any] = TypeAdapter(DataSpec)
OWN = {"name": "mine", "origin": "here", "licence": "CC0-1.0", "level_of_theory": "HF", "citation": "me"}
TEXT = "1\n-0.5\nH 0 0 0\n1\n-0.4\nH 1 0 0\n"


def own(path: Path, **more: Any) -> Any:
    return SPEC.validate_python({"format": "qm22", "path": path, "provenance": OWN, "energy_zero": "total"} | more)


@pytest.fixture
def hydrogen(tmp_path: Path) -> Path:
    path = tmp_path / "h.xyz"
    path.write_text(TEXT)
    return path


def test_a_file_of_ones_own_is_read_cut_and_checked(hydrogen: Path) -> None:
    dataset = load(own(hydrogen, max_energy_ev=1.0))
    assert dataset.energy == pytest.approx([-0.5 * HARTREE_EV])
    assert dataset.sources[0].name == "mine"


def test_a_public_data_set_brings_its_provenance_and_its_recommended_cut(
    hydrogen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(
        REGISTRY["qm22-formic-acid-dimer"],
        filename="h.xyz",
        sha256=hashlib.sha256(TEXT.encode()).hexdigest(),
        recommended_max_energy_ev=2.0,
    )
    monkeypatch.setitem(REGISTRY, "hydrogen", entry)
    spec = SPEC.validate_python({"format": "qm22", "fetch": "hydrogen", "max_energy_ev": "recommended"})
    dataset = load(spec, cache=hydrogen.parent)
    assert len(dataset) == 1
    assert dataset.sources[0].licence == "Apache-2.0"
    assert dataset.sources[0].level_of_theory == "CCSD(T)"


def test_a_public_data_set_that_cannot_be_had_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(REGISTRY["qm22-methane"], url="http://127.0.0.1:9/Methane.zip")
    monkeypatch.setitem(REGISTRY, "qm22-methane", entry)
    spec = SPEC.validate_python({"format": "qm22", "fetch": "qm22-methane"})
    with pytest.raises(Unreachable, match=f"save it as {tmp_path / 'Methane.zip'}"):
        load(spec, cache=tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableData, match=r"gone\.xyz is not a file"):
        load(own(tmp_path / "gone.xyz"))


def test_unsound_labels_are_refused_on_loading_unless_accepted(tmp_path: Path) -> None:
    path = tmp_path / "h.xyz"
    path.write_text("1\n-20000.0\nC 0 0 0\n")
    with pytest.raises(UnsoundData, match="energy_unit"):
        load(own(path))
    assert len(load(own(path, accept=["energy_unit"]))) == 1


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"format": "qm22"}, "give either `fetch`"),
        ({"format": "qm22", "fetch": "qm22-ethanol", "path": "x.xyz"}, "give either `fetch`"),
        ({"format": "qm22", "path": "x.xyz", "energy_zero": "total"}, "`path` needs `provenance`"),
        ({"format": "qm22", "path": "x.xyz", "provenance": OWN}, "give `energy_zero`"),
        ({"format": "qm22", "fetch": "qm22-ethanol", "energy_zero": "total"}, "give `energy_zero`"),
        ({"format": "qm22", "fetch": "qm22-ethanol", "provenance": OWN}, "is known; leave it out"),
        ({"format": "qm22", "fetch": "benzene"}, "no public data set is called 'benzene'"),
        ({"format": "extxyz", "fetch": "qm22-ethanol"}, "qm22-ethanol has format qm22, not extxyz"),
        ({"format": "extxyz", "path": "x", "provenance": OWN, "max_energy_ev": "recommended"}, "public data sets only"),
        ({"format": "extxyz", "path": "x", "provenance": OWN, "energy_unit": "rydberg"}, "hartree"),
        ({"format": "extxyz", "path": "x", "provenance": OWN, "max_energy_ev": -1}, "greater than 0"),
        ({"format": "ani_hdf5", "path": "x", "provenance": {**OWN, "licence": ""}}, "provenance.licence"),
        ({"format": "sdf", "path": "x", "provenance": OWN}, "'qm22', 'extxyz', 'ani_hdf5'"),
        ({"format": "qm22", "fetch": "qm22-ethanol", "max_energy": 4.0}, "Extra inputs are not permitted"),
    ],
)
def test_a_section_that_leaves_something_to_guess_is_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SPEC.validate_python(section)
    assert said in str(caught.value)
