"""From a published committee to frames that the training pipelines read."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from ase import Atoms
from ase.io import read
from click.testing import Result
from typer.testing import CliRunner

from contract.repository import ModelRepository
from contract.structures import checked_structure
from training.cli import sample
from training.data.extxyz import ExtxyzKeys, read_extxyz
from training.data.provenance import Provenance
from training.data.splits import split_by_group
from training.sampling.errors import NoCommittee, NothingKept
from training.sampling.followed import Followed
from training.sampling.organic import OrganicConfig, sample_organic
from training.simulators.ani import AniReference
from training.simulators.references import AniSpec, Gfn2Spec

pytest.importorskip("rdkit", reason="the extra `sampling` is not installed")

CONFIG = OrganicConfig(
    name="tiny", molecules=12, groups=3, conformers=1, frames=2, turned=1, dimers=3, seed=3,
    most_spread_ev=1e9, highest_force_ev=1e9,
)  # fmt: skip
DECLARED = Provenance(name="tiny", origin="test", licence="MIT", level_of_theory="random", citation="none")


@pytest.fixture
def frames(ensemble: Path, tmp_path: Path) -> Path:
    return sample_organic(CONFIG, AniSpec(path=ensemble), tmp_path / "run")


def test_frames_hold_the_reference_labels(frames: Path, ensemble: Path) -> None:
    kept = read(frames, index=":")
    record = json.loads((frames.parent / "sampling.json").read_text())
    assert record["frames"] == len(kept)
    assert set(record["kinds"]) >= {"conformer", "dynamics", "dimer"}
    atoms = kept[len(kept) // 2]
    labels = AniReference(ensemble).label([checked_structure(atoms.numbers, atoms.positions)])
    assert atoms.info["REF_energy"] == pytest.approx(labels.energy[0], abs=1e-5)
    assert np.allclose(atoms.arrays["REF_forces"], labels.forces, rtol=1e-5, atol=1e-4)


def test_the_training_pipelines_read_them_and_no_molecule_is_split(frames: Path) -> None:
    dataset = read_extxyz(frames, DECLARED, ExtxyzKeys(group="group"))
    assert dataset.forces is not None
    parts = split_by_group(dataset, (0.34, 0.33, 0.33), seed=0)
    names = [{read(frames, index=int(i)).info["molecule"] for i in part} for part in (parts.train, parts.test)]
    whole = [{one for name in part for one in name.split(".")} for part in names]
    assert not whole[0] & whole[1]


def test_the_same_seed_gives_the_same_frames(frames: Path, ensemble: Path, tmp_path: Path) -> None:
    again = sample_organic(CONFIG, AniSpec(path=ensemble), tmp_path / "again")
    first, second = (read(path, index=-1) for path in (frames, again))
    assert np.array_equal(first.positions, second.positions)


def test_frames_on_which_the_committee_disagrees_are_left_out(frames: Path, ensemble: Path, tmp_path: Path) -> None:
    labels = AniReference(ensemble).label([checked_structure(a.numbers, a.positions) for a in read(frames, index=":")])
    middle = float(np.median(labels.energy_std / np.sqrt([len(a) for a in read(frames, index=":")])))
    sample_organic(CONFIG.model_copy(update={"most_spread_ev": middle}), AniSpec(path=ensemble), tmp_path / "strict")
    record = json.loads((tmp_path / "strict" / "sampling.json").read_text())
    assert abs(record["left_out"] - record["frames"]) <= 1


def test_an_earlier_student_s_dynamics_is_followed_until_it_is_unsure(ensemble: Path, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[3] / "model_repo" / "organic"
    few = CONFIG.model_copy(update={"molecules": 4, "dimers": 0})
    for name, most in (("sure", 1e9), ("unsure", 1e-9)):
        how = Followed(model=shipped, length_fs=4.0, energy_std_ev=most, forces_std_ev_angstrom=1e9)
        sample_organic(few.model_copy(update={"followed": how}), AniSpec(path=ensemble), tmp_path / name)
    sure, unsure = (
        {a.info["molecule"]: a for a in read(tmp_path / name / "frames.extxyz", ":") if a.info["kind"] == "followed"}
        for name in ("sure", "unsure")
    )
    made = json.loads((tmp_path / "sure" / "sampling.json").read_text())
    assert len(sure) == len(unsure) == made["molecules"]
    assert made["followed_digest"] == ModelRepository(shipped.parent).load("organic").digest
    starts = [a.positions for a in read(tmp_path / "sure" / "frames.extxyz", ":") if a.info["kind"] != "followed"]

    def moved(atoms: Atoms) -> float:
        return min(float(np.abs(atoms.positions - p).max()) for p in starts if len(p) == len(atoms))

    assert min(moved(atoms) for atoms in sure.values()) > 1e-3
    assert max(moved(atoms) for atoms in unsure.values()) < 1e-6  # unsure at once: the start itself


def test_only_a_committee_can_be_followed(ensemble: Path, tmp_path: Path) -> None:
    lone = Path(__file__).parents[3] / "model_repo" / "aluminium-student"
    with pytest.raises(NoCommittee, match="aluminium-student"):
        sample_organic(
            CONFIG.model_copy(update={"followed": Followed(model=lone)}), AniSpec(path=ensemble), tmp_path / "none"
        )


def test_limits_that_nothing_meets_are_an_error(ensemble: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingKept, match="most_spread_ev"):
        sample_organic(CONFIG.model_copy(update={"most_spread_ev": 1e-12}), AniSpec(path=ensemble), tmp_path / "none")


def test_molecules_without_the_labeller_s_elements_are_an_error(ensemble: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingKept, match="elements"):
        sample_organic(CONFIG.model_copy(update={"smiles": ("CBr",)}), AniSpec(path=ensemble), tmp_path / "none")


def test_the_command_labels_molecules_of_one_s_own_with_the_calculator_of_the_configuration(tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason="the extra `simulators` is not installed")
    done = _sample(tmp_path, "reference: {kind: gfn2}\nsmiles: [CO, CBr, O]\ndimers: 0\nframes: 2\n")
    assert done.exit_code == 0, done.stderr
    kept = read(tmp_path / "tiny" / "frames.extxyz", index=":")
    record = json.loads((tmp_path / "tiny" / "sampling.json").read_text())
    assert record["level_of_theory"].startswith("GFN2-xTB, tblite ")
    assert record["frames"] == len(kept)
    assert {atoms.info["molecule"] for atoms in kept} == {"CO", "CBr", "O"}
    atoms = kept[-1]
    again = Gfn2Spec().open().label([checked_structure(atoms.numbers, atoms.positions)])
    assert atoms.info["REF_energy"] == pytest.approx(again.energy[0], abs=1e-5)
    assert np.allclose(atoms.arrays["REF_forces"], again.forces, atol=1e-4)


@pytest.mark.parametrize(
    ("said", "options", "expected"),
    [
        ("", ["--labeller", "no.tar.gz"], "neither a folder"),
        ("", [], "nothing that labels is named"),
        ("reference: {kind: gfn2}\n", ["--labeller", "no.tar.gz"], "both `reference` and --labeller"),
        ("reference: {kind: magic}\n", [], "reference"),
        ("reference: {kind: gfn2}\nsmiles: [C, nonsense]\n", [], "'nonsense' is no SMILES"),
    ],
)
def test_the_command_says_what_is_wrong_with_the_labeller(
    said: str, options: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("no.tar.gz").write_bytes(b"no")
    done = _sample(tmp_path, f"molecules: 2\n{said}", *options)
    assert done.exit_code == 1
    assert expected in done.stderr


def _sample(folder: Path, said: str, *options: str) -> Result:
    """`understudy sample` of a configuration named tiny, in this process."""
    app = typer.Typer()
    app.command()(sample)
    config = folder / "c.yaml"
    config.write_text(f"name: tiny\n{said}")
    return CliRunner().invoke(app, [str(config), "--runs", str(folder), *options])
