"""Several processes of one command, as torchrun, srun and mpirun start them."""

from __future__ import annotations

import os

from utils.errors import UserError

COUNTS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""What they tell each process. SLURM_NTASKS is none of them: it is the allocation's, also for a single process."""


MEETING_PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process."""


def is_rank() -> bool:
    """Whether torchrun, or who does as it does, has started this process to train together with others."""
    return all(os.environ.get(name) for name in MEETING_PLACE)


def local_ranks() -> int:
    """How many processes on this host train together."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_rank() else 1


def refuse_several_processes() -> None:
    """UserError if this is one of several processes, which would all do the same work and write the same files."""
    for name, least in (*((name, 2) for name in COUNTS), *((name, 1) for name in RANKS)):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) >= least:
            raise UserError(
                f"{name} is {value}, so this is one of several processes that would write the same files; one process "
                "does the work: start it without torchrun, or with srun --ntasks 1, or share it out (docs/scaling.md)"
            )
