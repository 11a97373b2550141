r"""Which method should I use for my teacher and my student, and is the gain real?

    python scripts/benchmark.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18 enet \
        --methods hlfd kd cwd,layers=e5 kd/at:0.5 --seeds 0 1 2 --train_data_path data/kits --outpath runs/bench

Every student is trained for every seed alone, alone for longer (twice the steps with the preset cpu, else as long as
the slowest method takes), and with every row of methods; each best.ckpt (picked on the validation cases) is scored on
the test cases, on whole volumes and by the published slice protocol. A row is a method as in train_kd.py's --kd;
several act together joined by `/`, as in kd/at:0.5. `/balance=1`, `/schedule=decay` and, with --unlabelled DIR,
`/unlabelled` act as train_kd.py's options do. Task, frame and window are the teacher's; the number of steps, the
learning rate, which falls with every step, and the augmentation are the same for every row. With --matched time or
both, rows train for the time of the longer undistilled row.

    python scripts/benchmark.py --train_teacher raunet --folds 5 --smodel malunet --methods hlfd dist:10 \
        --train_data_path data/kits --also_test data/raw/elsewhere --outpath runs/folds

--train_teacher trains the teacher first; with --folds K there is one for each of K folds, none of which has seen its
test cases. --also_test scores every run on other data, in tables of their own.

Left in OUTPATH: results.md, index.html, results.csv (a line for each run), cases.csv (a line for each case),
costs.json, teacher.json, folds/, teachers/, and a folder for each run with best.ckpt, history.json, train.log,
result.json and, for other data, also_<name>.json.

The same command continues where it stopped. With further students, methods and seeds in it, only these are trained; the
tables show what the command names. Other settings or data need another OUTPATH. On a CPU, the same command gives the
same scores; where the length of "undistilled, longer" is measured, it differs from launch to launch. With --report and
--against ROW the tables of finished runs are written again, with the gains over another row. --shard K/N trains every
N-th run, beginning with the K-th: with the same command N times, on one folder, the last to end writes the tables.
--slurm N starts the N shares as one array of Slurm, --at_once M of them at a time.
"""

from __future__ import annotations

import os
import signal
import sys

import _root  # noqa: F401

from engine.benchmark.options import read_command
from engine.benchmark.slurm import submit
from utils.errors import run
from utils.ranks import refuse_several_processes


def main() -> None:
    options, data, training = read_command(__doc__)
    if not options.shard:
        refuse_several_processes()
    if options.slurm:
        from engine.benchmark.prepare import check_command

        # Before it waits in a queue for hundreds of tasks to find it out.
        check_command(options, data, training)
        submit(options, options.outpath, sys.argv)
        return
    # A line is printed when a run ends; progress bars of several at the same time would only mix.
    os.environ["TQDM_DISABLE"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.benchmark.carry_out import carry_out

    carry_out(options, data, training).refuse_failures()


if __name__ == "__main__":
    run(main)
