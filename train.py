"""Train one network: a teacher, or a student without distillation.

python train.py --model raunet --train_data_path data/kits/train --checkpoint_path checkpoints/teacher
python train.py --model resnet_18 --device cpu --size 256 --epochs 15
python train.py --model raunet --checkpoint_path checkpoints/teacher --resume
python train.py --model raunet --checkpoint_path checkpoints/teacher --mode test
"""

from __future__ import annotations

from pathlib import Path

from engine.options import Parser, data_options, training_options
from utils.errors import run


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--model", help="raunet, resnet_18, smp/fpn/mit_b1, ... (default: raunet)")
    data_options(parser)
    training_options(parser, epochs=100)
    args = parser.parse_args()

    from datasets.raw import LAYOUTS
    from networks import file_label, network_name
    from utils.registry import match_name

    asked = args.model and network_name(args.model)
    args.model = asked or "raunet"
    dataset, task = match_name("dataset", args.dataset or "kits", LAYOUTS), args.task or "tumor"
    label = file_label(args.model)
    args.checkpoint_path = args.checkpoint_path or Path("checkpoints") / f"{dataset}_{task}_{label}"
    if args.mode == "test":
        from engine.evaluation.test_mode import test

        test(args, "model", asked)
        return

    from datasets.slices.slice_folder import open_slices
    from distillation.task import SupervisedTask
    from engine.training.run import new_segmenter, train

    slices = open_slices(args.train_data_path, dataset, task, "train")
    segmenter = new_segmenter(args, args.model, slices)
    train(
        args,
        SupervisedTask(segmenter.network),
        segmenter,
        slices,
        f"{dataset}_{slices.label_map.name}_{label}",
    )


if __name__ == "__main__":
    run(main)
