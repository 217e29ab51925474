"""The lattice-Boltzmann solver against exact flows, against itself turned and doubled, and written out."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from training.simulators.creeping_flow import Solver, solve_flow

pytestmark = pytest.mark.physics

STRICT = Solver(tolerance=1e-8)


def _blobs(shape: tuple[int, ...], porosity: float, seed: int = 0) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0, mode="wrap")
    return noise > np.quantile(noise, 1 - porosity)


@pytest.mark.parametrize("relaxation", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("nodes", [3, 10, 20])
def test_a_slit_has_the_permeability_of_the_discrete_parabola_whatever_the_viscosity(
    nodes: int, relaxation: float
) -> None:
    image = np.ones((nodes + 1, 1, 4), bool)
    image[-1] = False
    flow = solve_flow(image, 2, "periodic", Solver(relaxation=relaxation, tolerance=1e-9))
    exact = nodes**2 / 12 + 1 / 24
    assert flow.permeability * (nodes + 1) / nodes == pytest.approx(exact, rel=1e-6)
    assert flow.in_units(3.0)["k_m2"] == pytest.approx(9e-12 * flow.permeability)
    assert flow.in_units(3.0)["k_mD"] == pytest.approx(9e3 * flow.permeability / 0.9869233)


@pytest.mark.parametrize(("side", "bound"), [(3, 0.08), (10, 0.015), (20, 0.005)])
def test_a_square_duct_is_right_within_a_bound_that_falls_with_its_width(side: int, bound: float) -> None:
    image = np.ones((side, side, 2), bool)  # the sleeve is its wall
    assert solve_flow(image, 2, solver=STRICT).permeability / side**2 == pytest.approx(0.0351443, rel=bound)


@pytest.mark.parametrize(("radius", "bound"), [(10, 0.04), (20, 0.02)])
def test_a_tube_is_right_within_a_bound_that_falls_with_its_width(radius: int, bound: float) -> None:
    x = np.arange(2 * radius + 2) - radius - 0.5
    image = np.repeat((x[:, None] ** 2 + x**2 < radius**2)[:, :, None], 2, axis=2)
    area = image[:, :, 0].sum()
    flow = solve_flow(image, 2, solver=STRICT)
    assert flow.permeability * image[:, :, 0].size / area == pytest.approx(area / np.pi / 8, rel=bound)


def test_a_periodic_sphere_turned_to_each_axis_gives_the_same_permeability() -> None:
    x = np.arange(12) - 5.5
    image = (x[:, None, None] ** 2 + x[:, None] ** 2 + x**2) > 25.0
    values = [solve_flow(image, axis, "periodic", STRICT).permeability for axis in range(3)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-8)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_ends_are_the_same_as_the_image_joined_with_its_mirror_image(axis: int) -> None:
    image = _blobs((14, 13, 12), 0.5, seed=3)
    solver = Solver(relaxation=0.8, tolerance=1e-10, flux_tolerance=1e-8)
    sides = [(0, 0) if a == axis else (1, 1) for a in range(3)]
    doubled = np.pad(np.concatenate([image, np.flip(image, axis)], axis), sides)
    flow, twice = solve_flow(image, axis, "mirror", solver), solve_flow(doubled, axis, "periodic", solver)
    inside = tuple(slice(w, w + n) for (w, _), n in zip(sides, image.shape, strict=True))
    assert flow.velocity == pytest.approx(twice.velocity[inside], abs=1e-6)


def test_the_flow_keeps_its_flux_along_the_way_and_stands_still_in_the_solid() -> None:
    image = _blobs((20, 20, 20), 0.4)
    flow = solve_flow(image, 0)
    assert flow.converged
    assert flow.flux_std < 1e-3
    assert not flow.velocity[~image].any()
    assert flow.permeability == pytest.approx(flow.velocity.mean())


def test_what_turns_its_sign_at_each_step_is_not_taken_for_flow() -> None:
    """In corners, some of a start never dies: the flux of a single step would differ between slices by a percent."""
    image = np.random.default_rng(4).random((12, 12, 12)) < 0.55
    flow = solve_flow(image, 2, solver=Solver(relaxation=1.0, tolerance=1e-9, flux_tolerance=1e-7))
    assert flow.converged
    assert flow.flux_std < 1e-7


def test_stokes_flow_on_a_staggered_grid_has_the_same_permeability_within_the_error_of_the_voxels() -> None:
    from benchmarks.stokes import staggered_permeability

    image = _blobs((8, 8, 8), 0.5, seed=1)
    apart = []
    for times in (1, 2):
        fine = np.ascontiguousarray(image.repeat(times, 0).repeat(times, 1).repeat(times, 2))
        apart.append(abs(staggered_permeability(fine) / solve_flow(fine, 2, "periodic", STRICT).permeability - 1.0))
    assert apart[1] < min(0.06, apart[0])


def test_pores_that_do_not_conduct_have_no_permeability_and_cost_nothing() -> None:
    image = np.ones((6, 6, 6), bool)
    image[:, :, 3] = False
    flow = solve_flow(image, 2)
    assert (flow.permeability, flow.steps, flow.flux_std) == (0.0, 0, 0.0)


def test_a_flow_that_is_not_steady_says_so() -> None:
    flow = solve_flow(_blobs((20, 20, 20), 0.4), 2, solver=Solver(max_steps=100))
    assert not flow.converged


def test_the_drag_of_a_cubic_array_of_spheres_is_that_of_zick_and_homsy() -> None:
    """Simple cubic, solid fraction 0.343: k / L^2 = 7.933e-3; taken at the fraction of the voxels, see the record."""
    from benchmarks.lattice_boltzmann import sphere_array

    assert sphere_array(24, 0.343) == pytest.approx(7.933e-3, rel=0.05)


def test_the_scheme_written_out_on_whole_arrays_gives_the_same_permeability() -> None:
    """Dense NumPy, other order of velocities, streaming by rolls: nothing of the solver but the equations."""
    image = _blobs((16, 16, 16), 0.5, seed=5)
    solved = solve_flow(image, 2, "periodic", Solver(relaxation=0.8, tolerance=1e-8)).permeability
    assert _dense(image, 0.8, steps=1000) == pytest.approx(solved, rel=1e-4)


def _dense(image: np.ndarray, relaxation: float, steps: int) -> float:
    c = np.array([v for v in np.ndindex(3, 3, 3) if np.abs(np.array(v) - 1).sum() < 3]) - 1
    w = np.array([1 / 3, 1 / 18, 1 / 36])[np.abs(c).sum(axis=1)]
    opposite = [int(np.flatnonzero((c == -v).all(axis=1))[0]) for v in c]
    odd = 3 / 16 / (relaxation - 0.5) + 0.5
    weight, push = w[:, None, None, None], (3 * w * c[:, 2])[:, None, None, None]
    f = (-0.5 * push) * image
    for _ in range(steps):
        u = np.tensordot(c.T, f, 1) + np.array([0, 0, 0.5])[:, None, None, None]
        even_part, odd_part = (f + f[opposite]) / 2 - weight * f.sum(axis=0), (f - f[opposite]) / 2
        odd_part = odd_part - 3 * weight * np.tensordot(c, u, 1)
        after = f - even_part / relaxation - odd_part / odd + (1 - 1 / (2 * odd)) * push
        f = np.stack(
            [
                image * np.where(np.roll(image, v, (0, 1, 2)), np.roll(after[i], v, (0, 1, 2)), after[opposite[i]])
                for i, v in enumerate(c)
            ]
        )
    return float((image * (np.tensordot(c[:, 2], f, 1) + 0.5)).mean() * (relaxation - 0.5) / 3)
