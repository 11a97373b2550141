"""Segment a NIfTI file, or every case in a folder, and write labels with the source's geometry.

    python scripts/predict.py --ckpt best.ckpt --input case.nii.gz --output predictions
    python scripts/predict.py --ckpt best.ckpt --input data/raw/kits19 --output predictions --largest_component 2

A folder is read by the checkpoint's layout (KiTS cases without labels too), or, failing that, as NIfTI files.
The written labels are the source's: a tumour network for KiTS writes 2 for tumour.
"""

from __future__ import annotations

from pathlib import Path

import _root  # noqa: F401

from engine.options import Parser, prediction_options, whole
from utils.errors import UserError, run
from utils.files import make_folder


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--input", type=Path, required=True, help="a .nii or .nii.gz file, or a folder")
    parser.add_argument("--output", type=Path, required=True, help="folder to write <case>.nii.gz to")
    parser.add_argument(
        "--largest_component", type=whole(0), nargs="?", const=1, default=0, metavar="N",
        help="keep the N largest connected components (1 if N is left out)",
    )  # fmt: skip
    prediction_options(parser)
    args = parser.parse_args()

    from datasets.raw.find_cases import find_inputs
    from datasets.raw.volume import read_volume, write_labels
    from engine.device import choose_device
    from engine.evaluation.predict import predict_volume
    from engine.segmenter import load_segmenter
    from utils.progress import progress

    make_folder(args.output)
    segmenter, _ = load_segmenter(args.ckpt, choose_device(args.device))
    outputs = {case: args.output / f"{case.name}.nii.gz" for case in find_inputs(args.input, segmenter.dataset)}
    sources = {path.resolve() for case in outputs for path in (case.image, case.label) if path is not None}
    for path in outputs.values():
        if path.resolve() in sources:
            raise UserError(f"{path}: is an input, which the result would overwrite; give another --output")
    failed = []
    for case, path in progress(outputs.items(), "segmenting", unit="case"):
        try:
            volume = read_volume(case, labels=(), with_label=False)
        except UserError as error:
            failed.append(str(error))
            continue
        labels = predict_volume(segmenter, volume, args.batch_size, args.threshold, args.largest_component)
        write_labels(path, labels, volume)
        found = [f"{(labels == value).sum()} voxels of label {value}" for value in segmenter.source_labels()[1:]]
        print(f"{path}: {'; '.join([*found, *volume.notes])}")
    if failed:
        raise UserError(f"{len(failed)} of {len(outputs)} cases could not be read: {'; '.join(failed)}")


if __name__ == "__main__":
    run(main)
