"""Segment a NIfTI file, or every case in a folder, and write labels with the source's geometry.

    python scripts/predict.py --ckpt best.ckpt --input case.nii.gz --output predictions
    python scripts/predict.py --ckpt best.ckpt --input data/raw/kits19 --output predictions --largest_component 2

A folder is read by the checkpoint's layout (KiTS cases without labels too), or, failing that, as NIfTI files.
The written labels are the source's: a tumour network for KiTS writes 2 for tumour.
"""

from __future__ import annotations

from pathlib import Path

import _root  # noqa: F401

from engine.options import Parser, device_options
from utils.errors import UserError, run


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--ckpt", type=Path, required=True, help="a checkpoint of train.py or train_kd.py")
    parser.add_argument("--input", type=Path, required=True, help="a .nii or .nii.gz file, or a folder")
    parser.add_argument("--output", type=Path, required=True, help="folder to write <case>.nii.gz to")
    parser.add_argument("--threshold", type=float, help="foreground above it (default: the likeliest class)")
    parser.add_argument(
        "--largest_component", type=int, nargs="?", const=1, default=0, metavar="N",
        help="keep the N largest connected components (1 if N is left out)",
    )  # fmt: skip
    parser.add_argument("--batch_size", type=int, default=8, help="default: 8")
    device_options(parser)
    args = parser.parse_args()
    if args.threshold is not None and not 0 <= args.threshold < 1:
        raise UserError(f"--threshold must lie in [0, 1), not {args.threshold}")

    from datasets.volume import read_volume, write_labels
    from engine.device import choose_device
    from engine.predict import find_inputs, predict_volume
    from engine.segmenter import load_segmenter
    from utils.progress import progress

    segmenter, _ = load_segmenter(args.ckpt, choose_device(args.device))
    cases = find_inputs(args.input, segmenter.dataset)
    for case in progress(cases, "segmenting", unit="case"):
        volume = read_volume(case, labels=(), with_label=False)
        labels = predict_volume(segmenter, volume, args.batch_size, args.threshold, args.largest_component)
        path = args.output / f"{case.name}.nii.gz"
        write_labels(path, labels, volume)
        found = ", ".join(
            f"{int((labels == value).sum())} voxels of label {value}" for value in segmenter.source_labels()[1:]
        )
        print(f"{path}: {found}")


if __name__ == "__main__":
    run(main)
