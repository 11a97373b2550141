"""What a teacher's channels stand for: classes that exclude each other, regions that lie in each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.labels import LabelMap, organ_and_lesions, organ_and_tumor
from datasets.raw.teacher_labels import ClassMaker, describe, labels_beside, read_teacher_labels, refuse_other_names
from utils.errors import UserError

TASKS = organ_and_tumor()
WITH_CYST = organ_and_lesions({"tumor": 2, "cyst": 3})


def make(words: str, label_map: LabelMap, *values: float) -> NDArray[np.float32]:
    """The classes [C] that channels of these values make at a voxel."""
    channels = read_teacher_labels(words.split())
    assert channels is not None
    volumes = [np.full((1, 1, 1), value, np.float32) for value in values]
    channels = (*channels, *((),) * (len(values) - len(channels)))
    return ClassMaker(channels, label_map)(volumes, Path("a.npz"))[:, 0, 0, 0]


def test_classes_are_added_up_for_the_task() -> None:
    np.testing.assert_allclose(make("1=1 2=2", TASKS["all"], 0.2, 0.5, 0.3), [0.2, 0.5, 0.3], rtol=1e-6)
    np.testing.assert_allclose(make("1=1 2=2", TASKS["organ"], 0.2, 0.5, 0.3), [0.2, 0.8], rtol=1e-6)
    np.testing.assert_allclose(make("1=1 2=2", TASKS["tumor"], 0.2, 0.5, 0.3), [0.7, 0.3], rtol=1e-6)
    np.testing.assert_allclose(make("3=1 1=2", TASKS["all"], 0.1, 0.2, 0.3, 0.4, 0), [0.4, 0.4, 0.2], rtol=1e-6)


def test_channels_of_the_same_label_are_added_up() -> None:
    """As a left and a right kidney are, or a cyst that the data count as kidney."""
    sides = make("1=1+2 2=1+2", TASKS["organ"], 0.1, 0.6, 0.2, 0.1)
    np.testing.assert_allclose(sides, [0.2, 0.8], rtol=1e-6)
    np.testing.assert_allclose(make("1=1 2=2 3=1", TASKS["all"], 0.1, 0.2, 0.3, 0.4), [0.1, 0.6, 0.3], rtol=1e-6)


def test_a_small_probability_of_the_background_keeps_its_digits() -> None:
    assert make("1=1+2", TASKS["organ"], 3e-7, 1.0)[0] == pytest.approx(3e-7, rel=1e-4)


def test_regions_become_classes() -> None:
    """The tumour is its own region, the organ what is left of its region, never less than nothing."""
    for organ, tumor in ((0.9, 0.3), (0.3, 0.9), (0.0, 0.0), (1.0, 1.0)):
        expected = [1 - max(organ, tumor), max(organ - tumor, 0), tumor]
        np.testing.assert_allclose(make("0=1+2 1=2", TASKS["all"], organ, tumor), expected, atol=1e-6)
        np.testing.assert_allclose(make("0=1+2 1=2", TASKS["tumor"], organ, tumor), [1 - tumor, tumor], atol=1e-6)
        organs = [1 - max(organ, tumor), max(organ, tumor)]
        np.testing.assert_allclose(make("0=1+2 1=2", TASKS["organ"], organ, tumor), organs, atol=1e-6)


def test_regions_of_kits_lie_three_deep_and_in_any_order() -> None:
    """Kidney with all that is in it, masses, tumour; a cyst is a mass that is no tumour."""
    words, values = "0=2 1=1+2+3 2=2+3", (0.5, 0.9, 0.7)
    np.testing.assert_allclose(make(words, WITH_CYST["all"], *values), [0.1, 0.2, 0.5, 0.2], atol=1e-6)
    np.testing.assert_allclose(make(words, TASKS["all"], *values), [0.3, 0.2, 0.5], atol=1e-6)
    two = "0=1 1=2"
    np.testing.assert_allclose(make(two, TASKS["all"], 0.25, 0.5), [0.25, 0.25, 0.5], atol=1e-6)
    np.testing.assert_allclose(make(words, WITH_CYST["all"], 1, 0.8, 0).sum(), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "task", "says"),
    [
        ("1=1+2", "all", "channel 1 stands for labels .1, 2., which task all tells apart"),
        ("1=1", "all", "no channel stands for tumor; they are 0=0 1=1"),
        ("0=1+2 1=2+3", "all", "two channels share a label"),
        ("1=1", "organ", "no channel stands for label 2, a part of organ; they are 0=0 1=1"),
        ("1=2", "organ", "no channel stands for label 1, a part of organ; they are 0=0 1=2"),
        ("0=1 1=1", "organ", "two channels share a label"),
        ("1=1+2 2=2", "organ", "two channels share a label"),
    ],
)
def test_channels_that_do_not_tell_the_classes_apart_are_refused(words: str, task: str, says: str) -> None:
    channels = read_teacher_labels(words.split())
    assert channels is not None
    with pytest.raises(UserError, match=f"--teacher_labels: .*{says}"):
        ClassMaker(channels, TASKS[task])


@pytest.mark.parametrize("word", ["1", "1=", "=1", "a=1", "1=a", "1=1+0", "1=256", "-1=1", "1=-1", "256=1"])
def test_words_that_mean_no_channel_are_refused(word: str) -> None:
    with pytest.raises(UserError, match=f"--teacher_labels {word.replace('+', '.')}: expected CHANNEL=LABEL"):
        read_teacher_labels([word])


def test_a_channel_is_named_once_and_only_regions_lack_a_background() -> None:
    with pytest.raises(UserError, match="once for each"):
        read_teacher_labels(["1=1", "1=2"])
    assert read_teacher_labels([]) is None
    assert read_teacher_labels(["3=1", "1=2"]) == ((0,), (2,), (), (1,))
    assert describe(((0,), (2,), (), (1, 3))) == "0=0 1=2 3=1+3"


def test_classes_that_do_not_add_up_are_taken_for_regions() -> None:
    with pytest.raises(UserError, match=r"a.npz: the classes .* add up to between 1.7 and 1.7; if .* regions, say so"):
        make("1=1 2=2", TASKS["all"], 0.9, 0.5, 0.3)


def test_the_user_is_told_which_channels_are_which_class() -> None:
    assert str(ClassMaker(((0,), (1,), (2,), (1,)), TASKS["all"])) == (
        "of the 4 classes (of labels), organ is 1 (1) and 3 (1), tumor is 2 (2)"
    )
    assert (
        str(ClassMaker(((1, 2), (2,)), TASKS["all"]))
        == "of the 2 regions (of labels), organ is 0 (1+2), tumor is 1 (2)"
    )


def test_a_class_that_dataset_json_calls_by_another_label_is_refused(tmp_path: Path) -> None:
    for labels in ({"background": 0, "kidney": 1, "tumor": 2}, {"background": 0, "organ": [1, 2], "tumor": 2}):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        refuse_other_names(tmp_path / "a.npz", TASKS["all"])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "tumor": 1, "kidney": 2}}))
    with pytest.raises(UserError, match=r"dataset.json: calls label 1 tumor, which is 2 in the data; say"):
        refuse_other_names(tmp_path / "a.npz", TASKS["all"])


def test_dataset_json_says_what_the_channels_are(tmp_path: Path) -> None:
    folder = tmp_path / "fold_0" / "validation"
    folder.mkdir(parents=True)
    assert labels_beside(folder / "a.npz") is None
    labels = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "regions_class_order": [1, 3, 2]}))
    assert labels_beside(folder / "a.npz") == ((1, 2, 3), (2, 3), (2,))
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "tumor": 2, "kidney": 1}}))
    assert labels_beside(folder / "a.npz") == ((0,), (1,), (2,))
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "tumor": 3}}))
    with pytest.raises(UserError, match="not numbered without a gap"):
        labels_beside(folder / "a.npz")
