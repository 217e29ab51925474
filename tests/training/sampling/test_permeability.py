"""Porous media that conduct, their labels, and a campaign that goes on where it was."""

import json
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from contract.voxels import pores_of
from training.active.pools import pool
from training.sampling.errors import NothingKept
from training.sampling.permeability import PermeabilityConfig, read_label, sample_permeability
from training.sampling.porous_media import MEDIA, Family
from training.simulators.creeping_flow import Solver, solve_flow

SMALL = PermeabilityConfig(
    name="small", lengths=(16,), images={"packs": 1, "blobs": 2, "fractures": 1}, porosity=(0.35, 0.5), seed=1
)


@pytest.mark.parametrize("family", list(MEDIA))
def test_every_generator_gives_about_the_porosity_that_was_wanted(family: Family) -> None:
    images = [MEDIA[family](32, 0.4, np.random.default_rng(seed)) for seed in range(3)]
    assert all(image.shape == (32, 32, 32) and image.dtype == bool for image in images)
    assert 0.2 < np.mean([image.mean() for image in images]) < 0.55


@pytest.mark.parametrize("family", list(MEDIA))
def test_the_same_seed_makes_the_same_image_and_another_another(family: Family) -> None:
    first, again, other = (MEDIA[family](20, 0.4, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_label_holds_the_image_its_flow_and_how_it_was_made(tmp_path: Path) -> None:
    sample_permeability(SMALL, tmp_path)
    label = read_label(tmp_path / "packs-000.npz")
    flow = solve_flow(label.image, 2, "mirror", SMALL.solver)
    assert label.permeability == pytest.approx(flow.permeability)
    assert label.velocity == pytest.approx(flow.velocity.astype(np.float32))
    assert pores_of(label.image, 2).percolates
    wanted = {"family", "seed", "solver", "solver_version", "ends", "converged", "flux_std", "change", "of"}
    assert wanted <= label.facts.keys()


def test_a_campaign_goes_on_where_it_was_and_ends_in_the_same_files(tmp_path: Path) -> None:
    whole = json.loads(sample_permeability(SMALL, tmp_path / "whole").read_text())
    sample_permeability(SMALL, tmp_path / "cut")
    (tmp_path / "cut" / "blobs-001.npz").unlink()
    kept = (tmp_path / "cut" / "blobs-000.npz").stat().st_mtime_ns
    record = json.loads(sample_permeability(SMALL, tmp_path / "cut").read_text())
    assert (tmp_path / "cut" / "blobs-000.npz").stat().st_mtime_ns == kept
    assert read_label(tmp_path / "cut" / "blobs-001.npz").permeability == pytest.approx(
        read_label(tmp_path / "whole" / "blobs-001.npz").permeability
    )
    assert record["images"] == whole["images"] == 4


def test_what_follows_from_other_settings_is_made_again_and_more_images_are_added(tmp_path: Path) -> None:
    one = SMALL.model_copy(update={"images": {"blobs": 1}})
    sample_permeability(one, tmp_path)
    first = (tmp_path / "blobs-000.npz").stat().st_mtime_ns
    sample_permeability(one.model_copy(update={"images": {"blobs": 2}}), tmp_path)
    assert (tmp_path / "blobs-000.npz").stat().st_mtime_ns == first
    sample_permeability(one.model_copy(update={"porosity": (0.5, 0.6)}), tmp_path)
    assert read_label(tmp_path / "blobs-000.npz").facts["porosity"] > 0.45


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("where", ["processes", "here.py"])
def test_a_campaign_on_processes_or_parsl_makes_the_same_labels(tmp_path: Path, where: str) -> None:
    if where == "here.py":
        pytest.importorskip("parsl", reason="the extra `parsl` is not installed")
        here = f"executors=[ThreadPoolExecutor(max_threads=2)], run_dir={str(tmp_path)!r}, initialize_logging=False"
        imports = "from parsl import Config\nfrom parsl.executors import ThreadPoolExecutor\n"
        (tmp_path / where).write_text(f"{imports}config = Config({here})\n")
        where = str(tmp_path / where)
    with pool(where, 2) as workers:
        sample_permeability(SMALL, tmp_path / "together", workers)
    sample_permeability(SMALL, tmp_path / "alone")
    for path in sorted((tmp_path / "alone").glob("*.npz")):
        one, other = read_label(path), read_label(tmp_path / "together" / path.name)
        assert (one.velocity == other.velocity).all()
        assert one.facts == other.facts


def test_a_label_that_was_cut_short_is_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(file: BinaryIO, **arrays: object) -> None:
        file.write(b"half of a file")
        raise KeyboardInterrupt

    one = SMALL.model_copy(update={"images": {"blobs": 1}})
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", cut_short)
        with pytest.raises(KeyboardInterrupt):
            sample_permeability(one, tmp_path)
    assert list(tmp_path.glob("*.npz")) == []
    assert json.loads(sample_permeability(one, tmp_path).read_text())["images"] == 1


def test_a_campaign_in_which_nothing_becomes_steady_is_refused(tmp_path: Path) -> None:
    hasty = SMALL.model_copy(update={"solver": Solver(max_steps=10), "images": {"blobs": 1}})
    with pytest.raises(NothingKept, match="max_steps"):
        sample_permeability(hasty, tmp_path)
