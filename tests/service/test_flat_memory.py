"""Memory and open files stay flat over fifty reloads and fifty failed loads of a shipped network."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from contract.repository import ModelRepository, describe_files

SHIPPED = Path(__file__).parents[2] / "model_repo"
NAME = "malonaldehyde"
LOADS = 50
SETTLED = 10
GROWTH_MIB = 20.0

SCRIPT = """
import json, os, sys
from pathlib import Path
import httpx
from service.app import create_app
from service.settings import Settings
from understudy.inprocess import InProcess

def now():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir("/proc/self/fd"))

transport = InProcess(create_app(Settings(model_repo=Path(sys.argv[1]), workers=1)))
with httpx.Client(transport=transport, base_url="http://localhost", timeout=600) as gateway:
    for command, status, body in (("reload", 200, {}), ("load", 409, {"version": "2"})):
        seen = []
        for _ in range(int(sys.argv[2])):
            answer = gateway.post(f"/v1/admin/models/malonaldehyde/{command}", json=body)
            assert answer.status_code == status, answer.text
            seen.append(now())
        print(json.dumps(seen))
"""


def publish(root: Path, version: str, energy_off_ev: float) -> None:
    """The shipped graph with its reference answers, the energies among them off by so much."""
    shipped, artefacts = ModelRepository(SHIPPED).load(NAME), root.parent / version
    folder = artefacts / version
    folder.mkdir(parents=True)
    shutil.copy(shipped.file("model.onnx"), folder)
    with np.load(shipped.file("reference.npz")) as held:
        arrays = {name: held[name] for name in held.files}
    arrays["out/energy"] = arrays["out/energy"] + energy_off_ev
    np.savez(folder / "reference.npz", **arrays)
    files = describe_files(artefacts, version)
    ModelRepository(root).publish(shipped.card.model_copy(update={"version": version, "files": files}), artefacts)


@pytest.mark.slow
@pytest.mark.skipif(not (SHIPPED / NAME).is_dir(), reason="no model_repo in this checkout: publish a model into it")
def test_memory_and_open_files_stay_flat_over_reloads_and_failed_loads(tmp_path: Path) -> None:
    publish(tmp_path / "repo", "1", 0.0)
    publish(tmp_path / "repo", "2", 1.0)
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path / "repo"), str(LOADS)]
    shown = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    for line in (line for line in shown.stdout.splitlines() if line.startswith("[[")):
        seen = json.loads(line)
        (early_mib, early_files), (late_mib, late_files) = seen[SETTLED - 1], seen[-1]
        print(f"{early_mib:.1f} MiB after {SETTLED}, {late_mib:.1f} after {LOADS}; {late_files} files")
        assert late_mib - early_mib < GROWTH_MIB, [round(mib) for mib, _ in seen]
        assert late_files <= early_files
