"""Labels on the nodes of a Slurm cluster: `understudy learn CONFIG --pool slurm.py`. Adapt what is in capitals.

The login node, where the command runs, trains and explores; each worker on a node makes one label at a time. A job that
Slurm ends is asked for again, and a label that was lost with it is made again, up to `retries` times. It has been
constructed and its submission script written out, not run on a cluster.
"""

from parsl import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SrunLauncher
from parsl.providers import SlurmProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            label="labels",
            cores_per_worker=1,
            provider=SlurmProvider(
                partition="PARTITION",
                account="ACCOUNT",
                nodes_per_block=1,
                init_blocks=1,
                min_blocks=0,
                max_blocks=4,
                walltime="04:00:00",
                worker_init="source PATH/TO/understudy/.venv/bin/activate; export OMP_NUM_THREADS=1",
                launcher=SrunLauncher(),
            ),
        )
    ],
    retries=2,
    run_dir="runs/parsl",
)
