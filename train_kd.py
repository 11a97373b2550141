"""Distil a trained teacher into a student.

    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18
    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18 --kd skd --alpha 1 --beta 0
    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_34 --kd hlfd at:3.0
    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --smodel resnet_18 --kd kd,temperature=2 fitnet:0.1

Data set, task, frame and window are the teacher's unless given. Methods add up; `name:2` doubles all of one's
own weights, and `name,option=value` sets an option of one. `--list_methods` prints every method with its options.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from engine.options import Parser, data_options, real, training_options, whole
from utils.errors import UserError, run


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--tckpt", type=Path, required=True, help="the teacher's checkpoint")
    parser.add_argument("--smodel", help="the student (default: resnet_18)")
    group = parser.add_argument_group("distillation")
    group.add_argument(
        "--kd", nargs="+", metavar="METHOD[:WEIGHT][,OPTION=VALUE]", help="methods to add up (default: hlfd)"
    )
    group.add_argument("--loss_type", help="one method, by its published name or ours")
    group.add_argument("--alpha", type=real(0), help="weight of HLFD's pixel terms, or another method's alpha")
    group.add_argument("--beta", type=real(0), help="weight of HLFD's feature terms, or another method's beta")
    group.add_argument("--temperature", type=real(above=0), help="of softened predictions (default: each method's own)")
    group.add_argument("--layers", nargs="+", metavar="STAGE", help="stages to compare (default: each method's own)")
    group.add_argument("--list_methods", action=ListMethods, help="print the methods with their options, and stop")
    group.add_argument(
        "--kd_schedule", choices=["constant", "warmup", "decay"], default="constant",
        help="the distillation's weight: constant, up in the first quarter, or down to 0 (default: constant)",
    )  # fmt: skip
    group.add_argument(
        "--balance", type=real(0), default=0.0, metavar="SHARE",
        help="give all terms the same gradient, together SHARE of the segmentation loss's (default: 0, as they are)",
    )  # fmt: skip
    group.add_argument(
        "--unlabelled", type=Path, nargs="+", metavar="DIR",
        help="slices without masks to distil on too (of SliceMaker --unlabelled, or the training slices themselves)",
    )  # fmt: skip
    group.add_argument("--unlabelled_per_batch", type=whole(1), metavar="N", help="of a batch's slices (default: half)")
    group.add_argument(
        "--record_terms", type=whole(0), default=0, metavar="STEPS",
        help="write every term's value and gradient to terms.jsonl, every so many steps (default: 0, never)",
    )  # fmt: skip
    data_options(parser, inherited=True)
    training_options(parser, epochs=120)
    args = parser.parse_args()
    if args.kd and args.loss_type:
        raise UserError("--kd and --loss_type name the same thing; give one of them")
    args.kd = args.kd or [args.loss_type or "hlfd"]
    if joined := [spec for spec in args.kd if "/" in spec]:
        raise UserError(
            f"--kd {joined[0]}: methods are separated by spaces here, as in --kd kd at:0.5; balance, schedule and "
            "unlabelled are options, --balance, --kd_schedule and --unlabelled"
        )
    if args.unlabelled_per_batch and not args.unlabelled:
        raise UserError("--unlabelled_per_batch: there are no such slices; name their folder with --unlabelled DIR")

    from datasets.raw import LAYOUTS
    from datasets.slices.slice_folder import open_slices
    from distillation import build_method, plain_spec
    from distillation.task import Distiller
    from engine.device import choose_device
    from engine.segmenter import load_segmenter
    from engine.training.run import new_segmenter, train
    from networks import file_label, network_name
    from utils.fingerprint import fingerprint_weights
    from utils.registry import match_name

    asked = args.smodel and network_name(args.smodel)
    args.smodel = asked or "resnet_18"
    shared = {name: getattr(args, name) for name in ("alpha", "beta", "temperature", "layers")}
    args.kd = [plain_spec(spec, **shared) for spec in args.kd]
    teacher, content = load_segmenter(args.tckpt, choose_device(args.device))
    inherit(args, content)
    args.dataset = match_name("dataset", args.dataset, LAYOUTS)
    run_name = f"kd_{file_label(args.smodel)}_{re.sub('[^a-z0-9.=]+', '_', '_'.join(args.kd))}"
    args.checkpoint_path = args.checkpoint_path or Path("checkpoints") / f"{args.dataset}_{args.task}_{run_name}"
    if args.mode == "test":
        from engine.evaluation.test_mode import test

        test(args, "smodel", asked)
        return

    slices = open_slices(args.train_data_path, args.dataset, args.task, "train")
    if (slices.label_map, slices.dataset) != (teacher.label_map, teacher.dataset):
        raise UserError(
            f"{args.tckpt}: was trained for task {teacher.label_map.name} of {teacher.dataset}, not for task "
            f"{slices.label_map.name} of {slices.dataset}; give a teacher of this task"
        )
    segmenter = new_segmenter(args, args.smodel, slices)
    method = build_method(args.kd, segmenter.network.channels, teacher.network.channels, **shared)
    args.teacher = fingerprint_weights(teacher.network)
    name = f"{args.dataset}_{slices.label_map.name}_{run_name}"
    task = Distiller(segmenter.network, teacher.network, method, args.kd_schedule, args.balance)
    if content.get("metrics", {}).get("dice") == 0:
        print(
            f"note: {args.tckpt}: its validation Dice was 0, so it has little to teach; train it longer",
            file=sys.stderr,
        )
    train(args, task, segmenter, slices, name)


class ListMethods(argparse.Action):
    """Prints every method with its options and what its documentation begins with, and ends."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from distillation import describe_methods

        print(describe_methods())
        parser.exit()


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
