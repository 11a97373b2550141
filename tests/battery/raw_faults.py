"""What is wrong with raw cases, and with what SliceMaker is told."""

from __future__ import annotations

import numpy as np

from tests.battery.spoil import (
    IMAGE,
    MANIFEST,
    SEGMENTATION,
    Fault,
    edit,
    empty_folder,
    image,
    label,
    no_tumour,
    other_shape,
    remove,
    truncate,
    twice,
    without_segmentation,
    write,
)

COLOURS = [("R", "u1"), ("G", "u1"), ("B", "u1")]
AGAIN = "--outpath {root}/slices"

RAW = [
    Fault("no such folder", "cut", "--inpath {root}/nowhere", says=("nowhere", "no such folder", "give"), real=True),
    Fault("a file as folder", "cut", "--inpath {ckpt}", says=("best.ckpt", "case_NNNNN")),
    Fault("an empty folder", "cut", "--inpath {root}/empty", empty_folder, ("empty", "no ")),
    Fault("cut short", "cut", "", truncate(IMAGE), (IMAGE, "cannot be read"), midway=True, real=True),
    Fault("no bytes", "cut", "", write(IMAGE), (IMAGE, "cannot be read"), midway=True),
    Fault("text", "cut", "", write(IMAGE, "no image"), (IMAGE, "cannot be read"), midway=True),
    Fault("gzip of nothing", "cut", "", write(IMAGE, b"\x1f\x8b\x08" + bytes(40)), (IMAGE, "read"), midway=True),
    Fault("mask of another shape", "cut", "", other_shape, ("case_00000", "shape"), midway=True, real=True),
    Fault("unknown label", "cut", "", label(lambda a: a * 3), (SEGMENTATION, "label", "6"), midway=True),
    Fault("half a label", "cut", "", label(lambda a: a / np.float32(2)), (SEGMENTATION, "0.5"), midway=True),
    Fault("a flat image", "cut", "", image(lambda a: a[0]), (IMAGE, "shape"), midway=True),
    Fault("a series", "cut", "", image(lambda a: np.stack([a, a], -1)), (IMAGE, "shape"), midway=True),
    Fault("complex", "cut", "", image(lambda a: a.astype(np.complex64)), (IMAGE, "complex"), midway=True),
    Fault("colours", "cut", "", image(lambda a: np.zeros(a.shape, COLOURS)), (IMAGE, "grey"), midway=True),
    Fault("no mask at all", "cut", "", without_segmentation, ("raw", "none of its 4 cases", "--unlabelled"), real=True),
    Fault("no target", "cut", "", no_tumour, ("raw", "no case has the target of task tumor", "another --task")),
    Fault("a mask without image", "cut", "", remove(IMAGE), ("case_00001", "imag")),
    Fault("unknown data set", "cut", "--dataset brats", says=("brats", "choose one of kits"), real=True),
    Fault("unknown task", "cut", "--task vessel", says=("vessel", "choose one of")),
    Fault("msd without its file", "cut", "--dataset msd", says=("dataset.json",)),
    Fault("msd of something else", "cut", "--dataset msd", write("raw/dataset.json", "[1]"), ("dataset.json",)),
    Fault("msd cut short", "cut", "--dataset msd", write("raw/dataset.json", '{"labels": {'), ("dataset.json", "JSON")),
    Fault("output is a file", "cut", "--outpath {ckpt}", says=("best.ckpt", "folder", "give another path")),
    Fault("slices without manifest", "cut", "", write("out/00000_1.npz"), ("out", "no cases.json", "empty folder")),
    Fault("damaged manifest", "cut", AGAIN, write(MANIFEST, "{}"), (MANIFEST, "damaged", "delete")),
    Fault("manifest of text", "cut", AGAIN, write(MANIFEST, "x"), (MANIFEST, "JSON")),
    Fault("damaged split", "cut", AGAIN, write("slices/splits.json", "{"), ("splits.json", "JSON")),
    Fault("a case in two parts", "cut", AGAIN, edit("slices/splits.json", twice), ("splits.json", "twice", "one list")),
    Fault("a case that is gone", "cut", AGAIN, remove("raw/case_00001/*"), ("00001", "bring it back")),
    Fault("another split", "cut", f"{AGAIN} --seed 5", says=("splits.json", "--seed 0, not 5", "--resplit")),
    Fault("part of a split", "cut", "--outpath {root}/slices/train", says=("train", "part of the split", "--outpath")),
    Fault("shares above one", "cut", "--test_fraction 0.6 --val_fraction 0.6", says=("--test_fraction 0.6", "below 1")),
    Fault("a negative seed", "cut", "--seed -1", says=("--seed -1", "must not be negative")),
    Fault("too many labelled", "cut", "--labelled 99", says=("--labelled 99", "smaller number")),
    Fault("negatives above one", "cut", "--negatives 2", says=("--negatives", "at most 1", "not 2"), real=True),
    Fault("no workers", "cut", "--workers 0", says=("--workers", "at least 1")),
    Fault("unknown option", "cut", "--sise 4", says=("unrecognized arguments: --sise 4", "--help")),
]
