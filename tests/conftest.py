"""What every test shares: one thread per process, and the way to data that lies beside the project."""

import os

# Before NumPy, torch or ONNX Runtime are imported: pytest-xdist already uses every core, and threads of several
# workers on the same core wait for each other.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

PROJECT = Path(__file__).parents[1]
SHARED_DATA = PROJECT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the project."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of public data sets beside the project; a test that asks for it is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the project: `understudy data fetch NAME` downloads the public originals")
    return SHARED_DATA
