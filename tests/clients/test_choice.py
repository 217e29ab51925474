"""Which model is asked when none is named."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse
from understudy import AmbiguousModel, Client
from understudy.choice import choose_model
from understudy.elements import hill_formula, symbols
from understudy.structures import as_structures

from contract import elements


def test_the_first_model_with_all_elements_and_the_composition_is_taken(lj_client: Client) -> None:
    for given_atoms, name in [("H2O", "water"), ("CH4", "hydrides"), ("H2O2", "hydrides")]:
        assert choose_model(lj_client, as_structures([molecule(given_atoms)])[0]).model == name
    both = as_structures([molecule("H2O"), molecule("CH4")])[0]
    assert choose_model(lj_client, both).model == "hydrides"


def test_where_none_fits_the_user_is_asked_to_choose(lj_client: Client) -> None:
    with pytest.raises(AmbiguousModel, match="argon, water, hydrides") as caught:
        choose_model(lj_client, as_structures(bulk("Pt"))[0])
    assert caught.value.facts == {"models": ["argon", "water", "hydrides"], "elements": ["Pt"]}


def test_a_single_potential_is_taken_whatever_is_asked(recite: Callable[..., Any]) -> None:
    client, _ = recite(JSONResponse({"models": [{"name": "only", "family": "potential", "elements": ["C"]}]}))
    assert choose_model(client, as_structures(bulk("Pt"))[0]).model == "only"


def test_a_gateway_without_potentials_says_so(recite: Callable[..., Any]) -> None:
    client, _ = recite(JSONResponse({"models": []}))
    with pytest.raises(AmbiguousModel, match="no potential"):
        choose_model(client, as_structures(bulk("Pt"))[0])


@given(st.lists(st.integers(1, 118), min_size=1, max_size=12))
def test_symbols_are_ases_and_formulas_are_those_of_the_cards(numbers: list[int]) -> None:
    assert symbols(numbers) == Atoms(numbers=numbers).get_chemical_symbols()
    assert hill_formula(numbers) == elements.hill_formula(np.array(numbers))


def test_a_number_that_is_no_element_is_shown_as_it_is() -> None:
    assert symbols([0, 119]) == ["Z=0", "Z=119"]
