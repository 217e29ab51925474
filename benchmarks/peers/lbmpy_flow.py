"""One small periodic image by lbmpy and by our solver. lbmpy needs an older SymPy than torch does: keep them apart.

python -m venv lbmpy && lbmpy/bin/pip install lbmpy==1.3.7 numba pydantic scipy && lbmpy/bin/python -m \
benchmarks.peers.lbmpy_flow

What lbmpy's LatticeBoltzmannStep calls the velocity is made of the populations after the collision, with half the force
added once more: too fast by the force over the density, the same everywhere. Without it both solvers agree.
"""

import json

import numpy as np
from lbmpy import ForceModel, LBMConfig, LBStencil, Method, Stencil
from lbmpy.boundaries import NoSlip
from lbmpy.lbstep import LatticeBoltzmannStep
from lbmpy.relaxationrates import relaxation_rate_from_magic_number
from pystencils import Target, create_data_handling
from scipy.ndimage import gaussian_filter

from contract.voxels import Image, pores_of
from training.simulators.creeping_flow import MAGIC, Solver, solve_flow

FORCE = 1e-6
STEPS = 1000


def main() -> None:
    """Permeabilities in voxel^2, as lbmpy says them and without the force, at two relaxation times."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(12, 12, 12)), 1.5, mode="wrap")
    image = pores_of(noise > np.quantile(noise, 0.55), 2, periodic=True).conducting
    ours = solve_flow(image, 2, "periodic", Solver(tolerance=1e-6, flux_tolerance=1e-5)).permeability
    said = {tau: _by_lbmpy(image, tau) for tau in (1.0, 0.7)}
    right = {tau: k - _viscosity(tau) * float(image.mean()) for tau, k in said.items()}
    print(json.dumps({"ours": ours, "lbmpy by relaxation time": said, "without the force": right}, indent=2))


def _viscosity(relaxation: float) -> float:
    return (relaxation - 0.5) / 3.0


def _by_lbmpy(image: Image, relaxation: float) -> float:
    even = 1.0 / relaxation
    config = LBMConfig(
        stencil=LBStencil(Stencil.D3Q19),
        method=Method.TRT,
        relaxation_rates=[even, relaxation_rate_from_magic_number(even, MAGIC)],
        force_model=ForceModel.GUO,
        force=(0, 0, FORCE),
        compressible=False,
    )
    data = create_data_handling(image.shape, periodicity=(True, True, True), default_target=Target.CPU)
    step = LatticeBoltzmannStep(data_handling=data, lbm_config=config, name="flow")
    solid = np.pad(~image, 1, mode="wrap")  # the boundary is asked for in the ghost layer too

    def is_wall(*centres: np.ndarray) -> np.ndarray:
        walls: np.ndarray = solid[tuple(np.round(centre + 0.5).astype(int) for centre in np.broadcast_arrays(*centres))]
        return walls

    step.boundary_handling.set_boundary(NoSlip(), mask_callback=is_wall, ghost_layers=True)
    step.run(STEPS)
    speed = np.where(image, np.asarray(step.velocity[:, :, :, 2]), 0.0)
    return float(_viscosity(relaxation) / FORCE * speed.mean())


if __name__ == "__main__":
    main()
