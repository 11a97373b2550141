"""What is wrong where networks are scored, used and compared."""

from __future__ import annotations

from tests.battery.spoil import (
    IMAGE,
    Fault,
    cut_again,
    empty_folder,
    exported,
    image,
    on_a_slice,
    other_results,
    other_shape,
    truncate,
    without_segmentation,
    write,
)

BENCHMARK, EVALUATE = "scripts/benchmark.py", "scripts/evaluate.py --ckpt {ckpt} --outpath {out}/s.json"
EXPORTED = "--ckpt {root}/model.onnx --device auto"
VESSELS = {"name": "vessel", "classes": ["vessel"], "labels": [[3]], "regions": {"vessel": [1]}}
NO_TESTS = '{"train": [], "val": [], "test": []}'

RESULTS = [
    Fault("no source", EVALUATE, says=("--inpath", "--test_data_path"), real=True),
    Fault("a table as JSON", "evaluate", "--outpath {out}/s.csv", says=("s.csv", "must end in .json")),
    Fault("a part of nothing", "rescore", "--part val", says=("--part val", "--splits")),
    Fault("unknown case", "evaluate", "--cases 77", says=("raw", "no labelled case 77", "holds")),
    Fault("unknown case of slices", "rescore", "--cases 77", says=("slices", "no slices of 77", "has")),
    Fault("no masks", "evaluate", "", without_segmentation, ("raw", "no case has a seg", "predict.py")),
    Fault("a mask of another shape", "evaluate", "", other_shape, ("case_00000", "shape")),
    Fault("a threshold above one", "evaluate", "--threshold 1.5", says=("--threshold", "below 1")),
    Fault("two thresholds", "evaluate", "--slice_protocol --threshold 0.4", says=("--threshold", "leave one")),
    Fault("no network", "evaluate", "--ckpt {root}/no.ckpt", says=("no.ckpt", "no such checkpoint", "train.py")),
    Fault("a folder as network", "evaluate", "--ckpt {root}/teacher", says=("teacher", "checkpoint")),
    Fault("another layout", "evaluate", "--dataset brats", says=("brats", "choose one of")),
    Fault("no tests", "rescore", "--splits {root}/s.json", write("s.json", NO_TESTS), ("s.json", "no test", "--part")),
    Fault("a file as folder", "evaluate", "--outpath {ckpt}/s.json", says=("best.ckpt", "folder", "give"), real=True),
    Fault("no input", "predict", "--inpath {root}/no.nii.gz", says=("no.nii.gz", "no such")),
    Fault("a folder of nothing", "predict", "--inpath {root}/empty", empty_folder, ("empty", "no ")),
    Fault("no image", "predict", "--inpath {root}/x.nii.gz", write("x.nii.gz", "text"), ("x.nii.gz", "cannot be read")),
    Fault("another kind of file", "predict", "--inpath {root}/slices/splits.json", says=("splits.json", ".nii")),
    Fault("output is a file", "predict", "--outpath {ckpt}", says=("best.ckpt", "folder", "give another")),
    Fault("no output", "scripts/predict.py --ckpt {ckpt} --inpath {raw}", says=("required", "--outpath"), real=True),
    Fault("a flat image", "predict", "--inpath {root}/" + IMAGE, image(lambda a: a[0]), (IMAGE, "shape")),
    Fault("half an ONNX file", "predict", EXPORTED, exported(0.5), ("model.onnx", "not an ONNX file", "export.py")),
    Fault(
        "a bare ONNX file", "rescore", EXPORTED, exported(format=9), ("model.onnx", "unknown export format", "update")
    ),
    Fault("cases of numbers", "evaluate", EXPORTED, exported(cases=3), ("model.onnx", "damaged", "export.py")),
    Fault("another task", "evaluate", EXPORTED, exported(task=VESSELS), ("raw", "no task vessel", "--labels")),
    Fault("text as ONNX", "predict", EXPORTED, write("model.onnx", "text"), ("model.onnx", "give"), real=True),
    Fault("an export on a GPU", "predict", f"{EXPORTED} --device meta", exported(), ("--device meta", "CPU", "leave")),
    Fault(
        "an export of nothing", "export", "--ckpt {root}/no.ckpt", says=("no.ckpt", "no such checkpoint", "train.py")
    ),
    Fault("an export of half", "export", "", truncate("teacher/best.ckpt"), ("best.ckpt", "not a checkpoint")),
    Fault("an unknown format", "export", "--formats tflite", says=("--formats", "tflite", "onnx")),
    Fault("int8 of nothing", "export", "--int8 --formats torch", says=("--int8", "add onnx")),
    Fault("no slices for int8", "export", "--int8 --train_data_path {root}/no", says=("no", "no slices", "SliceMaker")),
    Fault("no results", "export", "--results {root}/no.json", says=("no.json", "no such file")),
    Fault("others' results", "export", "--results {root}/results.json", other_results, ("enet", "malunet", "give")),
    Fault("no teacher", BENCHMARK, "--outpath {out}", says=("--tckpt", "--train_teacher"), real=True),
    Fault("two teachers", "compare", "--train_teacher unet", says=("--train_teacher", "not allowed with", "--tckpt")),
    Fault("unknown student", "compare", "--smodel tiny", says=("tiny", "choose one of")),
    Fault("unknown method", "compare", "--methods magic", says=("magic", "choose one of")),
    Fault("unknown row", "compare", "--against at", says=("--against at", "no row", "--methods")),
    Fault("one fold", BENCHMARK, "--train_teacher unet --folds 1", says=("--folds 1", "2 or more")),
    Fault("no other data", "compare", "--also_test {root}/no", says=("no", "no folder", "give one")),
    Fault("no report", "compare", "--report", says=("out", "no benchmark yet", "without --report")),
    Fault("the teacher's choice", "compare", "--task organ", says=("--task", "the teacher's", "leave it out")),
    Fault("no unlabelled slices", "compare", "--methods kd/unlabelled", says=("/unlabelled", "--unlabelled DIR")),
    Fault("slices cut again", "compare", "", on_a_slice(cut_again), (".npz", "not the slice that cases.json lists")),
]
