"""Cut raw cases into slices.

    python scripts/SliceMaker.py --inpath RAW --outpath SLICES --dataset kits --task tumor
    python scripts/SliceMaker.py --inpath ANY_CT --outpath SLICES --dataset kits --unlabelled
    python scripts/SliceMaker.py --inpath RAW --outpath SLICES --dataset kits --task tumor --labelled 20
    python scripts/SliceMaker.py --inpath RAW --outpath SLICES --dataset kits --task tumor --teacher_probabilities DIR
    python scripts/SliceMaker.py --inpath cases.csv --outpath SLICES --dataset list --labels 1=organ 2=tumor
    python scripts/SliceMaker.py --inpath RAW --outpath SLICES --dataset kits --task tumor --shard 1/3
    python scripts/SliceMaker.py --inpath RAW --outpath SLICES --dataset kits --task tumor --dask tcp://HOST:8786

Of training cases it cuts the slices with the target and a share of the others, of validation and test cases every
slice. A second run with the same options does nothing; with other options it does only what these change.

The split is drawn once and kept in SLICES/splits.json: later runs, for another task or with new cases, leave every
case in its part and assign only the new ones. --resplit draws a new split.

--unlabelled also cuts the cases without segmentation, into SLICES/unlabelled, for train_kd.py to distil on. If no
case has a segmentation (as in any folder of NIfTI files), it cuts nothing else.

--labelled N uses the masks of N training cases and cuts the others without, into SLICES/unlabelled. The N cases are
drawn by the seed, and a larger N contains a smaller one.

--dataset list takes files of any names, from a CSV file with the columns image, label, patient and, optionally, split.

SLICES/run.json says of every launch that cut a case what it ran on: the command, versions, and digests of the files.

--teacher_probabilities cuts a teacher's class probabilities for each case, as nnU-Net or scripts/answer.py writes them,
into SLICES/answers, for train_kd.py to distil from without that network (docs/teachers.md).

All cases that cannot be used are named in one pass, and nothing can be trained on; --keep_going cuts the others.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import _root  # noqa: F401

from datasets.raw.options import ListOptions, ReadingOptions
from datasets.slicing.options import AnswerOptions, RawOptions, SliceMakerOptions
from utils.cluster import ClusterOptions
from utils.errors import UserError, run
from utils.lock import only_one
from utils.options import Parser
from utils.ranks import refuse_several_processes
from utils.shards import Place, Shard, take_part

ALIASES = {"in_path": "inpath", "out_path": "outpath", "process_num": "workers"}
"""The published spellings."""


def main() -> None:
    groups = (RawOptions, ListOptions, SliceMakerOptions, AnswerOptions, ReadingOptions, ClusterOptions)
    raw, of_list, options, of_teacher, reading, of_several = Parser(__doc__, ALIASES).read(*groups)
    if not of_several.shard:
        refuse_several_processes()
    elif options.resplit or of_teacher.teacher_probabilities:
        flag = "resplit" if options.resplit else "teacher_probabilities"
        raise UserError(f"--{flag}: is work for one process; run it without --shard when all shards are done")
    of_several.refuse_no_scheduler()

    from datasets.raw import open_layout
    from datasets.slicing.slicemaker import find_raw, make_slices
    from datasets.slicing.summary import SliceMakerSummary
    from engine.provenance import RUN_FILE, digest_of, write_run_file

    started = time.monotonic()
    layout = open_layout(raw.dataset, raw.inpath, of_list.labels, of_list.window, raw.channel)
    label_map = layout.label_map(raw.task)
    answers = None
    if of_teacher.teacher_probabilities:
        from datasets.slicing.answer_slices import Answers, answer_slices

        # Before hours of cutting.
        answers = Answers(of_teacher, find_raw(raw.inpath, layout, options))

    def work(shard: Shard | None) -> SliceMakerSummary:
        summary = make_slices(raw.inpath, raw.outpath, layout, label_map, options, reading, shard, of_several.dask)
        if summary.all_files:
            digests = {case: digest_of(files) for case, files in summary.all_files.items()}
            with only_one(raw.outpath / f".{RUN_FILE}.lock", "is writing there", wait=True):
                write_run_file(raw.outpath, None, digests, label_map.classes, time.monotonic() - started)
        print(f"shard {shard}: {len(summary.all_files)} cases cut now" if shard else summary, flush=True)
        if answers is not None:
            print(answer_slices(raw.outpath, layout, label_map, answers, options.workers, reading, of_several.dask))
        return summary

    decides = {**asdict(raw), **asdict(of_list), **asdict(options), **asdict(reading), "workers": None}
    summary = take_part(Place(raw.outpath, "cases.json", "is cutting there", str(decides)), of_several.shard, work)
    summary.refuse_unusable()


if __name__ == "__main__":
    run(main)
