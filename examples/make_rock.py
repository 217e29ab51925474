"""The rock of the examples: a cemented pack of grains, 64 voxels a side, one bit a voxel: `rock.npz`.

python examples/make_rock.py [file]
"""

import sys
from pathlib import Path

import numpy as np

from training.sampling.porous_media import packs


def main(path: Path) -> None:
    rng = np.random.default_rng(7)
    image = packs(64, 0.28, rng, radius=rng.uniform(4.0, 12.0))
    np.savez_compressed(path, image=np.packbits(image), shape=np.array(image.shape))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("rock.npz"))
