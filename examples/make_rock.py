"""The rock of the examples: a cemented pack of grains, 64 voxels a side, one bit a voxel: `rock.npz`."""

from pathlib import Path

import numpy as np

from training.sampling.porous_media import packs

if __name__ == "__main__":
    image = packs(64, 0.28, np.random.default_rng(7))
    np.savez_compressed(Path(__file__).with_name("rock.npz"), image=np.packbits(image), shape=np.array(image.shape))
