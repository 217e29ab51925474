"""A run in words and numbers: network, loss, cost, and how to make it again."""

from collections.abc import Mapping
from typing import Any, Protocol

from contract.elements import SYMBOLS
from training.checkpoint import HipNNRun
from training.fit import Epoch
from training.report.folder import Finished


class Trained(Protocol):
    """What this room needs of a run."""

    @property
    def run(self) -> HipNNRun:
        """Weights and record."""

    @property
    def histories(self) -> list[list[Epoch]]:
        """A learning curve for every network that was fitted by itself."""


def network(finished: Trained) -> dict[str, str]:
    """What was trained."""
    c, modules = finished.run.network.config, dict(finished.run.network.named_parameters())
    total = sum(p.numel() for p in modules.values())
    shared = sum(p.numel() for name, p in modules.items() if name.endswith((".mu", ".sigma")))
    one = shared + (total - shared) // c.members
    return {
        "architecture": "HIP-NN" if c.order == 0 else f"HIP-NN-TS, tensor sensitivities up to l\u00a0=\u00a0{c.order}",
        "elements": ", ".join(SYMBOLS[z] for z in c.elements),
        "members": f"{c.members}",
        "parameters": f"{total:,}" if c.members == 1 else f"{total:,} ({one:,} in one member)",
        "layers": f"{c.interaction_layers} interaction layers, each with {c.atom_layers} atom layers",
        "features": f"{c.features}",
        "sensitivities": f"{c.sensitivities}, from {c.soft_min_angstrom:g} to {c.soft_max_angstrom:g} Å",
        "cutoff": f"{c.cutoff_angstrom:g} Å",
        "atomic references": ", ".join(f"{s}\u00a0{e:,.4f}\u00a0eV" for s, e in finished.run.references.items()),
    }


def cost(finished: Trained) -> dict[str, str]:
    """What it took."""
    fit, histories = finished.run.record["config"]["fit"], finished.histories
    epochs = ", ".join(str(len(history)) for history in histories)
    sizes = [line.batch_size for history in histories for line in history]
    grown = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{min(sizes)}"
    return {
        "CPU time": duration(finished.run.record["cpu_seconds"]),
        "wall time": duration(sum(history[-1].wall_seconds for history in histories)),
        "epochs": epochs if len(histories) == 1 else f"{epochs} (each member by itself)",
        "device": fit["device"],
        "optimiser": f"Adam, {fit['schedule']} schedule, highest learning rate {fit['learning_rate']:g}",
        "batch": f"{grown} configurations a step",
        "weights": f"running average, decay {fit['averaging']:g} a step" if fit["averaging"] else "not averaged",
        "seed": f"{fit['seed']}",
    }


def loss(finished: Finished) -> str:
    """What the numbers of the learning curve are."""
    config = finished.run.record["config"]
    text = "RMSE + MAE of the energies in eV, mean over members"
    if config.get("energy_scale_ev"):
        text += f"; a frame E above the lowest counts 1 / (1 + E / {config['energy_scale_ev']:g} eV)"
    if config.get("forces"):
        weight = config["forces"]["force_weight"]
        text += f". Added: RMSE + MAE of the force components in eV/Å, in the validation curve times {weight:g}"
    if objective := config.get("objective"):
        weights = " : ".join(f"{objective[name]:g}" for name in ("energy_weight", "force_weight", "atomic_weight"))
        return (
            "RMSE + MAE of energies (eV), of force components (eV/Å) and of the teachers' atomic energies (eV), "
            f"{weights}; validation: RMSE of the force components plus MAE of the energy an atom."
        )
    return text + "."


def commands(config: Mapping[str, Any]) -> list[str]:
    """What to type to make the run again, with the run's config.yaml saved under its name."""
    public = (config.get("data") or {}).get("fetch")
    first = [f"understudy data fetch {public}"] if public else []
    if config.get("teacher"):
        verb = "learn" if config["pipeline"] == "teacher_student" else "train"
        first = [f"understudy {verb} {config['teacher']}.yaml"]
    return [*first, f"understudy train {config['name']}.yaml", f"understudy publish {config['name']}"]


def duration(seconds: float) -> str:
    """Hours and minutes, or seconds."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
