"""Make CT-like volumes with known labels in the KiTS or LiTS layout, to try everything without real data.

    python scripts/make_phantom.py --outpath data/raw/phantom --dataset kits --size 128
    python scripts/make_phantom.py --outpath data/raw/phantom_lits --dataset lits --cases 20 --workers 4
    python scripts/make_phantom.py --outpath data/raw/around --masks KITS   (imaging around real KiTS labels)
    python scripts/make_phantom.py --outpath data/raw/large --masks KITS --slices 1 105 --tumour 50 --size 256

A case depends on the seed and its own number only. What is there already is not made again.
"""

from __future__ import annotations

from pathlib import Path

import _root  # noqa: F401

from engine.options import Parser, real
from utils.errors import UserError, run
from utils.registry import match_name

TUMOUR_FREE = {"kits": 0.0, "lits": 1 / 6}


def parser() -> Parser:
    options = Parser(__doc__)
    add = options.add_argument
    add("--outpath", type=Path, required=True, help="folder to write to")
    add("--dataset", default="kits", help="kits (default) or lits")
    add("--cases", type=int, help="how many cases (default: 12; with --masks, all)")
    add("--unlabelled", type=int, default=0, help="extra cases without segmentation (default: 0)")
    add("--size", type=int, help="pixels along a side of a slice (default: 512; with --masks, the labels' own)")
    add(
        "--slices", type=int, nargs=2, metavar=("LO", "HI"),
        help="fewest and most slices of a case (default: 24 48; with --masks, any)",
    )  # fmt: skip
    add("--tumour_free", type=float, help="share of cases without a tumour (default: kits 0, lits 1/6)")
    add("--masks", type=Path, help="folder of KiTS labels to make imaging for; --size resizes their slices")
    add("--tumour", type=real(0), default=0.0, metavar="ML", help="only the masks with at least that much tumour")
    add("--seed", type=int, default=0, help="default: 0")
    add("--workers", type=int, default=1, help="processes (default: 1)")
    return options


def main() -> None:
    args = parser().parse_args()

    from phantoms.files import Masks, make_phantoms
    from phantoms.recipe import Recipe

    dataset = match_name("phantom data set", args.dataset, TUMOUR_FREE)
    around = args.masks is not None
    low, high = args.slices or Recipe.slices
    size = args.size if args.size is not None else 0 if around else 512
    tumour_free = TUMOUR_FREE[dataset] if args.tumour_free is None else args.tumour_free
    if (args.size is not None and size < 32) or not (1 if around else 4) <= low <= high:
        raise UserError("--size must be at least 32, and --slices LO HI must be 4 <= LO <= HI (with --masks, 1 <= LO)")
    if min(args.seed, args.unlabelled) < 0 or min(args.workers, 1 if args.cases is None else args.cases) < 1:
        raise UserError("--unlabelled and --seed must not be negative, --cases and --workers must be at least 1")
    if not 0 <= tumour_free <= 1:
        raise UserError("--tumour_free is a share: give a number from 0 to 1")
    if around and dataset != "kits":
        raise UserError("--masks goes with --dataset kits only")
    if args.tumour and not around:
        raise UserError("--tumour chooses among --masks; give their folder")
    if args.outpath.exists() and not args.outpath.is_dir():
        raise UserError(f"{args.outpath}: is a file; give a folder as --outpath")

    masks = Masks(args.masks, args.slices and (low, high), args.tumour) if around else None
    recipe = Recipe(dataset, args.seed, size, Recipe.slices if around else (low, high), tumour_free)
    summary = make_phantoms(args.outpath, recipe, args.cases, args.unlabelled, args.workers, masks)
    print(f"{args.outpath}: {dataset} phantoms: {summary}")


if __name__ == "__main__":
    run(main)
