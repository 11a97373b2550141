"""Finding cases: each once, under its own name, and nothing left out without being named."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.raw import any_nifti, open_layout
from datasets.raw.cases import FoundCases
from datasets.raw.find_cases import find_cases
from datasets.raw.layout import NoCases
from datasets.raw.tree import EMPTY
from utils.errors import UserError


def put(root: Path, *paths: str) -> Path:
    """Files that hold nothing: finding cases reads no voxels."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"no voxels")
    return root


def find(dataset: str, root: Path) -> FoundCases:
    return open_layout(dataset, root).find(root)


def left_out(found: FoundCases) -> str:
    return "\n".join(found.notes)


class TestKinds:
    """What used to be dropped without a word."""

    @pytest.mark.parametrize(
        ("dataset", "files"),
        [
            ("kits", ["case_00001/imaging.NII.GZ", "case_00001/segmentation.Nii"]),
            ("lits", ["a/volume-1.NII", "b/segmentation-1.NII.GZ"]),
            ("acdc", ["patient001/patient001_frame01.NII.gz", "patient001/patient001_frame01_gt.nii.GZ"]),
        ],
    )
    @pytest.mark.parametrize("linked", [False, True])
    def test_suffixes_in_capitals_and_linked_folders(
        self, tmp_path: Path, dataset: str, files: list[str], linked: bool
    ) -> None:
        root = put(tmp_path / "there", *files)
        if linked:
            root = tmp_path / "here"
            root.mkdir()
            for folder in (tmp_path / "there").iterdir():
                (root / folder.name).symlink_to(folder)
        (case,) = find(dataset, root)
        assert case.label is not None and find(dataset, root).left_out == {}

    def test_links_and_pointers_to_files_that_were_not_fetched(self, tmp_path: Path) -> None:
        root = put(tmp_path, *(f"case_{n:05d}/{kind}.nii.gz" for n in range(4) for kind in ("imaging", "segmentation")))
        for path in (root / "case_00001/imaging.nii.gz", root / "case_00002/segmentation.nii.gz"):
            path.unlink()
            path.symlink_to(root / ".git/annex/objects/absent")
        (root / "case_00003/imaging.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        (root / "case_00004").symlink_to(root / ".git/annex/objects/gone")
        found = find("kits", root)
        assert [case.name for case in found] == ["00000"]
        assert [case.name for case in found.label_not_fetched] == ["00002"]
        notes = left_out(found)
        assert "left out, not fetched (git lfs pull, git annex get or datalad get brings them): 3: " in notes
        assert all(f"case_0000{number}" in notes for number in (1, 3, 4))
        assert "left out, segmentation not fetched" in notes and "case_00002/segmentation.nii.gz" in notes

    def test_nothing_fetched_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "case_00000").mkdir()
        (tmp_path / "case_00000/imaging.nii.gz").symlink_to(tmp_path / "absent")
        with pytest.raises(NoCases, match=r"holds no case; .* not fetched .*: 1: case_00000/imaging\.nii\.gz"):
            find("kits", tmp_path)

    def test_empty_folders_other_formats_and_other_names(self, tmp_path: Path) -> None:
        root = put(tmp_path, "case_00000/imaging.nii.gz", "case_00000/pet.nii", "case_00001/imaging.mha")
        (root / "case_00002").mkdir()
        put(root, "case_00003/readme.txt")
        notes = left_out(find("kits", root))
        assert "folders of cases without a file: 3: case_00002, case_00001, case_00003" in notes
        assert "not named as the layout's files: 1: case_00000/pet.nii" in notes
        assert "no NIfTI; convert it to NIfTI with SimpleITK: " in notes and "1: case_00001/imaging.mha" in notes

    @pytest.mark.parametrize(
        ("dataset", "files"),
        [
            ("kits", ["imaging", "aggregated_MAJ_seg", "aggregated_OR_seg", "aggregated_AND_seg"]),
            ("kits", ["imaging", "segmentation", "segmentations/kidney_instance-1", "instances/tumor_instance-1"]),
            ("acdc", ["patient001_frame01", "patient001_frame01_gt", "patient001_4d"]),
        ],
    )
    def test_further_files_of_the_layout_are_no_news(self, tmp_path: Path, dataset: str, files: list[str]) -> None:
        folder = "case_00001" if dataset == "kits" else "patient001"
        root = put(tmp_path, *(f"{folder}/{file}.nii.gz" for file in files), f"{folder}/pet.nii")
        assert find(dataset, root).notes == [f"left out, not named as the layout's files: 1: {folder}/pet.nii"]

    @pytest.mark.parametrize(("folder", "empty"), [("imagesTs", False), ("case_00002", True), ("patient002", True)])
    def test_only_the_folder_of_a_case_can_lack_its_files(self, tmp_path: Path, folder: str, empty: bool) -> None:
        root = put(tmp_path, "volume-1.nii")
        (root / folder).mkdir()
        assert find("lits", root).left_out == ({EMPTY: [root / folder]} if empty else {})

    def test_a_link_in_a_circle(self, tmp_path: Path) -> None:
        root = put(tmp_path, "case_00000/imaging.nii.gz")
        (root / "case_00000" / "up").symlink_to(root)
        found = find("kits", root)
        assert len(found) == 1 and "case_00000/up" in left_out(found)

    def test_all_segmentations_without_image_are_named(self, tmp_path: Path) -> None:
        root = put(tmp_path, *(f"case_{number:05d}/segmentation.nii.gz" for number in range(7)))
        with pytest.raises(UserError, match=r"case_00000/.*; .*case_00004/.*; and 2 more such segmentations"):
            find("kits", root)

    @pytest.mark.parametrize(
        ("dataset", "files"),
        [
            ("kits", ["case_00001/imaging.nii.gz", "case_00001/imaging.nii"]),
            ("kits", ["a/case_00001/imaging.nii.gz", "b/case_00001/imaging.nii.gz"]),
            ("lits", ["volume-1.nii", "volume-1.nii.gz"]),
            ("acdc", ["training/patient001_frame01.nii.gz", "testing/patient001_frame01.nii.gz"]),
        ],
    )
    def test_two_cases_of_one_name_are_refused(self, tmp_path: Path, dataset: str, files: list[str]) -> None:
        root = put(tmp_path, *files)
        with pytest.raises(UserError) as refused:
            find(dataset, root)
        assert "remove one of them" in str(refused.value)
        assert all(str(Path(file).parent) in str(refused.value) for file in files)

    def test_one_image_under_two_names(self, tmp_path: Path) -> None:
        root = put(tmp_path, "case_00001/imaging.nii.gz")
        (root / "case_00002").mkdir()
        (root / "case_00002/imaging.nii.gz").symlink_to(root / "case_00001/imaging.nii.gz")
        with pytest.raises(UserError, match=r"case_00001/imaging.* and .*case_00002/imaging.* are one image"):
            find("kits", root)


class TestAnyNifti:
    def test_masks_next_to_images_are_no_images(self, tmp_path: Path) -> None:
        masks = ["ct_1_seg", "ct_2-mask", "label_3", "ct_4_Label", "segmentation-5", "x_gt", "mask", "a_MAJ_seg"]
        images = ["ct_1", "masked_ct", "segment2", "legacy"]
        root = put(tmp_path, *(f"{name}.nii.gz" for name in masks + images), "below/ct.nii")
        found = find_cases(root, "kits")
        assert sorted(case.name for case in found) == sorted(images)
        assert found.left_out[any_nifti.MASKS] == [root / f"{name}.nii.gz" for name in sorted(masks)]
        assert found.left_out[any_nifti.BELOW] == [root / "below/ct.nii"]

    def test_only_masks(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"nor does it hold images .*by their names: 1: ct_seg\.nii"):
            find_cases(put(tmp_path, "ct_seg.nii"), "kits")

    @pytest.mark.parametrize(("channel", "image"), [(None, "0000"), (0, "0000"), (1, "0001")])
    def test_channels_of_one_case(self, tmp_path: Path, channel: int | None, image: str) -> None:
        root = put(tmp_path, *(f"a_{case}_000{number}.nii.gz" for case in range(2) for number in range(2)))
        found = find_cases(root, "msd", channel)
        assert [(case.name, case.image.name) for case in found] == [
            (f"a_{case}", f"a_{case}_{image}.nii.gz") for case in range(2)
        ]
        assert sum(map(len, found.left_out.values())) == 2

    def test_the_folder_of_one_kits_case_gives_it_its_name(self, tmp_path: Path) -> None:
        root = put(tmp_path, "case_00007/imaging.nii.gz", "case_00007/segmentation.nii.gz") / "case_00007"
        assert [case.name for case in find_cases(root, "kits")] == ["00007"]
        assert [case.name for case in find_cases(root / "imaging.nii.gz", "kits")] == ["00007"]

    def test_linked_images_are_named_after_the_folders_of_the_links(self, tmp_path: Path) -> None:
        put(tmp_path, "store/a.nii.gz", "store/b.nii.gz")
        for case, image in (("case_00001", "a"), ("case_00002", "b")):
            (tmp_path / case).mkdir()
            link = tmp_path / case / "imaging.nii.gz"
            link.symlink_to(tmp_path / "store" / f"{image}.nii.gz")
            assert [found.name for found in find_cases(link, "kits")] == [case.removeprefix("case_")]

    def test_numbers_that_do_not_start_at_zero_are_cases(self, tmp_path: Path) -> None:
        assert len(find_cases(put(tmp_path, "amos_0001.nii", "amos_0002.nii"), "kits")) == 2

    @pytest.mark.parametrize("counts", [(8,), (2,), (4, 4, 8), (4, 3)])
    def test_numbered_patients_are_no_channels(self, tmp_path: Path, counts: tuple[int, ...]) -> None:
        names = {f"site{site}_{number:04d}" for site, count in enumerate(counts) for number in range(count)}
        found = find_cases(put(tmp_path / "cts", *(f"{name}.nii.gz" for name in names)), "kits")
        assert {case.name for case in found} == names and found.left_out == {}

    @pytest.mark.parametrize(("folder", "channel"), [("imagesTs", None), ("cts", 1)])
    def test_one_case_with_its_channels(self, tmp_path: Path, folder: str, channel: int | None) -> None:
        root = put(tmp_path / folder, "a_0000.nii.gz", "a_0001.nii.gz")
        assert [case.name for case in find_cases(root, "kits", channel)] == ["a"]

    @pytest.mark.parametrize("dataset", ["kits", "lits"])
    def test_the_root_of_another_layout_names_the_folder_to_give(self, tmp_path: Path, dataset: str) -> None:
        root = put(tmp_path, "dataset.json", "imagesTr/a_0000.nii.gz", "imagesTs/b_0000.nii.gz", "labelsTr/a.nii.gz")
        with pytest.raises(UserError) as refused:
            find_cases(root, dataset)
        assert str(refused.value) == f"{root}: holds no images itself; give {root / 'imagesTs'}, which does"

    @pytest.mark.parametrize("dataset", ["lits", "kits", "acdc"])
    @pytest.mark.parametrize("of", ["lits", "kits", "acdc"])
    def test_a_network_reads_the_folder_of_any_layout(self, tmp_path: Path, dataset: str, of: str) -> None:
        root = put(tmp_path, *(f"{place.format(case)}.nii.gz" for place in PLACES[of] for case in (1, 2)))
        found = find_cases(root, dataset, below=True)
        assert len(found) == 2 and not any(any_nifti.is_mask(case.image) for case in found)

    @pytest.mark.parametrize("name", ["scan.nrrd", "scan.MHA", "scan.mhd", "scan.dcm"])
    def test_another_format_names_the_conversion(self, tmp_path: Path, name: str) -> None:
        put(tmp_path, name)
        command = "dcm2niix" if name.endswith("dcm") else "SimpleITK"
        for path in (tmp_path, tmp_path / name):
            with pytest.raises(UserError, match=f"convert .* {command}"):
                find_cases(path, "kits")

    def test_a_file_that_was_not_fetched(self, tmp_path: Path) -> None:
        (tmp_path / "ct.nii.gz").symlink_to(tmp_path / "absent")
        with pytest.raises(UserError, match=r"ct\.nii\.gz: is not fetched \(git lfs pull"):
            find_cases(tmp_path / "ct.nii.gz", "kits")


# Dataset -> where the image and the segmentation of a case are.
PLACES = {
    "kits": ("data/case_{:05d}/imaging", "data/case_{:05d}/segmentation"),
    "lits": ("part/volume-{}", "segmentations/segmentation-{}"),
    "acdc": ("patient{0:03d}/patient{0:03d}_frame01", "patient{0:03d}/patient{0:03d}_frame01_gt"),
}
KINDS = st.sampled_from(["file", "file", "broken link", "pointer"])
SUFFIXES = st.sampled_from([".nii", ".nii.gz", ".NII.GZ"])
case_files = st.tuples(KINDS, SUFFIXES, KINDS | st.none(), SUFFIXES)
noise = st.sets(st.sampled_from(["a/ct.nii", "b.mha", "b/c/imaging.nrrd", "a/pet_0001.nii.gz", "data/notes_gt.nii"]))


def make(path: Path, kind: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "broken link":
        path.symlink_to(path.with_name(".absent"))
    else:
        path.write_bytes(b"version https://git-lfs" if kind == "pointer" else b"no voxels")
    return path


@pytest.mark.parametrize("dataset", PLACES)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(cases=st.dictionaries(st.integers(0, 30), case_files, min_size=1, max_size=6), others=noise)
def test_every_file_of_a_layout_is_in_its_case_or_named(
    dataset: str, cases: dict[int, tuple[str, str, str | None, str]], others: set[str]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root, usable, to_predict, named = Path(place), set(), set(), set()
        for number, (kind, suffix, label_kind, label_suffix) in cases.items():
            image, label = (root / where.format(number) for where in PLACES[dataset])
            image = make(image.with_name(image.name + suffix), kind)
            mask = make(label.with_name(label.name + label_suffix), label_kind) if label_kind else None
            if kind != "file":
                named.add(image)
            elif label_kind in (None, "file"):
                usable.add((image, mask))
            else:
                to_predict.add(image)
                named.add(mask)
        named |= {make(root / other, "file") for other in others}
        if not usable and not to_predict:
            with pytest.raises(NoCases, match=r": holds no case; expected .*; left out, not fetched"):
                find(dataset, root)
            return
        found = find(dataset, root)
        assert {(case.image, case.label) for case in found} == usable
        assert {case.image for case in found.label_not_fetched} == to_predict
        assert {path for paths in found.left_out.values() for path in paths} == named
        assert sum(map(len, found.left_out.values())) == len(named)


FOLDERS = ["", "data/", "data/case_00001/", "case_00001/", "patient001/"]
STEMS = ["imaging", "segmentation", "volume", "volume-1", "ct", "a_0000", "a_0001", "ct_seg", "patient001_frame01"]
trees = st.sets(
    st.tuples(*map(st.sampled_from, (FOLDERS, STEMS, [".nii", ".nii.gz", ".NII", ".mha"]))), min_size=1, max_size=8
)


@pytest.mark.parametrize("dataset", [*PLACES, "any"])
@settings(max_examples=30, deadline=None, derandomize=True)
@given(tree=trees)
def test_any_tree_is_read_or_refused_in_one_line(dataset: str, tree: set[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = put(Path(place), *(f"{folder}{stem}{suffix}" for folder, stem, suffix in tree))
        try:
            found = find_cases(root, "heart") if dataset == "any" else find(dataset, root)
        except UserError as refused:
            assert str(root) in str(refused) and "\n" not in str(refused)
            return
        used = [path for case in found for path in (case.image, case.label) if path]
        named = [path for paths in found.left_out.values() for path in paths]
        assert len({case.name.lower() for case in found}) == len(found) > 0
        assert {root / f"{folder}{stem}{suffix}" for folder, stem, suffix in tree} == {*used, *named}
        assert not set(used) & set(named) and len(set(used)) == len(used)
