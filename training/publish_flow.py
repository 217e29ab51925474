"""From a trained committee of flow to a served model: export, examine, describe, admit. What fails leaves no trace."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.card import (
    BatchingCurve,
    BatchPoint,
    Calibration,
    Check,
    Committee,
    DataSource,
    FieldCard,
    FlowDomain,
    Split,
    Training,
    checked_field_card,
)
from contract.flow import flow_inputs
from contract.repository import ModelRepository, describe_files
from contract.units import FIELD_SIGNS, FIELD_UNITS
from training.calibration import conformal
from training.errors import NotReady
from training.export.flow import export_flow
from training.export.flow_tiles import export_tiles
from training.export.potential import OPSET, write_reference
from training.files import read_json
from training.flow_card import write_flow_card
from training.flow_evaluation import comparisons, load_tables, log_error, log_spread, test_metrics
from training.gate.engines import Engine, onnx_engine
from training.gate.errors import Refused
from training.gate.flow import FlowSubmission, examine_flow
from training.gate.flow_tiles import tiles_are_whole
from training.networks.msnet import MSNetConfig
from training.networks.permeability import PermeabilityCommittee
from training.pipelines.permeability import PermeabilityTraining, load_committee, part_labels
from training.publish import next_version
from training.record import versions
from training.sampling.permeability import Label

LICENCE: Final = "BSD-3-Clause"
CITATION: Final = [
    "MS-Net: Santos, Yin, Jo, Pan, Kang, Viswanathan, Prodanovic, Pyrcz, Lubbers, Transport in Porous Media 140, 241 "
    "(2021), arXiv:2102.07625",
    "Two relaxation times: Ginzburg & d'Humieres, Phys. Rev. E 68, 066614 (2003)",
]
BYTES_PER_CALL: Final = 8e9
_LENGTHS: Final = (16, 32, 48, 64)
_ROUNDS: Final = 3
_QUANTILES: Final = (0.95, 0.995)
Table = Mapping[str, NDArray[Any]]


def publish_flow(folder: Path, repository: ModelRepository) -> Path:
    """Export a finished run, examine the exported graph, and place it in the repository with its card.

    Raises:
        NotReady: the run is not finished.
        Refused: naming each check that failed, what was measured and what is allowed.
    """
    if not (folder / "predictions.npz").exists():
        raise NotReady(f"{folder} has no predictions.npz: `understudy train` ends with it")
    config, committee = load_committee(folder)
    tables, labels = load_tables(folder), part_labels(config)
    version = next_version(repository, config.name)
    with TemporaryDirectory() as name:
        root = Path(name)
        place = root / version
        place.mkdir()
        export_flow(committee, place)
        export_tiles(committee, place)
        engine = onnx_engine(place / "model.onnx")
        images = [label.image for label in labels["test"]]
        small = np.ascontiguousarray(images[0][:24, :24, :24])
        write_reference(engine, flow_inputs(small, 2, config.network.divisor).tensors(), place / "reference.npz")
        subject = f"{config.name} version {version}"
        checks = _examined(subject, engine, committee, images, tables)
        checks += _passed(subject, tiles_are_whole(place, engine, images[0], config.network.divisor))
        card = _card(folder, config, committee, version, root, tables, labels, checks, engine)
        write_flow_card(card, folder, root)
        return repository.publish(card, root)


def bytes_per_voxel(network: MSNetConfig) -> float:
    """Working memory of a call at its peak."""
    return 4.0 * (6.0 * network.filters + 12.0)


def _examined(
    subject: str, engine: Engine, committee: PermeabilityCommittee, images: Sequence[Any], tables: Mapping[str, Table]
) -> list[Check]:
    trivial = next(c for c in comparisons(tables) if c.name.startswith("mean"))
    error, trivial_error = test_metrics(tables)[0].value, trivial.metrics[0].value
    return _passed(subject, examine_flow(FlowSubmission(engine, committee, images, error, trivial_error)))


def _passed(subject: str, checks: list[Check]) -> list[Check]:
    if failed := [check for check in checks if not check.passed]:
        raise Refused(subject, failed)
    return checks


def _card(
    folder: Path,
    config: PermeabilityTraining,
    committee: PermeabilityCommittee,
    version: str,
    root: Path,
    tables: Mapping[str, Table],
    labels: Mapping[Any, Sequence[Label]],
    checks: list[Check],
    engine: Engine,
) -> FieldCard:
    record, calibration = read_json(folder / "run.json"), _calibration(tables)
    return checked_field_card(
        name=config.name,
        version=version,
        family="field",
        purpose=config.purpose,
        architecture={"network": "MS-Net", "members": config.members, **config.network.model_dump()},
        units=FIELD_UNITS,
        signs=FIELD_SIGNS,
        domain=_domain(tables, labels["train"], calibration),
        divisor=config.network.divisor,
        max_voxels=int(BYTES_PER_CALL / bytes_per_voxel(config.network)),
        data=[_source(record, tables)],
        split=Split(
            method="images of independent seeds, the same shares of each family",
            train=len(labels["train"]),
            valid=len(labels["valid"]),
            test=len(labels["test"]),
            seed=record["campaign"]["config"]["seed"],
        ),
        metrics=test_metrics(tables),
        compared_with=comparisons(tables),
        committee=Committee(members=config.members, log_permeability=calibration),
        training=Training(
            pipeline=config.pipeline,
            config_sha256=record["config_sha256"],
            seed=config.fit.seed,
            parameters=sum(p.numel() for p in committee.parameters()),
            cpu_seconds=record["cpu_seconds"],
            epochs=max(1, round(config.fit.updates * config.fit.batch / len(labels["train"]))),
            revision=record["revision"],
            versions=record["versions"],
        ),
        batching=_cost(engine, config.network.divisor),
        checks=checks,
        files=describe_files(root, version),
        exporter={"opset": str(OPSET)} | {k: v for k, v in versions().items() if k.startswith(("torch", "onnx"))},
        created=datetime.now(UTC).date(),
        licence=LICENCE,
        citation=CITATION,
    )


def _domain(tables: Mapping[str, Table], train: Sequence[Label], calibration: Calibration) -> FlowDomain:
    table, valid = tables["train"], tables["valid"]
    lengths = [length for label in train for length in label.image.shape]
    scale, porosity = np.sqrt(table["scale_squared"]), table["porosity"]
    spread = calibration.scale * np.hypot(log_spread(valid), calibration.floor)
    inside, outside = (float(np.quantile(spread, q)) for q in _QUANTILES)
    return FlowDomain(
        porosity=(float(porosity.min()), float(porosity.max())),
        length_scale_voxels=(float(scale.min()), float(scale.max())),
        lengths_voxels=(min(lengths), max(lengths)),
        families=sorted(set(table["family"].tolist())),
        ends="mirror",
        log_std_in=inside,
        log_std_out=max(outside, 1.5 * inside),
        description=(
            "Binary images of synthetic porous media, a core in a sleeve: solid on the four sides, open at both ends "
            f"of the flow's axis; {len(table['porosity'])} images to train and {len(valid['porosity'])} to calibrate"
        ),
    )


def _calibration(tables: Mapping[str, Table]) -> Calibration:
    """Of log k: fitted to the validation part, tried on the test part."""
    valid, test = ((log_error(tables[p]), log_spread(tables[p])) for p in ("valid", "test"))
    return conformal(valid, test, "lattice-Boltzmann permeabilities")


def _source(record: Mapping[str, Any], tables: Mapping[str, Table]) -> DataSource:
    campaign = record["campaign"]
    return DataSource(
        name=campaign["config"]["name"],
        origin="made by understudy sample with the configuration of sha256 " + campaign["config_sha256"],
        licence="BSD-3-Clause",
        sha256=campaign["images_sha256"],
        count=sum(len(table["permeability"]) for table in tables.values()),
        level_of_theory=campaign["level_of_theory"],
        citation="this project",
        notes=f"Left out because they did not become steady: {campaign['not_steady']}.",
    )


def _cost(engine: Engine, divisor: int) -> BatchingCurve:
    """Milliseconds of one image against its voxels; an image never shares a call, so the best batch is one."""
    import onnxruntime

    points = []
    for length in (n for n in _LENGTHS if n % divisor == 0):
        pore = np.ones((1, length, length, length), np.float32)
        times = []
        for _ in range(_ROUNDS):
            begun = time.perf_counter()
            engine({"distance": 2.0 * pore, "pore": pore, "estimate": pore})
            times.append(1e3 * (time.perf_counter() - begun))
        points.append(BatchPoint(slots=length**3, milliseconds=round(min(times), 3)))
    runtime = f"onnxruntime {onnxruntime.__version__}"
    return BatchingCurve(device="cpu", engine=runtime, threads=1, points=points, best_slots=points[0].slots)
