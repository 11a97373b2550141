"""Distil a trained teacher into a student.

    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18
    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18 --kd skd --alpha 1 --beta 0
    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_34 --kd hlfd at:3.0

Data set, task, frame and window are the teacher's unless given. Methods add up; `name:weight` scales one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from engine.options import Parser, data_options, real, training_options
from utils.errors import UserError, run


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--tckpt", type=Path, required=True, help="the teacher's checkpoint")
    parser.add_argument("--smodel", default="resnet_18", help="the student (default: resnet_18)")
    group = parser.add_argument_group("distillation")
    group.add_argument("--kd", nargs="+", metavar="METHOD[:WEIGHT]", help="methods to add up (default: hlfd)")
    group.add_argument("--loss_type", help="one method, by its published name or ours")
    group.add_argument("--alpha", type=real(0), default=0.1, help="weight of the pixel terms (default: 0.1)")
    group.add_argument("--beta", type=real(0), default=0.9, help="weight of the feature terms (default: 0.9)")
    group.add_argument("--temperature", type=real(above=0), default=4.0, help="of the pixel terms (default: 4)")
    data_options(parser, inherited=True)
    training_options(parser, epochs=120)
    args = parser.parse_args()
    if args.kd and args.loss_type:
        raise UserError("--kd and --loss_type name the same thing; give one of them")
    args.kd = args.kd or [args.loss_type or "hlfd"]

    from datasets import LAYOUTS
    from distillation import build_method, method_name
    from distillation.tasks import Distiller
    from engine.device import choose_device
    from engine.segmenter import load_segmenter
    from engine.training import fingerprint_weights, new_segmenter, open_archive, train
    from networks import NETWORKS
    from utils.registry import match_name

    args.smodel = match_name("network", args.smodel, NETWORKS)
    args.kd = [":".join([method_name(name), *weight]) for name, *weight in (spec.split(":") for spec in args.kd)]
    teacher, content = load_segmenter(args.tckpt, choose_device(args.device))
    inherit(args, content)
    args.dataset = match_name("dataset", args.dataset, LAYOUTS)
    run_name = f"kd_{args.smodel}_{'_'.join(args.kd).replace(':', '')}"
    args.checkpoint_path = args.checkpoint_path or Path("checkpoints") / f"{args.dataset}_{args.task}_{run_name}"
    if args.mode == "test":
        from engine.test_mode import test

        test(args)
        return

    archive = open_archive(args.train_data_path, args.dataset, args.task, "train")
    if (archive.task, archive.dataset) != (teacher.task, teacher.dataset):
        raise UserError(
            f"{args.tckpt}: was trained for task {teacher.task.name} of {teacher.dataset}, not for task "
            f"{archive.task.name} of {archive.dataset}; give a teacher of this task"
        )
    segmenter = new_segmenter(args, args.smodel, archive)
    method = build_method(
        args.kd, segmenter.network.channels, teacher.network.channels,
        alpha=args.alpha, beta=args.beta, temperature=args.temperature,
    )  # fmt: skip
    args.teacher = fingerprint_weights(teacher.network)
    name = f"{args.dataset}_{archive.task.name}_{run_name}"
    train(args, Distiller(segmenter.network, teacher.network, method), segmenter, archive, name)


def inherit(args: argparse.Namespace, teacher: dict[str, Any]) -> None:
    """Fill in what was not given from the teacher's checkpoint."""
    args.dataset = args.dataset or teacher["dataset"]
    args.task = args.task or teacher["task"]["name"]
    args.window = args.window or teacher["window"]
    frame = teacher["frame"]
    if args.crop is None:
        # A crop in pixels belongs to its size; with another size only "none" and "the usual share" carry over.
        args.crop = frame["crop"] if args.size in (None, frame["size"]) or frame["crop"] == 0 else None
    args.size = frame["size"] if args.size is None else args.size


if __name__ == "__main__":
    run(main)
