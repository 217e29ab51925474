"""Do force fields of beads carry over from one thermodynamic state to another, and does it help to see more than pairs?

Each arm is trained at one state a and simulated at every state b, all on the frames of methanol-frames-small.yaml, with
one cutoff and, but for one of them, one prior:

    tensor     HIP-NN-TS, l = 2
    scalar     HIP-NN, l = 0: many beads at once, but no directions
    no-prior   HIP-NN-TS, l = 2, without the repulsion
    pair       one pair force by least squares

    D[a, b] = E_RDF of the arm trained at a and simulated at b, against the mapped atoms at b; likewise E_ADF and R2
    on  = mean of D[a, a],   off = mean of D[a, b] over b != a

A run that breaks counts as one whose beads are nowhere: g = 0, no angle in common. What is done is kept under
runs/coarse_graining, so the comparison goes on where it was stopped; `python -m benchmarks.coarse_graining ARM` does
the part of one arm alone.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from benchmarks.intervals import half_width_95
from benchmarks.kept import folder_of, kept, kept_network
from benchmarks.record import Finding
from contract.graphs import build_graph
from contract.repository import sha256_of
from training.coarse.dynamics import BeadForces, DynamicsConfig, NetworkForces
from training.coarse.frames import BeadFrames, State, read_frames
from training.pipelines.coarse_graining import (
    Arrangement,
    CoarseGrainingConfig,
    Liquid,
    arranged,
    fit_network,
    fit_pair,
    joined,
    liquid_of,
    noise_floor,
    r_squared,
    simulated,
)

CONFIG = Path("training/configs/methanol-cg-small.yaml")
SEEDS = (1, 2, 3)
PAIR, NO_PRIOR = "pair", "no-prior"
ARMS: dict[str, dict[str, int]] = {
    "tensor": {"order": 2, "interaction_layers": 1},
    "scalar": {"order": 0, "interaction_layers": 1},
    NO_PRIOR: {"order": 2, "interaction_layers": 1},
    PAIR: {},
}
EPOCHS = 12  # one state has a quarter of the frames of four
DYNAMICS = {"settling_ps": 1.2, "sampling_ps": 4.8, "frame_every_ps": 0.08, "step_fs": 8.0, "friction_per_ps": 2.0}
ERRORS = ("E_RDF", "E_ADF")

Result = dict[str, Any]


class Setting(NamedTuple):
    """What every arm shares: states, frames as read and in parts, how atoms are arranged; where results are kept."""

    config: CoarseGrainingConfig
    liquid: Liquid
    folder: Path
    read: BeadFrames
    frames: BeadFrames
    test: BeadFrames
    arranged: list[Arrangement]


def run() -> Finding:
    """Every arm, seed and pair of states."""
    torch.set_num_threads(1)
    setting = _prepared()
    results = [result for arm in ARMS for result in results_of(arm, setting)]
    names = [state.name for state in setting.liquid.states]
    noise = [noise_floor(setting.frames, s, a, setting.config) for s, a in enumerate(setting.arranged)]
    summaries = {arm: summary([r for r in results if r["arm"] == arm], len(names)) for arm in ARMS}
    return Finding(
        {
            "states": names,
            "noise_floor": {error: [n[error] for n in noise] for error in ERRORS},
            "arms": summaries,
            "against_pair": {arm: against_pair(summaries[arm], summaries[PAIR]) for arm in ARMS if arm != PAIR},
            "cpu_seconds_of_training": {
                arm: float(np.mean([r["cpu_seconds"] for r in results if r["arm"] == arm])) for arm in ARMS
            },
        },
        __doc__.partition("\n")[0] + " Scaled down: 216 molecules, 209 training frames a state, 4.8 ps of dynamics.",
        seeds=list(SEEDS),
        digests={"frames": sha256_of(setting.config.data.path)},
    )


def results_of(arm: str, setting: Setting) -> list[Result]:
    """One result for each seed and training state a, at every state b; those that are on disk are not made again."""
    return [
        kept(setting.folder / f"{arm}-{seed}-{a}.json", partial(_trained, arm, seed, a, setting))
        for seed in SEEDS
        for a in range(len(setting.liquid.states))
    ]


def summary(results: Sequence[Result], states: int) -> dict[str, Any]:
    """Matrices averaged over seeds, and on- and off-state means with the 95 % interval over seeds."""
    seeds = sorted({r["seed"] for r in results})
    found: dict[str, Any] = {"seeds": seeds, "runs_that_broke": sum(sum(r["broke"]) for r in results)}
    for name in (*ERRORS, "R2"):
        each = np.array([[_row(results, seed, a)[name] for a in range(states)] for seed in seeds])
        on = each[:, np.arange(states), np.arange(states)].mean(axis=1)
        off = each[:, ~np.eye(states, dtype=bool)].mean(axis=1)
        found[name] = {
            "matrix": each.mean(axis=0).tolist(),
            "on_by_seed": on.tolist(),
            "off_by_seed": off.tolist(),
            "on": interval(on),
            "off": interval(off),
        }
        if name in ERRORS:
            found[name]["degradation"] = interval(off / on)
    return found


def against_pair(arm: dict[str, Any], pair: dict[str, Any]) -> dict[str, Any]:
    """Differences of errors, arm minus pair, paired by seed; an interval below zero means that the arm is better.

    The claim holds where the off-state error is smaller outside of the interval and the on-state error is not larger;
    one seed, which has no interval, cannot say.
    How often the arm has the smaller error off its state is counted over pairs of states, on means over seeds.
    """
    found: dict[str, Any] = {}
    for name in ERRORS:
        on, off = (
            interval(np.array([of_arm[seed] - of_pair[seed] for seed in of_arm]))
            for kind in ("on", "off")
            for of_arm, of_pair in [(_by_seed(arm, name, kind), _by_seed(pair, name, kind))]
        )
        apart = ~np.eye(len(arm[name]["matrix"]), dtype=bool)
        smaller = (np.array(arm[name]["matrix"]) < np.array(pair[name]["matrix"]))[apart]
        found[name] = {
            "on": on,
            "off": off,
            "off_states_with_smaller_error": f"{int(smaller.sum())} of {smaller.size}",
            "claim_holds": bool(off["high"] < 0.0 and on["low"] <= 0.0) if len(arm["seeds"]) > 1 else None,
        }
    return found


def _by_seed(arm: dict[str, Any], name: str, kind: str) -> dict[int, float]:
    return dict(zip(arm["seeds"], arm[name][f"{kind}_by_seed"], strict=True))


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean and 95 % interval of the mean by Student's t; one value has no interval."""
    mean, half = float(np.mean(values)), half_width_95(values)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _row(results: Sequence[Result], seed: int, a: int) -> Result:
    return next(r for r in results if r["seed"] == seed and r["trained_at"] == a)


def _prepared() -> Setting:
    config = CoarseGrainingConfig.model_validate(yaml.safe_load(CONFIG.read_text()))
    if not config.data.path.exists():
        raise SystemExit(
            f"{config.data.path} is missing: understudy sample training/configs/methanol-frames-small.yaml"
        )
    read = read_frames(config.data.path)
    liquid = liquid_of(config, read)
    frames = joined(liquid)
    known = [arranged(frames, s, config.r_max_angstrom, config.bins) for s in range(len(liquid.states))]
    of = (config.model_dump(mode="json"), ARMS, EPOCHS, DYNAMICS, sha256_of(config.data.path))
    return Setting(config, liquid, folder_of("coarse_graining", *of), read, frames, liquid.parts["test"], known)


def _trained(arm: str, seed: int, a: int, setting: Setting) -> Result:
    forces, seconds = _force_field(arm, seed, setting.liquid.states[a], setting)
    how = setting.config.model_copy(update={"dynamics": DynamicsConfig(**DYNAMICS, seed=seed)})
    result: Result = {"arm": arm, "seed": seed, "trained_at": a, "cpu_seconds": seconds, "broke": []}
    result |= {name: [] for name in (*ERRORS, "R2")}
    for b, truth in enumerate(setting.arranged):
        found = simulated(forces, setting.frames, b, how, truth)
        errors = _nowhere(truth) if found is None else found.errors(truth)
        result["broke"].append(found is None)
        for name in ERRORS:
            result[name].append(errors[name])
        result["R2"].append(_r_squared(forces, setting.test, b, how.network.cutoff_angstrom))
    return result


def _force_field(arm: str, seed: int, state: State, setting: Setting) -> tuple[BeadForces, float]:
    """An arm trained at one state, and the CPU seconds that it took."""
    config = setting.config
    kind = config.network.model_copy(update={**ARMS[arm], "members": 1})
    own = config.model_copy(
        update={
            "data": config.data.model_copy(update={"states": [state], "every": 1}),
            "network": kind,
            "with_prior": arm != NO_PRIOR,
            "fit": config.fit.model_copy(update={"seed": seed, "max_epochs": EPOCHS, "termination_patience": EPOCHS}),
        }
    )
    liquid = liquid_of(own, setting.read)
    if arm == PAIR:
        return fit_pair(own, liquid).forces, 0.0
    folder = setting.folder / f"{arm}-{state.slug}-{seed}"
    network, seconds = kept_network(folder, partial(fit_network, own, liquid))
    return NetworkForces(network), seconds


def _nowhere(truth: Arrangement) -> dict[str, float]:
    return {"E_RDF": float(truth.radial.g.mean()), "E_ADF": 1.0}


def _r_squared(forces: BeadForces, test: BeadFrames, state: int, cutoff: float) -> float:
    chosen = np.flatnonzero(test.state == state)
    found = [forces(build_graph(test.structures[i], cutoff)) for i in chosen]
    return r_squared(np.concatenate(found), np.concatenate([test.forces[i] for i in chosen]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    _setting = _prepared()
    for _arm in sys.argv[1:] or ARMS:
        results_of(_arm, _setting)
