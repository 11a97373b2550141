"""Make CT-like volumes with exact labels in the KiTS or LiTS layout, to try everything without real data.

    python scripts/make_phantom.py --outpath data/raw/phantom --dataset kits --size 128
    python scripts/make_phantom.py --outpath data/raw/phantom_lits --dataset lits --cases 20 --workers 4
    python scripts/make_phantom.py --outpath data/raw/around --masks KITS   (imaging around real KiTS labels)
    python scripts/make_phantom.py --outpath data/raw/large --masks KITS --slices 1 105 --tumour 50 --size 256

A case depends only on the seed and on its own number. Cases that exist already are not made again.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

import _root  # noqa: F401

from utils.errors import UserError, run
from utils.numbers import ClosedShare, NonNegative, NonNegativeInt, PositiveInt, int_from
from utils.options import Parser, option
from utils.registry import match_name

TUMOUR_FREE = {"kits": 0.0, "lits": 1 / 6}


@dataclass(frozen=True)
class PhantomOptions:
    """phantoms"""

    outpath: Path = option(MISSING, "folder to write to")
    dataset: str = option("kits", "kits or lits")
    cases: PositiveInt | None = option(None, "number of cases (default: 12; with --masks, all)")
    unlabelled: NonNegativeInt = option(0, "number of extra cases without segmentation")
    size: int | None = option(
        None, "pixels along a side of a slice (default: 512; with --masks, the labels' own)", type=int_from(32)
    )
    slices: tuple[PositiveInt, PositiveInt] | None = option(
        None, "lowest and highest number of slices of a case (default: 24 48; with --masks, any)", metavar=("LO", "HI")
    )
    tumour_free: ClosedShare | None = option(None, "share of cases without a tumour (default: kits 0, lits 1/6)")
    masks: Path | None = option(None, "folder of KiTS labels to make imaging for; --size resizes their slices")
    tumour: NonNegative = option(0.0, "use only masks with at least that much tumour", metavar="ML")
    seed: NonNegativeInt = option(0, "of everything that is drawn")
    workers: PositiveInt = option(1, "processes")


def main() -> None:
    (options,) = Parser(__doc__).read(PhantomOptions)
    dataset = match_name("phantom data set", options.dataset, TUMOUR_FREE)
    if options.tumour and not options.masks:
        raise UserError("--tumour selects from --masks; give their folder")

    from phantoms.files import make_phantoms
    from phantoms.masks import Masks
    from phantoms.recipe import Recipe

    tumour_free = TUMOUR_FREE[dataset] if options.tumour_free is None else options.tumour_free
    if options.masks:
        masks = Masks(options.masks, options.slices, options.tumour)
        recipe = Recipe(dataset, options.seed, options.size or 0, tumour_free=tumour_free)
    else:
        masks = None
        size, slices = options.size or Recipe.size, options.slices or Recipe.slices
        recipe = Recipe(dataset, options.seed, size, slices, tumour_free)
    summary = make_phantoms(options.outpath, recipe, options.cases, options.unlabelled, options.workers, masks)
    print(f"{options.outpath}: {dataset} phantoms: {summary}")


if __name__ == "__main__":
    run(main)
