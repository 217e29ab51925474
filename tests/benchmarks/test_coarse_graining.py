"""What the comparison over states makes of results that are known."""

from typing import Any

import numpy as np
import pytest

from benchmarks.coarse_graining import PAIR, SEEDS, against_pair, interval, summary
from benchmarks.coarse_page import figure, tables


def _results(on: float, off: float, seeds: tuple[int, ...] = SEEDS) -> list[dict[str, Any]]:
    """Two states; each seed adds a thousandth."""
    return [
        {
            "seed": seed,
            "trained_at": a,
            "broke": [False, a == 1],
            **{name: [(on if a == b else off) + 0.001 * seed for b in range(2)] for name in ("E_RDF", "E_ADF", "R2")},
        }
        for seed in seeds
        for a in range(2)
    ]


def test_on_and_off_states_are_averaged_apart_and_broken_runs_are_counted() -> None:
    found = summary(_results(0.1, 0.4), 2)
    seeds = sum(SEEDS) / len(SEEDS) * 0.001
    assert found["E_RDF"]["on"]["mean"] == pytest.approx(0.1 + seeds)
    assert found["E_RDF"]["off"]["mean"] == pytest.approx(0.4 + seeds)
    assert found["E_RDF"]["degradation"]["mean"] == pytest.approx(4.0, rel=0.05)
    assert found["runs_that_broke"] == len(SEEDS)


def test_the_claim_holds_only_where_the_off_state_error_is_smaller_and_the_on_state_error_is_not_larger() -> None:
    pair = summary(_results(0.2, 0.4), 2)
    better, worse_on, same = (summary(_results(*each), 2) for each in ((0.1, 0.3), (0.3, 0.3), (0.2, 0.4)))
    assert against_pair(better, pair)["E_RDF"]["claim_holds"]
    assert against_pair(better, pair)["E_RDF"]["off_states_with_smaller_error"] == "2 of 2"
    assert not against_pair(worse_on, pair)["E_RDF"]["claim_holds"]
    assert not against_pair(same, pair)["E_RDF"]["claim_holds"]


def test_one_seed_is_compared_with_the_same_seed_and_decides_nothing() -> None:
    found = against_pair(summary(_results(0.1, 0.3, seeds=(2,)), 2), summary(_results(0.2, 0.4), 2))["E_RDF"]
    assert found["off"]["mean"] == pytest.approx(-0.1)
    assert found["claim_holds"] is None


def test_the_page_shows_every_arm_with_its_interval_and_its_difference_from_the_pair_force() -> None:
    arms = {"tensor": summary(_results(0.1, 0.3), 2), PAIR: summary(_results(0.2, 0.4), 2)}
    values = {
        "states": ["cold", "hot"],
        "noise_floor": {error: [0.01, 0.01] for error in ("E_RDF", "E_ADF")},
        "arms": arms,
        "against_pair": {"tensor": against_pair(arms["tensor"], arms[PAIR])},
    }
    rows = tables(values).splitlines()
    assert rows[0] == "|  | l = 2 | pair force |"
    assert "| E_RDF at the state of the training | 0.102 ± 0.002 | 0.202 ± 0.002 |" in rows
    assert "| E_RDF at the others | -0.100 ± 0.000 |" in rows
    assert "| cold | 0.102 / 0.202 | 0.302 / 0.402 |" in rows
    assert figure(values).startswith("<svg")


def test_one_seed_has_no_interval() -> None:
    assert np.isnan(interval(np.array([1.0]))["low"])
    assert interval(np.array([1.0, 1.0]))["high"] == 1.0
