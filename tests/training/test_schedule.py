"""The plateau schedule: grow the batch, then lower the rate."""

import itertools
import math

from training.schedule import Plateau, cosine

RULES = {"max_batch_size": 64, "factor": 0.5, "patience": 1}


def test_an_improvement_changes_neither_batch_nor_rate() -> None:
    state = Plateau(16, 1e-3).after(0, 1.0, **RULES).after(1, 0.5, **RULES)
    assert (state.batch_size, state.learning_rate, state.best, state.best_epoch) == (16, 1e-3, 0.5, 1)


def test_a_plateau_grows_the_batch_up_to_its_limit_and_then_lowers_the_rate() -> None:
    state, seen = Plateau(16, 1e-3).after(0, 1.0, **RULES), []
    for epoch in range(1, 9):
        state = state.after(epoch, 2.0, **RULES)
        seen.append((state.batch_size, state.learning_rate))
    assert seen[1] == (32, 1e-3)
    assert seen[3] == (64, 1e-3)
    assert seen[5] == (64, 5e-4)
    assert seen[7] == (64, 2.5e-4)


def test_an_improvement_below_the_threshold_counts_for_the_best_model_but_not_against_boredom() -> None:
    state = Plateau(64, 1e-3).after(0, 1.0, **RULES).after(1, 1.0 - 1e-6, **RULES)
    assert state.best_epoch == 1
    assert state.bored == 1


def test_a_fresh_state_has_no_best() -> None:
    assert math.isinf(Plateau(16, 1e-3).best)


def test_a_cosine_rises_first_and_ends_at_its_floor() -> None:
    rates = [cosine(epoch, 60, 1e-3) for epoch in range(60)]
    assert rates[0] < rates[2] < max(rates) == 1e-3
    assert rates[-1] == 1e-3 * 0.01
    assert all(a >= b for a, b in itertools.pairwise(rates[3:]))
