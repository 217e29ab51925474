"""Flow by conduction: exact in straight tubes of elliptic section and in slits, and connected as the pores are."""

import threading

import numpy as np
import pytest

from contract.conduction import Stopped, conduct, conductivity
from contract.voxels import pores_of


def _ellipse(a: float, b: float, turned: float = 0.0, length: int = 6) -> np.ndarray:
    x = np.arange(2 * int(max(a, b)) + 5) - int(max(a, b)) - 2.0
    u = x[:, None] * np.cos(turned) + x * np.sin(turned)
    v = -x[:, None] * np.sin(turned) + x * np.cos(turned)
    return np.repeat(((u / a) ** 2 + (v / b) ** 2 < 1.0)[:, :, None], length, axis=2)


@pytest.mark.parametrize("nodes", [1, 2, 5, 12])
def test_a_slit_has_the_velocity_of_the_parabola_between_half_way_walls(nodes: int) -> None:
    image = np.ones((nodes + 2, 41, 5), bool)
    image[0] = image[-1] = False
    x = np.arange(nodes) + 0.5
    middle = conduct(image).velocity[1:-1, 20, 2]
    assert middle == pytest.approx(0.5 * x * (nodes - x), rel=0.02 + 0.002 * nodes**2)  # the sleeve is 20 voxels away


@pytest.mark.parametrize(("a", "b", "turned"), [(12.0, 12.0, 0.0), (16.0, 9.0, 0.0), (16.0, 9.0, 0.6)])
def test_a_tube_of_elliptic_section_has_its_permeability_whichever_way_it_is_turned(
    a: float, b: float, turned: float
) -> None:
    image = _ellipse(a, b, turned)
    exact = np.pi * a**3 * b**3 / (4 * (a**2 + b**2)) / image[:, :, 0].size  # White, Viscous Fluid Flow, 3-3.3
    assert conduct(image).permeability == pytest.approx(exact, rel=0.08)


def test_a_line_through_an_open_end_comes_back_mirrored() -> None:
    image = np.random.default_rng(0).random((6, 7, 8)) < 0.8
    doubled = np.concatenate([image, image[:, :, ::-1]], axis=2)
    field = np.zeros(doubled.shape)
    field[doubled] = conductivity(doubled)
    assert field[:, :, :8][image] == pytest.approx(conductivity(image), rel=1e-5)


def test_its_flux_is_the_same_through_every_slice_and_every_axis_of_a_symmetric_image() -> None:
    image = np.random.default_rng(1).random((12, 12, 12)) < 0.7
    answer = conduct(pores_of(image, 2).conducting, tolerance=1e-6)
    flux = answer.velocity.sum(axis=(0, 1))
    assert answer.solved
    assert flux.std() < 1e-3 * flux.mean()
    turned = np.ascontiguousarray(pores_of(image, 2).conducting.swapaxes(0, 1))
    assert conduct(turned, tolerance=1e-6).permeability == pytest.approx(answer.permeability, rel=1e-4)


def test_a_throat_decides_and_a_dead_end_does_not() -> None:
    wide = np.zeros((9, 9, 16), bool)
    wide[2:7, 2:7] = True
    throat = wide.copy()
    throat[:, :, 7:9] = False
    throat[4, 4, 7:9] = True
    blind = wide.copy()
    blind[7:9, 4, 8] = True
    k, narrow, with_blind = (conduct(image).permeability for image in (wide, throat, blind))
    assert narrow < 0.05 * k
    assert with_blind == pytest.approx(k, rel=0.05)


def test_no_pores_no_flow() -> None:
    answer = conduct(np.zeros((4, 4, 4), bool))
    assert (answer.permeability, answer.velocity.shape, answer.solved) == (0.0, (4, 4, 4), True)


def test_another_thread_can_stop_it() -> None:
    image = np.random.default_rng(0).random((72, 72, 72)) < 0.7
    pore, stop = pores_of(image, 2).conducting, np.zeros(1, bool)
    conduct(pore[:, :, :4])  # compiled
    alarm = threading.Timer(0.3, stop.fill, [True])
    alarm.start()
    with pytest.raises(Stopped):
        conduct(pore, tolerance=0.0, stop=stop)
    alarm.cancel()


def test_all_that_is_as_large_as_the_pores_lies_where_it_is_told_in_37_bytes_each() -> None:
    rooms = []

    def room(shape: tuple[int, ...]) -> np.ndarray:
        rooms.append(np.empty(shape, np.float32))
        return rooms[-1]

    pore = pores_of(np.random.default_rng(3).random((16, 12, 20)) < 0.7, 2).conducting
    found = conduct(pore, room=room)
    taken = sum(each.nbytes for each in rooms) - found.velocity.nbytes
    assert any(found.velocity is each for each in rooms)
    assert taken == pytest.approx(37 * np.count_nonzero(pore), abs=4)
    assert (found.velocity == conduct(pore).velocity).all()
