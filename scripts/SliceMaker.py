"""Cut raw cases into slices.

    python scripts/SliceMaker.py --inpath RAW --outpath SLICES --dataset kits --task tumor
    python scripts/SliceMaker.py --inpath ANY_CT --outpath SLICES --dataset kits --unlabelled

Training cases give the slices with the target and a share of the others; validation and test cases give every
slice. A second run with the same options does nothing, one with other options does only what they change.

The split is drawn once and kept in SLICES/splits.json: later runs, for another task or with new cases, leave every
case in its part and deal out only the new ones. --resplit draws it anew.

--unlabelled also cuts the cases without segmentation, into SLICES/unlabelled, for train_kd.py to distil on. Where no
case has a segmentation (any folder of NIfTI files will do) it cuts nothing else.
"""

from __future__ import annotations

from pathlib import Path

import _root  # noqa: F401

from engine.options import Parser
from utils.errors import run


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--inpath", "--in_path", type=Path, required=True, help="folder of the raw cases")
    add("--outpath", "--out_path", type=Path, required=True, help="folder for the slices")
    add("--dataset", default="kits", help="layout of the raw cases: kits (default), lits, acdc, heart or msd")
    add("--task", default="tumor", help="organ, tumor (default), all, or a name of the data")
    add("--slices", choices=["target", "all"], default="target", help="what training cases have on disk")
    add("--negatives", type=float, default=0.1, help="share of the other slices to train on (default: 0.1)")
    add(
        "--unlabelled", type=float, nargs="?", const=0.25, metavar="SHARE",
        help="cut cases without segmentation too: this share of their slices (0.25 if SHARE is left out)",
    )  # fmt: skip
    add("--test_fraction", type=float, help="above 0: writes SLICES/train and SLICES/test (default: as before, or 0)")
    add("--val_fraction", type=float, help="share of the cases to validate on (default: as before, or 0.1)")
    add("--seed", type=int, help="draws the split and what is cut (default: as before, or 0)")
    add("--resplit", action="store_true", help="draw the split anew; slices move where they then belong")
    add("--workers", "--process_num", type=int, help="processes (default: the number of cores)")
    add("--mode", choices=["train", "test"], help="test: every case is a test case (default: as before, or train)")
    options = vars(parser.parse_args())

    from datasets.raw import open_layout
    from datasets.slicing.slicemaker import make_slices

    layout = open_layout(options.pop("dataset"), options["inpath"])
    task = layout.label_map(options.pop("task"))
    print(make_slices(layout=layout, task=task, **options))


if __name__ == "__main__":
    run(main)
