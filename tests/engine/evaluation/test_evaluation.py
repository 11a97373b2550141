"""Prediction and scoring, without training anything."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.frame import Frame
from datasets.labelled_cases import LabelledCase, cases_in_slices, raw_cases
from datasets.labels import LabelMap
from datasets.raw import open_layout
from datasets.raw.find_cases import find_cases
from datasets.raw.layout import match_case
from datasets.slices.slice_folder import SliceFolder
from engine.device import Precision, choose_device
from engine.evaluation.reference import translation
from engine.evaluation.score import RegionScores, score_case, score_case_as_published, score_cases
from engine.evaluation.summaries import case_means, mean_dice, summarise
from engine.prediction.volume import largest_components
from engine.saved_segmenter import load_segmenter
from engine.segmenter import Segmenter
from networks import build
from networks.contract import Features, SegmentationNetwork
from tests.data import kits_case
from tests.small import equal_states, write_bare_archive
from utils.batch import most_probable
from utils.errors import UserError

ALL = LabelMap("all", ("organ", "tumor"), ((1,), (2,)), {"organ": (1, 2), "tumor": (2,)})
TUMOR = LabelMap("tumor", ("tumor",), ((2,),), {"tumor": (1,)})


class Bright(SegmentationNetwork):
    """Segments by brightness: class k where the windowed image is nearest to its k-th level."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.levels = torch.nn.Parameter(torch.linspace(-1, 1, classes))

    def features(self, image: Tensor) -> Features:
        logits = -4 * (image - self.levels[None, :, None, None]).abs()
        return Features((), (), logits)


def bright_case(side: int = 64, slices: int = 6) -> LabelledCase:
    """A ball of organ with a ball of tumour inside, as bright as their labels."""
    z, y, x = np.mgrid[:slices, :side, :side]
    label = (np.hypot(y - 32, x - 30) < 14).astype(np.uint8)
    label[(np.hypot(y - 34, x - 32) < 6) & (z < slices - 2)] = 2
    return LabelledCase("1", (label.astype(np.int16) - 1) * 100, label, (2.0, 0.8, 0.8), (-100.0, 100.0))


def test_segment_takes_a_volume_through_the_frame_and_back() -> None:
    case = bright_case()
    for frame in (Frame(64, 0), Frame(128, 0), Frame(0, 48), Frame(64, 96)):
        segmenter = Segmenter(Bright(3), "bright", "kits", ALL, frame, (-100.0, 100.0))
        assert np.array_equal(segmenter.segment(case.image, case.window, batch_size=4), case.label)


def test_all_counts_the_tumour_as_organ_and_labels_go_back_to_the_sources() -> None:
    case = bright_case()
    rows = score_case(Segmenter(Bright(3), "bright", "kits", ALL, Frame(64, 0), None), case)
    assert [(row["region"], row["dice"]) for row in rows] == [("organ", 1), ("tumor", 1)]
    assert Segmenter(Bright(2), "bright", "kits", TUMOR, Frame(), None).source_labels().tolist() == [0, 2]


def test_a_threshold_moves_the_decision() -> None:
    case = bright_case()
    dimmed = LabelledCase("1", (case.image - 30).clip(-100), case.label, case.spacing, case.window)
    segmenter = Segmenter(Bright(2), "bright", "kits", TUMOR, Frame(64, 0), None)
    sizes = [(segmenter.segment(dimmed.image, dimmed.window, threshold=t) > 0).sum() for t in (0.05, 0.5, 0.999)]
    assert sizes[0] > sizes[1] > sizes[2] == 0


def test_what_the_crop_loses_counts_against_the_prediction() -> None:
    case = bright_case()
    segmenter = Segmenter(Bright(3), "bright", "kits", ALL, Frame(0, 16), None)
    organ = score_case(segmenter, case)[0]
    assert organ["crop_lost"] == pytest.approx(1 - 16 * 16 * 6 / (case.label > 0).sum(), abs=0.02)
    assert organ["dice"] == pytest.approx(2 * (1 - organ["crop_lost"]) / (2 - organ["crop_lost"]))


def test_the_slice_protocol_sees_only_target_slices_and_the_crop() -> None:
    case = bright_case()
    dim = LabelledCase("1", np.where(case.label == 2, 100, -100).astype(np.int16), case.label, None, case.window)
    dim.image[-1, :10, :10] = 100  # a false positive on a slice without the target
    segmenter = Segmenter(Bright(2), "bright", "kits", TUMOR, Frame(64, 0), None)
    published, volume = score_case_as_published(segmenter, dim)[0], score_case(segmenter, dim)[0]
    assert published["slices"] == 4 and published["dice"] == 1 and published["published_voe"] == 0
    assert volume["dice"] < 1


def test_millimetres_only_where_slices_are_neighbours(tmp_path: Path) -> None:
    slices = SliceFolder.open(write_bare_archive(tmp_path), "kits", "tumor")
    case = next(cases_in_slices(slices, slices.cases, None))
    segmenter = Segmenter(Bright(2), "bright", "kits", slices.label_map, Frame(64, 0), None)
    assert case.spacing is None
    assert score_case(segmenter, case)[0]["hd95_mm"] is None


def test_cases_are_found_by_their_names_in_any_layout(tmp_path: Path) -> None:
    slices = SliceFolder.open(write_bare_archive(tmp_path / "slices", cases=3), "kits", "tumor")
    names = ["case_00002", "00001", "case_00001_0000"]
    assert [case.name for case in cases_in_slices(slices, names, None)] == ["00002", "00001"]
    for number in range(3):
        kits_case(tmp_path / "raw", number)
    layout = open_layout("kits", tmp_path / "raw")
    assert [case.name for case in raw_cases(layout, tmp_path / "raw", names, None)] == ["00002", "00001"]
    with pytest.raises(UserError, match="no labelled case case_00007; it holds 00000, 00001, 00002"):
        next(raw_cases(layout, tmp_path / "raw", ["case_00007"], None))
    assert match_case("case_1", ["1", "case_1"]) == "case_1"


def test_cases_that_were_not_fetched_are_not_said_to_be_missing(tmp_path: Path) -> None:
    layout = open_layout("kits", tmp_path)
    for number, files in enumerate([(), ("segmentation",), ("segmentation", "imaging")]):
        folder = kits_case(tmp_path, number)
        for name in files:
            (folder / f"{name}.nii.gz").unlink()
            (folder / f"{name}.nii.gz").symlink_to(tmp_path / "absent")
    for name, what in (("00001", "segmentation not"), ("case_00002", "not")):
        with pytest.raises(UserError, match=f"case {name[-5:]}: {what} fetched .git lfs pull"):
            next(raw_cases(layout, tmp_path, ["00000", name], None))
    shutil.rmtree(tmp_path / "case_00000")
    with pytest.raises(UserError, match="no case can be evaluated: of 2, segmentation not fetched"):
        next(raw_cases(layout, tmp_path, None, None))


def test_the_best_checkpoint_goes_by_the_mean_over_cases_then_regions() -> None:
    dice = {("1", "organ"): 1.0, ("2", "organ"): 0.5, ("1", "tumor"): 0.25, ("2", "tumor"): math.nan}
    entries = [{"case": case, "region": region, "dice": value} for (case, region), value in dice.items()]
    assert mean_dice(entries) == pytest.approx((0.75 + 0.25) / 2)
    assert summarise(entries, ["dice"])["tumor"]["dice"]["count"] == 1


def test_a_case_scores_the_mean_of_its_defined_regions() -> None:
    def entry(case: str, dice: float | None, reference_voxels: int = 9) -> RegionScores:
        return {"case": case, "dice": dice, "reference_voxels": reference_voxels}

    found_where_nothing_is = entry("2", 0.0, reference_voxels=0)
    entries = [entry("1", 0.75), entry("1", 0.25), entry("2", 1.0), found_where_nothing_is, entry("3", None, 0)]
    assert case_means(entries) == pytest.approx({"1": 0.5, "2": 1.0, "3": math.nan}, nan_ok=True)


def test_both_protocols_of_a_case_stand_in_one_entry() -> None:
    case = bright_case()
    case.label[case.label == 2] = 1  # no tumour: its scores are undefined, or none at all
    segmenter = Segmenter(Bright(3), "bright", "kits", ALL, Frame(64, 0), None)
    scores = score_cases(segmenter, [case], distances=False, slice_protocol=True)
    organ, tumor = scores.joined()
    assert organ["reference_voxels"] == (case.label == 1).sum() and tumor["reference_voxels"] == 0
    assert organ["slice_dice"] == scores.slice_protocol[0]["dice"] and organ["dice"] == scores.volumes[0]["dice"]
    assert math.isnan(scores.slice_protocol[1]["dice"]) and tumor["slice_dice"] is None
    assert organ["hd95_mm"] is None and score_case(segmenter, case)[0]["hd95_mm"] == 0


def test_largest_components_join_across_corners() -> None:
    mask = np.zeros((3, 9, 9), bool)
    mask[0, :3, :3] = mask[1, 3, 3] = True
    mask[2, 6:8, 6:8] = True
    mask[0, 8, 8] = True
    kept = largest_components(mask, 1)
    assert kept.sum() == 10 and kept[1, 3, 3]
    assert largest_components(mask, 2).sum() == 14
    assert not largest_components(np.zeros_like(mask), 2).any()


def test_inputs_are_a_file_a_layout_or_loose_files(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    for name in ("b.nii.gz", "a.nii"):
        (loose / name).touch()
    assert [case.name for case in find_cases(loose, "kits")] == ["a", "b"]
    kits = tmp_path / "kits" / "case_00007"
    kits.mkdir(parents=True)
    (kits / "imaging.nii.gz").touch()
    assert [case.name for case in find_cases(tmp_path / "kits", "kits")] == ["00007"]
    assert [case.name for case in find_cases(kits / "imaging.nii.gz", "kits")] == ["00007"]
    for bad in (tmp_path / "nowhere", tmp_path / "kits" / "case_00007" / ".."):
        if not bad.exists():
            with pytest.raises(UserError, match="no such file or folder"):
                find_cases(bad, "kits")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"is not a \.nii"):
        find_cases(tmp_path / "notes.txt", "kits")


def test_devices_and_precision_that_are_not_there_are_named() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="--device nonsense"):
        choose_device("nonsense")
    with pytest.raises(UserError, match="fp16 needs a CUDA device"):
        Precision("fp16", torch.device("cpu"))
    with Precision("bf16", torch.device("cpu")).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    torch.save({"weights": {}}, path)
    with pytest.raises(
        UserError, match=r"other\.ckpt: is not a checkpoint of this project: it holds weights, but no mod"
    ):
        load_segmenter(path, torch.device("cpu"))
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="holds no network weights"):
        load_segmenter(path, torch.device("cpu"))


def test_weights_of_a_wrapped_network_are_read_and_those_of_another_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    weights = build("malunet", 2).state_dict()
    about = Segmenter(Bright(2), "malunet", "kits", TUMOR, Frame(64, 0), (-100.0, 100.0)).description()
    rest = {**about, "cases": {"train": [], "val": []}, "config": {}}
    torch.save({**rest, "state_dict": {f"module.{name}": value for name, value in weights.items()}}, path)
    segmenter, _ = load_segmenter(path, torch.device("cpu"))
    assert equal_states(segmenter.network.state_dict(), weights)
    first, second, *_ = weights
    other = {**weights, first: torch.zeros(7), "stem.weight": torch.zeros(1)}
    del other[second]
    torch.save({**rest, "weights": other}, path)
    with pytest.raises(UserError) as refused:
        load_segmenter(path, torch.device("cpu"))
    faults = f"1 lacking ({second}); 1 unknown (stem.weight); 1 of another shape ({first})"
    assert str(refused.value).startswith(f"{path}: its weights do not fit malunet: {faults}; give a checkpoint that")
    torch.save({**rest, "model": "resnet_19", "weights": weights}, path)
    with pytest.raises(
        UserError, match=r"a\.ckpt: is not a checkpoint of this project: there is no network 'resnet_19'"
    ):
        load_segmenter(path, torch.device("cpu"))


@pytest.mark.parametrize(
    ("dataset", "window", "recorded", "is_ct"),
    [
        ("kits", (-100.0, 100.0), None, True),
        ("acdc", (0.0, 900.0), None, False),
        ("msd", None, None, False),
        ("msd", (0.0, 900.0), False, False),
        ("list", (0.0, 900.0), True, True),
    ],
)
def test_a_checkpoint_says_whether_its_images_are_ct(
    tmp_path: Path, dataset: str, window: tuple[float, float] | None, recorded: bool | None, is_ct: bool
) -> None:
    network = build("malunet", 2)
    content = Segmenter(network, "malunet", dataset, TUMOR, Frame(), window, hounsfield=bool(recorded)).description()
    if recorded is None:  # As earlier checkpoints are.
        del content["hounsfield"]
    rest = {"weights": network.state_dict(), "cases": {"train": [], "val": []}, "config": {}}
    torch.save({**content, **rest}, tmp_path / "a.ckpt")
    assert load_segmenter(tmp_path / "a.ckpt", torch.device("cpu"))[0].hounsfield is is_ct


def test_classes_are_told_by_their_regions_whatever_their_numbers() -> None:
    mask = np.array([0, 1, 2, 3], np.uint8)
    for labels, there in (("1=organ 2=tumor", [0, 1, 2, 0]), ("2=organ 1=tumor", [0, 2, 1, 0])):
        tasks = open_layout("list", Path(), labels.split()).tasks
        assert translation(tasks["all"], ALL, Path("x"))[mask].tolist() == there
    assert translation(tasks["tumor"], TUMOR, Path("x"))[mask].tolist() == [0, 2, 0, 0]
    for labels in ("1=organ 2=tumor 3=cyst", "1=liver 2=lesion"):
        with pytest.raises(
            UserError, match=r"x: task all has the classes .* here, and the network's are organ, tumor;"
        ):
            translation(open_layout("list", Path(), labels.split()).tasks["all"], ALL, Path("x"))


def test_most_probable_is_the_first_of_the_highest() -> None:
    scores = torch.randint(0, 3, (2, 5, 7, 6)).float()  # with ties
    assert np.array_equal(most_probable(scores), scores.numpy().argmax(axis=1))
