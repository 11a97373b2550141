"""Distil a trained teacher into a student.

    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18
    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18 --kd skd --alpha 1 --beta 0
    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_34 --kd hlfd at:3.0
    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18_os8 --init teacher
    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18 --kd kd,temperature=2 fitnet:0.1
    torchrun --nproc_per_node 4 train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18
    python train_kd.py --teacher_probabilities data/kits --smodel resnet_18 --kd kd dist
    python train_kd.py --tckpt nnunet:nnUNet_results/Dataset220/nnUNetTrainer__nnUNetPlans__2d:0 --smodel malunet

Data set, task, frame and window are the teacher's unless given. Methods add up; `name:2` doubles all of one's
own weights, and `name,option=value` sets an option of one. `--list_methods` prints every method with its options.

--teacher_probabilities takes the answers of a teacher on disk, which SliceMaker.py has cut, in place of its network
(docs/teachers.md).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from engine.options import (
    ALIASES,
    DataOptions,
    DistillationOptions,
    MethodOptions,
    RunOptions,
    StudentOptions,
    TrainingOptions,
)
from utils.errors import run
from utils.options import Parser
from utils.ranks import is_rank, refuse_several_processes


def main() -> None:
    parser = Parser(__doc__, ALIASES)
    parser.add_argument("--list_methods", action=ListMethods, help="print the methods with their options, and stop")
    groups = (StudentOptions, MethodOptions, DistillationOptions, DataOptions, TrainingOptions)
    chosen, method_options, distillation, data, training = parser.read(*groups, epochs=120)

    if training.mode == "test" or not is_rank():
        refuse_several_processes()

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.training.ranks import together

    with together(training) as training:
        distil(chosen, replace(distillation, methods=method_options.specs()), data, training)


def distil(
    chosen: StudentOptions, distillation: DistillationOptions, data: DataOptions, training: TrainingOptions
) -> None:
    """Train the student, or test it."""
    from datasets.slices.answers import StoredAnswers
    from engine.device import choose_device
    from engine.nnunet.segmenter import load_teacher
    from engine.training.run import decide_data, make_trainer, train
    from engine.training.teacher_view import other_view_note
    from networks import network_name
    from utils.progress import print_note

    teacher, checkpoint, answers = None, {}, None
    if distillation.tckpt:
        teacher, checkpoint = load_teacher(distillation.tckpt, choose_device(training.device), data)
        if "about" in checkpoint:
            print(checkpoint["about"], flush=True)
    else:
        answers = StoredAnswers.open(distillation.teacher_probabilities, data.task)
    student = network_name(chosen.smodel or "resnet_18")
    decided = decide_data(data, teacher, answers)  # what was not given is the teacher's
    run_options = RunOptions(student, decided, training, distillation)
    if training.mode == "test":
        from engine.evaluation.evaluate import test_run

        test_run(run_options, {"dataset": data.dataset, "task": data.task, "smodel": chosen.smodel and student})
        return
    trainer = make_trainer(run_options, teacher)
    if teacher and (note := other_view_note(decided, teacher)):
        print(note, file=sys.stderr)
    if checkpoint.get("metrics", {}).get("dice") == 0:
        print_note(f"{distillation.tckpt}: its validation Dice was 0, so it has little to teach; train it longer")
    train(trainer)


class ListMethods(argparse.Action):
    """Prints every method with its options and the first line of its documentation, and ends."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from distillation import describe_methods

        print(describe_methods())
        parser.exit()


if __name__ == "__main__":
    run(main)
