"""SliceMaker --teacher_probabilities: what it cuts, averages, redoes, notices and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from datasets.labels import organ_and_tumor
from datasets.slices.answers import FLOOR, StoredAnswers
from datasets.slices.manifest import Manifest
from datasets.slices.slice_folder import SliceFolder
from datasets.slicing.cut_answers import agreement
from tests.answers import answer_masks, cut_answered, near_mask, write_answer
from tests.data import ct_and_label, cut_slices, save, voxels
from utils.errors import UserError


@pytest.fixture
def teacher(raw: Path) -> Path:
    answer_masks(raw, raw.parent / "teacher")
    return raw.parent / "teacher"


def written(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "answers").rglob("*.npz")}


def test_answers_lie_on_the_slices_they_are_to(raw: Path, teacher: Path, tmp_path: Path) -> None:
    """Files are stored I, P, L: the answers' slices, rows and columns are those of ct and mask."""
    summary = cut_answered(raw, tmp_path / "out", teacher, val_fraction=0.2, test_fraction=0.2)
    assert (summary.cases, summary.cut, summary.without) == (5, 5, [])
    answers = StoredAnswers.open([tmp_path / "out"])
    for part in ("train", "test"):
        slices = SliceFolder.open(tmp_path / "out" / part, "kits", "all", part)
        files = [(slices, name) for names in slices.cases.values() for name in names]
        answers.check(files)
        for _, name in files:
            logs = answers.read(slices, name)
            _, mask = slices.read(name)
            assert logs.dtype == np.float16 and logs.shape == (3, *mask.shape)
            np.testing.assert_array_equal(logs.argmax(axis=0), mask)
    assert len(written(tmp_path / "out")) == sum(
        len(case.written_slices)
        for part in ("train", "test")
        for case in (Manifest.load(tmp_path / "out" / part) or pytest.fail()).cases.values()
    )


def test_stored_logarithms_are_as_near_as_is_said(raw: Path, tmp_path: Path) -> None:
    mask = voxels(raw / "case_00000" / "segmentation.nii.gz")
    logs = np.random.default_rng(0).uniform(-20, 0, (3, *mask.shape))
    probabilities = np.exp(logs) / np.exp(logs).sum(axis=0)
    for number in range(5):
        write_answer(tmp_path / "teacher" / f"{number:05d}.npz", probabilities.astype(np.float32))
    cut_answered(raw, tmp_path / "out", tmp_path / "teacher", mode="test")
    slices = SliceFolder.open(tmp_path / "out", "kits", "all", "test")
    stored = StoredAnswers.open([tmp_path / "out"])
    found = np.stack([stored.read(slices, name) for name in slices.cases["00000"]], axis=1).astype(np.float64)
    # The files run from superior to inferior, and their numbers too; rows and columns are the image's own.
    exact = np.log(probabilities.astype(np.float32), dtype=np.float64).clip(FLOOR, 0)
    assert np.abs(found - exact).max() <= 2**-8
    assert np.abs(np.exp(found) - np.exp(exact)).max() <= 2e-4
    assert found.min() == FLOOR


def test_an_ensemble_is_the_mean_of_its_folders(raw: Path, tmp_path: Path) -> None:
    folds = [tmp_path / f"fold_{number}" for number in range(3)]
    each = [answer_masks(raw, folder, seed) for seed, folder in enumerate(folds)]
    mean = {case: np.mean([answers[case] for answers in each], axis=0) for case in each[0]}
    for case, probabilities in mean.items():
        write_answer(tmp_path / "mean" / f"{case}.npz", probabilities)
    cut_answered(raw, tmp_path / "of_folds", *folds)
    cut_answered(raw, tmp_path / "of_mean", tmp_path / "mean")
    slices = SliceFolder.open(tmp_path / "of_folds", "kits", "all")
    one, other = (StoredAnswers.open([tmp_path / name]) for name in ("of_folds", "of_mean"))
    for name in slices.train:
        np.testing.assert_allclose(
            one.read(slices, name).astype(np.float32), other.folders[0].read(name).astype(np.float32), atol=2**-8
        )
    (folds[0] / "case_00003.npz").unlink()
    with pytest.raises(UserError, match="case 00003 has answers in 2 of 3 folders; an ensemble needs them in all"):
        cut_answered(raw, tmp_path / "new", *folds)


def test_the_folds_of_a_cross_validation_have_a_case_each(raw: Path, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "rest").mkdir()
    for name in ("case_00001.npz", "case_00002.npz"):
        (teacher / name).rename(tmp_path / "rest" / name)
    assert cut_answered(raw, tmp_path / "out", teacher, tmp_path / "rest").cases == 5


def test_a_folder_without_answers_is_not_taken_for_a_fold(raw: Path, teacher: Path, tmp_path: Path) -> None:
    answer_masks(raw, tmp_path / "other", seed=1)
    for path in (tmp_path / "other").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(
        UserError, match=f"{tmp_path / 'other'}: answers for none of the 5 cases, unlike {teacher}; name"
    ):
        cut_answered(raw, tmp_path / "out", teacher, tmp_path / "other")


def test_a_second_run_does_nothing_and_a_changed_file_is_cut_again(raw: Path, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut_answered(raw, out, teacher)
    first = written(out)
    assert cut_answered(raw, out, teacher).cut == 0 and written(out) == first

    mask = voxels(raw / "case_00002" / "segmentation.nii.gz")
    write_answer(teacher / "case_00002.npz", near_mask(mask, seed=7))
    assert cut_answered(raw, out, teacher).cut == 1
    changed = {name for name, time in written(out).items() if time != first[name]}
    assert changed == {name for name in first if name.startswith("00002_")}

    assert cut_answered(raw, out, teacher, slices="all").cut == 4  # the case that validates has all slices already
    assert cut_answered(raw, out, teacher, slices="all", labels=("2=1", "1=2")).cut == 5
    assert cut_answered(raw, out, teacher, slices="all", labels=("2=1", "1=2")).cut == 0
    next(iter((out / "answers").rglob("00001_*.npz"))).unlink()
    assert cut_answered(raw, out, teacher, slices="all", labels=("2=1", "1=2")).cut == 1


def test_answers_to_an_image_that_has_changed_are_never_used(raw: Path, teacher: Path, tmp_path: Path) -> None:
    cut_answered(raw, tmp_path / "out", teacher)
    save(ct_and_label(seed=9)[0], raw / "case_00001" / "imaging.nii.gz")
    cut_slices(raw, tmp_path / "out", task="all")
    slices = SliceFolder.open(tmp_path / "out", "kits", "all")
    answers = StoredAnswers.open([tmp_path / "out"])
    answers.check((slices, name) for name in slices.cases["00002"])
    with pytest.raises(UserError, match="case 00001 are of other slices or of an image that has changed; run again"):
        answers.check((slices, name) for name in slices.cases["00001"])
    name = slices.cases["00002"][0]
    path = tmp_path / "out" / "answers" / "all" / name
    assert answers.contents_fingerprint([(slices, name)])
    path.write_bytes((path.parent / slices.cases["00003"][0]).read_bytes())
    with pytest.raises(UserError, match=f"{name}: is not the answer that answers.json lists"):
        answers.contents_fingerprint([(slices, name)])


def test_agreement_is_told_and_what_is_turned_or_swapped_is_named(raw: Path, teacher: Path, tmp_path: Path) -> None:
    right = cut_answered(raw, tmp_path / "out", teacher)
    assert "answers to 00000: Dice with the mask: organ 1.00, tumor 1.00" in str(right)
    assert right.dice["00004"] == {"organ": 1.0, "tumor": None} and "warning" not in str(right)

    with np.load(teacher / "case_00001.npz") as content:
        stored = content["probabilities"]
    np.savez(teacher / "case_00001.npz", probabilities=stored[:, :, :, ::-1])
    turned = str(cut_answered(raw, tmp_path / "out", teacher))
    warnings = [line for line in turned.splitlines() if line.startswith("warning: ")]
    assert warnings[0].startswith("warning: 00001: the answers agree with the mask at a Dice of 0.")
    assert "Turned superior to inferior they agree at 1.00." in warnings[0]
    again = str(cut_answered(raw, tmp_path / "out", teacher))
    assert [line for line in again.splitlines() if line.startswith("warning: ")] == warnings
    assert "answers: of the 3 classes (of labels), organ is 1 (1), tumor is 2 (2)" in again

    swapped = str(cut_answered(raw, tmp_path / "out", teacher, labels=("1=2", "2=1")))
    assert "warning: 00000: the answers agree with the mask at a Dice of 0.00 for tumor" in swapped


def test_answers_that_are_turned_and_overlap_all_the_same_are_noted() -> None:
    """Of two thirds of a volume, from one end of it, a half is in its mirror image too."""
    mask = np.zeros((9, 4, 4), np.uint8)
    mask[:6, :2] = 1
    scores, notes = agreement(np.ascontiguousarray(mask[::-1]), mask, organ_and_tumor()["organ"])
    assert scores == {"organ": 0.5} and len(notes) == 1
    assert notes[0].endswith("labels? Turned superior to inferior they agree at 1.00.")


def test_answers_of_a_reader_that_turns_images_are_turned_back(raw: Path, teacher: Path, tmp_path: Path) -> None:
    """nnU-Net's NibabelIOWithReorient gives probabilities in the axes of RAS, whatever the image's are."""
    for number in range(5):
        mask = nib.load(raw / f"case_{number:05d}" / "segmentation.nii.gz")
        canonical = np.asarray(nib.as_closest_canonical(mask).dataobj).astype(np.uint8)
        write_answer(teacher / f"case_{number:05d}.npz", near_mask(canonical))
    (teacher / "plans.json").write_text(json.dumps({"image_reader_writer": "NibabelIOWithReorient"}))
    summary = cut_answered(raw, tmp_path / "out", teacher)
    assert all(score in (1.0, None) for of_case in summary.dice.values() for score in of_case.values())


def test_regions_of_dataset_json_become_classes(raw: Path, tmp_path: Path) -> None:
    for path in raw.glob("case_*/segmentation.nii.gz"):
        mask = voxels(path)
        regions = np.stack([0.05 + 0.9 * (mask > 0), 0.05 + 0.9 * (mask == 2)]).astype(np.float32)
        write_answer(tmp_path / "teacher" / f"{path.parent.name}.npz", regions)
    labels = {"background": 0, "kidney": [1, 2], "tumor": 2}
    (tmp_path / "teacher" / "dataset.json").write_text(json.dumps({"labels": labels}))
    summary = cut_answered(raw, tmp_path / "out", tmp_path / "teacher")
    assert all(score in (1.0, None) for of_case in summary.dice.values() for score in of_case.values())
    slices = SliceFolder.open(tmp_path / "out", "kits", "all")
    for name in slices.train[:4]:
        mask = slices.read(name)[1]
        found = np.exp(StoredAnswers.open([tmp_path / "out"]).read(slices, name).astype(np.float32))
        expected = np.array([[0.95, 0.05, 0.05], [0, 0.9, 0], [0.05, 0.05, 0.95]])
        # Where the tumour is, both regions are 0.95, and nothing is left to the organ.
        np.testing.assert_allclose(found, expected[:, mask], atol=2e-3)
    with pytest.raises(UserError, match="has 2 channels, and nothing says which labels they are"):
        (tmp_path / "teacher" / "dataset.json").unlink()
        cut_answered(raw, tmp_path / "new", tmp_path / "teacher")


def test_cases_without_answers(raw: Path, teacher: Path, tmp_path: Path) -> None:
    cut_slices(raw, tmp_path / "out", task="all", test_fraction=0.2)
    (test,) = SliceFolder.open(tmp_path / "out", "kits", "all", "test").cases
    (teacher / f"case_{test}.npz").unlink()
    summary = cut_answered(raw, tmp_path / "out", teacher)
    assert summary.without == [test] and f"on which this teacher cannot be scored: {test}" in str(summary)
    other = next(iter(SliceFolder.open(tmp_path / "out", "kits", "all").train)).split("_")[0]
    (teacher / f"case_{other}.npz").unlink()
    with pytest.raises(UserError, match=f"1 cases lack answers: case {other}: has no answer"):
        cut_answered(raw, tmp_path / "out", teacher)
    for path in teacher.glob("*.npz"):
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(UserError, match=r"teacher: answers for none of the 5 cases; expected 00000.npz, .* xcase_"):
        cut_answered(raw, tmp_path / "out", teacher)


def test_a_case_that_fails_keeps_no_earlier_answer(raw: Path, teacher: Path, tmp_path: Path) -> None:
    cut_answered(raw, tmp_path / "out", teacher)
    (teacher / "case_00001.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"case_00001.npz: cannot be read as probabilities"):
        cut_answered(raw, tmp_path / "out", teacher)
    stored = StoredAnswers.open([tmp_path / "out"]).folders[0]
    assert sorted(stored.cases) == ["00000", "00002", "00003", "00004"]


def test_slices_without_masks_are_answered_too_and_their_masks_not_looked_at(raw: Path, tmp_path: Path) -> None:
    answer_masks(raw, tmp_path / "teacher")
    summary = cut_answered(raw, tmp_path / "out", tmp_path / "teacher", labelled=2, val_fraction=0.2)
    assert summary.cases == 5
    assert sum(not scores for scores in summary.dice.values()) == 2
    assert "Dice with the mask: no mask" in str(summary)


def test_folders_that_hold_no_cut_answers_name_the_command(raw: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"SliceMaker.py .* --teacher_probabilities {teacher}, then give"):
        StoredAnswers.open([teacher])
    cut_slices(raw, tmp_path / "out", task="tumor")
    with pytest.raises(UserError, match=f"--outpath {tmp_path / 'out'} --dataset kits --task tumor --teacher_prob"):
        StoredAnswers.open([tmp_path / "out"], "tumor")
    cut_answered(raw, tmp_path / "out", teacher, task="tumor")
    cut_answered(raw, tmp_path / "out", teacher, task="all")
    assert StoredAnswers.open([tmp_path / "out"], "Tumor").label_map.name == "tumor"
    with pytest.raises(UserError, match="answers for the tasks all, tumor; choose one with --task"):
        StoredAnswers.open([tmp_path / "out"])
    with pytest.raises(UserError, match="give folders of one task"):
        StoredAnswers.open([tmp_path / "out" / "answers" / "all", tmp_path / "out" / "answers" / "tumor"])
    for content in ("[]", "{", '{"cases": {"a": 1}, "dataset": "kits"}'):
        (tmp_path / "out" / "answers" / "all" / "answers.json").write_text(content)
        with pytest.raises(UserError, match=r"answers.json: "):
            StoredAnswers.open([tmp_path / "out"], "all")
