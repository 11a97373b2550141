r"""Which method should I use for my teacher and my student, and is the gain real?

    python scripts/benchmark.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18 enet \
        --methods hlfd kd cwd,layers=e5 kd/at:0.5 --seeds 0 1 2 --train_data_path data/kits --outpath runs/bench

Every student is trained for every seed alone, alone for longer (twice the steps with the preset cpu, else as long as
the slowest method takes), and with every row of methods; each best.ckpt (picked on the validation cases) is scored on
the test cases, on whole volumes and by the published slice protocol. A row is a method as in train_kd.py's --kd;
several act together joined by `/`, as in kd/at:0.5. `/balance=1`, `/schedule=decay` and, with --unlabelled DIR,
`/unlabelled` act as train_kd.py's options do. Task, frame and window are the teacher's; the number of steps, the
learning rate, which falls with every step, and the augmentation are the same for every row.

Left in OUTPATH: results.md, index.html, results.csv (a line for each run), cases.csv (a line for each case),
costs.json, and a folder for each run with best.ckpt, history.json, train.log and result.json.

The same command continues where it stopped. With further students, methods and seeds in it, only these are trained; the
tables show what the command names. Other settings or data need another OUTPATH. On a CPU, the same command gives the
same scores; where the length of "undistilled, longer" is measured, it differs from launch to launch. With --report and
--against ROW the tables of finished runs are written again, with the gains over another row.
"""

from __future__ import annotations

import os
import signal

import _root  # noqa: F401

from engine.benchmark.options import read_command
from utils.errors import UserError, run


def main() -> None:
    options, data, training = read_command(__doc__)
    # A line is printed when a run ends; progress bars of several at the same time would only mix.
    os.environ["TQDM_DISABLE"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.benchmark.costs import measure, read_costs
    from engine.benchmark.prepare import prepare
    from engine.benchmark.report import write_report
    from engine.benchmark.rows import LONGER
    from engine.benchmark.runs import is_complete, plan_runs
    from engine.benchmark.teachers import score_teacher
    from engine.benchmark.train_and_score import train_and_score_all

    if options.report and not (options.outpath / "costs.json").exists():
        raise UserError(f"{options.outpath}: holds no benchmark yet; give the same command without --report first")
    folds, students, rows, against = prepare(options, data, training)
    costs = read_costs(folds[0]) if options.report else measure(folds[0], students, rows, options.longer_length)
    lengths = {student: dict(costs["lengths"].get(student, {})) for student in students}
    if options.longer == 0:
        for of_student in lengths.values():
            of_student.pop(LONGER, None)
    runs = plan_runs(folds, students, rows, sorted(set(options.seeds)), lengths)
    waiting = [each for each in runs if not is_complete(each, anywhere=options.report)]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before: {options.outpath}", flush=True)

    teachers = [score_teacher(fold) for fold in folds]
    failures = [] if options.report else train_and_score_all(waiting, options.jobs)
    if len(failures) < len(runs):
        write_report(folds, runs, costs, teachers, against)
    if failures:
        reasons = "; ".join(dict.fromkeys(failures))
        raise UserError(f"{len(failures)} of {len(runs)} runs failed and are not in the tables: {reasons}")


if __name__ == "__main__":
    run(main)
