"""What is wrong with slices, checkpoints and methods, and with what train.py and train_kd.py are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.battery.spoil import (
    LIST,
    MANIFEST,
    Fault,
    checkpoint,
    cut_again,
    on_a_slice,
    remove,
    slice_of,
    truncate,
    write,
    write_text,
)

FLAT, TUMOUR = np.zeros((8, 8), np.int16), np.full((8, 8), 2, np.uint8)
NO_SLICE = (".npz", "not a slice", "cut the slices again")
OTHERS = '{"train": ["7"], "val": ["8"], "test": []}'
SPLITS = "{root}/slices/splits.json"

TRAINING = [
    Fault("no slices", "train", "--train_data_path {root}/nowhere", says=("nowhere", "no slices", "SliceMaker.py")),
    Fault("unknown network", "train", "--model resnet_19", says=("resnet_19", "choose one of raunet")),
    Fault("no number", "train", "--lr fast", says=("--lr", "above 0", "not fast"), real=True),
    Fault("no epochs", "train.py", "--epochs 0", says=("--epochs", "at least 1")),
    Fault("two lengths", "train", "--epochs 3", says=("--epochs", "not allowed with", "--steps")),
    Fault("a window upside down", "train", "--window 200 -100", says=("--window 200 -100", "lower"), real=True),
    Fault("unknown device", "train", "--device tpu9", says=("--device tpu9", "--device cpu always can")),
    Fault("half precision on a CPU", "train", "--amp fp16", says=("--amp fp16 needs a CUDA device", "--amp off")),
    Fault("another data set", "train", "--dataset lits", says=("slices", "slices of kits", "--dataset kits")),
    Fault("unknown task", "train", "--task vessel", says=("vessel", "choose one of")),
    Fault("no list", "train", "", remove(LIST), (LIST, "no such list", "SliceMaker.py")),
    Fault("a list of text", "train", "", write(LIST, "x"), (LIST, "not a list", "cut the slices again")),
    Fault("a slice that is gone", "train", "", on_a_slice(Path.unlink), (".npz", "missing", "again")),
    Fault("a slice of text", "train", "", on_a_slice(write_text), NO_SLICE),
    Fault("slices cut again", "train", "", on_a_slice(cut_again), (".npz", "not the slice that cases.json lists")),
    Fault("slices without mask", "train", "", slice_of(ct=FLAT), (".npz", "mask", "cut")),
    Fault("slices without image", "train", "", slice_of(mask=TUMOUR), (".npz", "ct", "cut")),
    Fault("slices of volumes", "train", "", slice_of(ct=np.stack([FLAT] * 2), mask=np.stack([TUMOUR] * 2)), NO_SLICE),
    Fault("slices of words", "train", "", slice_of(ct=np.full((8, 8), "a"), mask=TUMOUR), NO_SLICE),
    Fault("slices that are NaN", "train", "", slice_of(ct=np.full((8, 8), np.nan), mask=TUMOUR), NO_SLICE),
    Fault("empty slices", "train", "", slice_of(ct=FLAT[:0], mask=TUMOUR[:0]), NO_SLICE),
    Fault("a damaged manifest", "train", "", write(MANIFEST, '{"dataset": 3}'), (MANIFEST, "damaged", "SliceMaker")),
    Fault("no split", "train", "--splits {root}/no.json", says=("no.json", "no such file")),
    Fault(
        "others' split", "train", "--splits {root}/s.json", write("s.json", OTHERS), ("s.json", "case 7", "no slices")
    ),
    Fault("a split of bytes", "train", "--splits {ckpt}", says=("best.ckpt", "JSON")),
    Fault("a run is there", "train", "--checkpoint_path {root}/teacher", says=("teacher", "holds a run", "--resume")),
    Fault("a file for checkpoints", "train", f"--checkpoint_path {SPLITS}", says=("splits.json", "give")),
    Fault("no first weights", "train", "--init {root}/no.pth", says=("no.pth", "no such file", "give")),
    Fault("first weights of text", "train", f"--init {SPLITS}", says=("splits.json", "read")),
    Fault("no teacher's weights", "train", "--init teacher", says=("--init teacher", "none", "give the path")),
    Fault("nothing to test", "train", "--mode test", says=("best.ckpt", "no such checkpoint", "train.py")),
    Fault("no teacher", "distil", "--tckpt {root}/no.ckpt", says=("no.ckpt", "no such checkpoint", "train.py")),
    Fault("no teacher named", "train_kd.py", says=("required", "--tckpt"), real=True),
    Fault("a teacher of text", "distil", f"--tckpt {SPLITS}", says=("splits.json", "not a checkpoint")),
    Fault("a teacher cut short", "distil", "", truncate("teacher/best.ckpt"), ("best.ckpt", "not a checkpoint")),
    Fault("a teacher of nothing", "distil", "", checkpoint({}), ("best.ckpt", "weights", "give")),
    Fault("weights alone", "distil", "", checkpoint({"weights": {"a": torch.ones(1)}}), ("best.ckpt", "not a check")),
    Fault("a task without slices", "distil", "--task organ", says=("kits_organ_slices.npy", "no such list", "--task")),
    Fault("unknown method", "distil", "--kd magic", says=("magic", "choose one of")),
    Fault("no weight", "distil", "--kd kd:-1", says=("kd:-1", "positive")),
    Fault("unknown option of a method", "distil", "--kd kd,speed=2", says=("kd has no option speed", "temperature")),
    Fault("no value of an option", "distil", "--kd kd,temperature=hot", says=("temperature=hot", "must be")),
    Fault("a class that is not there", "distil", "--kd my.losses:Mine", says=("my.losses", "--list_methods")),
    Fault("no unlabelled slices", "distil", "--unlabelled {root}/no", says=("no", "no slices", "--unlabelled")),
    Fault("one method twice", "distil", "--kd kd kd", says=("kd is given twice", "once")),
]
