"""Active learning beside other ways to choose as many cells: errors on independent frames, and crystals nobody put in.

Smith et al., Nat. Commun. 12, 1257 (2021), scaled down: aluminium labelled by an EAM potential, cells of 32 atoms, the
configuration of training/configs/aluminium-small.yaml with a smaller loop. All arms of a seed have as many labels, the
same network and the same fit from new weights. The loops lie in runs/active-learning and are gone on with.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from ase.build import bulk
from numpy.typing import NDArray

from benchmarks.record import Finding
from contract.structures import Structure, checked_structure
from training.active.loop import run_loop
from training.active.store import Sample
from training.pipelines.learning import held_out_frames
from training.pipelines.metal import Fitted, Metal, MetalConfig
from training.pipelines.registry import read_learning_config
from training.simulators.committee import CommitteeReference
from training.simulators.labels import Labels, Reference
from training.validation.against import UNITS
from training.validation.calculator import ReferenceCalculator
from training.validation.metals import fcc_properties

CONFIG: Final = Path(__file__).parents[1] / "training" / "configs" / "aluminium-small.yaml"
FOLDER: Final = Path("runs") / "active-learning"
SEEDS: Final = (11, 12, 13)
LOOP: Final = {"bootstrap": 20, "generations": 3, "labels_a_generation": 15, "waves_a_generation": 4}
MEMBERS: Final = 3
TEST_FRAMES: Final = 40
TEST_SEED: Final = 999
LATTICE_CONSTANT: Final = 4.05
STRAIN: Final = 0.06
RATTLE_ANGSTROM: Final = 0.4
NOTES: Final = """
Errors of the mean of three members on frames, at random moments, of trajectories that the reference drove from
disordered cells: the arm `reference's dynamics` was drawn from that very law, so these errors favour it. Properties are
relative differences from the same of the reference, absolute values; `properties, mean` averages over them, leaving out
what did not come to rest. The arm `rattled crystal` is the only one that was shown a crystal.
"""


def run() -> Finding:
    """Every arm for every seed, and the means."""
    torch.set_num_threads(1)
    metal = Metal(_config(SEEDS[0]))
    structures = held_out_frames(metal, TEST_FRAMES, TEST_SEED)
    test = (structures, metal.labeller.label(structures))
    exact = _properties(metal.labeller)
    seeds = {str(seed): _arms(seed, test, exact) for seed in SEEDS}
    first = next(iter(seeds.values()))
    means = {arm: _mean([found[arm] for found in seeds.values()]) for arm in first}
    values = {"labels": {s: found["active learning"]["labels"] for s, found in seeds.items()}}
    return Finding({**values, "mean over seeds": means, "by seed": seeds}, NOTES, [*SEEDS])


def _arms(seed: int, test: tuple[list[Structure], Labels], exact: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The three arms of one seed: numbers by name."""
    config = _config(seed)
    metal = Metal(config)
    with ThreadPoolExecutor(1) as executor:
        folder = FOLDER / f"seed-{seed}"
        outcome = run_loop(metal, config.loop, folder, executor, title=f"active learning, seed {seed}")
    active = outcome.store.labelled()
    passive = _samples(metal, held_out_frames(metal, len(active), 100 * seed))
    crystal = _samples(metal, rattled_crystals(len(active), np.random.default_rng(seed)))
    fitted = {
        "active learning": outcome.model,
        "reference's dynamics": metal.fit(passive, 1, folder / "passive"),
        "rattled crystal": metal.fit(crystal, 1, folder / "crystal"),
    }
    return {arm: {"labels": float(len(active)), **_judged(model, test, exact)} for arm, model in fitted.items()}


def rattled_crystals(count: int, rng: np.random.Generator) -> list[Structure]:
    """Cells of 32 atoms of fcc aluminium, strained by up to 6 % and rattled by up to 0.4 angstrom (std)."""
    made = []
    for _ in range(count):
        cube: Any = bulk("Al", "fcc", a=LATTICE_CONSTANT, cubic=True)
        atoms = cube.repeat(2)
        strain = rng.uniform(-STRAIN, STRAIN, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
        moved = atoms.positions + rng.normal(scale=rng.uniform(0.02, RATTLE_ANGSTROM), size=atoms.positions.shape)
        made.append(checked_structure(atoms.numbers, moved, atoms.cell.array, True))
    return made


def _config(seed: int) -> MetalConfig:
    full = read_learning_config(CONFIG)
    network = full.network.model_copy(update={"members": MEMBERS})
    loop = full.loop.model_copy(update={**LOOP, "seed": seed})
    fit = full.fit.model_copy(update={"seed": seed})
    return full.model_copy(update={"loop": loop, "network": network, "fit": fit})


def _samples(metal: Metal, structures: Sequence[Structure]) -> list[Sample]:
    """Labelled structures as the loop keeps them."""
    arrays = [{"numbers": s.numbers, "positions": s.positions, "cell": s.cell} for s in structures]
    return [Sample(i + 1, 0, a, {"reason": "given"}, metal.reference(a)) for i, a in enumerate(arrays)]  # type: ignore[arg-type]


def _judged(model: Fitted, test: tuple[list[Structure], Labels], exact: Mapping[str, float]) -> dict[str, float]:
    reference = CommitteeReference(model.network, model.references, "")
    structures, labels = test
    answer = reference.label(structures)
    atoms = np.array([len(s) for s in structures])
    found = _properties(reference)
    off = {f"{name}, relative": abs(found[name] / exact[name] - 1.0) for name in UNITS}
    return {
        "force RMSE meV/angstrom": _millis(answer.forces - labels.forces),
        "energy RMSE meV/atom": _millis((answer.energy - labels.energy) / atoms),
        **off,
        "properties, mean": float(np.nanmean(list(off.values()))),
    }


def _properties(of: Reference) -> dict[str, float]:
    return fcc_properties("Al", LATTICE_CONSTANT, lambda: ReferenceCalculator(of)).as_dict()


def _millis(error: NDArray[np.float64]) -> float:
    return 1e3 * float(np.sqrt((error**2).mean()))


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds of each number."""
    return {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None}
        for name in found[0]
        for values in [[entry[name] for entry in found]]
    }
