"""Medical Segmentation Decathlon and nnU-Net folders: labels, tasks and cases are read from dataset.json.

M. Antonelli et al.: The Medical Segmentation Decathlon, Nature Communications 13, 2022.
F. Isensee et al.: nnU-Net, Nature Methods 18, 2021, for format 2 (imagesTr/NAME_0000, labelsTr/NAME).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from datasets.labels import named_regions, one_class
from datasets.raw.cases import OTHER_CHANNELS, Candidate, FoundCases, identify
from datasets.raw.dataset_json import Description, Item, read_description
from datasets.raw.layout import Layout
from datasets.raw.modality import is_ct
from datasets.raw.tree import NO_CHANNEL, Tree, conversion, is_foreign, nifti_stem, scan, split_channel
from utils.errors import UserError

FILE = "dataset.json"
EXPECTED = "dataset.json with imagesTr/ and labelsTr/"
SOFT_TISSUE = (-200.0, 300.0)
ABSENT = "listed in dataset.json, and not there"


def heart(root: Path) -> Layout:
    """MSD Task02_Heart: the left atrium (1) on MR, a task that the published HLFD code calls `organ`."""
    tasks = {name: one_class("left_atrium", 1) for name in ("left_atrium", "organ", "all")}
    return Layout("heart", find, tasks, {0: "background", 1: "left atrium"}, window=None)


def layout(root: Path, channel: str | None = None) -> Layout:
    """Labels and tasks from `root/dataset.json`; CT gets a soft tissue window, other modalities percentiles.

    channel: of images with several, its name or number; None is the first.
    """
    description = _description(root)
    tasks, labels = named_regions(description.labels, root / FILE)
    number = description.channel_of(channel, root / FILE)
    is_hounsfield = bool(description.channels) and is_ct(description.channels[number])
    return Layout(
        name="msd",
        find=partial(find, channel=channel),
        tasks=tasks,
        labels=labels,
        window=SOFT_TISSUE if is_hounsfield else None,
        channel=number if len(description.channels) > 1 else None,
    )


def find(root: Path, channel: str | None = None) -> FoundCases:
    """The cases that dataset.json lists; without lists, those in imagesTr and imagesTs. Labelled test images are test
    cases.
    """
    tree = scan(root)
    description = _description(root)
    files = _Files(tree, description, description.channel_of(channel, root / FILE))
    candidates = list(files.in_folders() if description.items is None else files.listed(description.items))
    present = [each for each in candidates if each.image or each.label]
    if absent := [root / each.expected for each in candidates if not (each.image or each.label)]:
        tree.left_out[ABSENT] = absent
    used = {each.image for each in present}
    others = [path for path in files.channels_of(present) if path not in used]
    other = {OTHER_CHANNELS: others} if others else {}
    return identify(present, tree, EXPECTED, named_by_path=True, other=other)


def _description(root: Path) -> Description:
    """The content of dataset.json; NoCases if there is none."""
    if not (root / FILE).is_file():
        identify([], scan(root), EXPECTED)
    return read_description(root / FILE)


class _Files:
    """The files of a folder, by what nnU-Net's names say: NAME_0001.nii.gz is the second channel of NAME."""

    def __init__(self, tree: Tree, description: Description, channel: int) -> None:
        self.tree, self.channel = tree, channel
        self.counted, self.channels = bool(description.channels), max(1, len(description.channels))
        self.modality = description.channels[channel] if description.channels else None
        self.separate: list[Path] = []
        """Files that an item lists as one of several channels."""

    @property
    def _file(self) -> Path:
        return self.tree.root / FILE

    def listed(self, items: Iterable[Item]) -> list[Candidate]:
        """The cases of all items; one UserError for all those that cannot be understood."""
        candidates, errors = [], []
        for item in items:
            try:
                candidates.append(self._listed(item))
            except UserError as error:
                errors.append(str(error))
        if errors:
            raise UserError("; ".join(errors))
        return candidates

    def _listed(self, item: Item) -> Candidate:
        """The case of one item; nnU-Net 1 lists NAME.nii.gz where the files are NAME_0000.nii.gz and so on."""
        root, channel = self.tree.root, self.channel
        for path in (*item.images, *([item.label] if item.label else [])):
            if not nifti_stem(path):
                remedy = conversion(path) if is_foreign(path) else "convert it to NIfTI"
                raise UserError(f"{self._file}: lists {path}, which is not a .nii or .nii.gz file; {remedy}")
        if 1 < len(item.images) <= channel:
            raise UserError(
                f"{self._file}: lists {len(item.images)} images for {item.images[0]}, and channel {channel} "
                f"({self.modality}) is none of them; list one for each channel"
            )
        label = self._at(root / item.label) if item.label else None
        if item.label and label is None:
            raise UserError(f"{root / item.label}: is listed in dataset.json but missing; restore it")
        chosen = root / item.images[channel if len(item.images) > 1 else 0]
        folder, stem = chosen.parent, nifti_stem(chosen) or ""
        name = self._case_of(folder, stem, nifti_stem(label) if label else None)
        if len(item.images) > 1:
            self.separate += [root / image for image in item.images]
            image, index = self._at(chosen), None
        else:
            image, index = self._image(folder, name, stem)
        if label is None and item.part != "test":
            label = self.tree.find(root / "labelsTr", name, stem)
        return self._candidate(name, image, label, str(item.images[0]), index, item.part if label else None)

    def in_folders(self) -> Iterator[Candidate]:
        """The cases in imagesTr and labelsTr, and in imagesTs and labelsTs."""
        for images, labels, part in (("imagesTr", "labelsTr", None), ("imagesTs", "labelsTs", "test")):
            folder = self.tree.root / images
            segmented = {nifti_stem(path) or "" for path in self.tree.below(labels)}
            names = dict.fromkeys(segmented)
            patients = self._numbered_patients(images, segmented)
            for path in self.tree.below(images):
                stem = nifti_stem(path) or ""
                base, _ = split_channel(stem)
                is_channel = stem not in segmented and self.tree.find(folder, f"{base}_0000")
                names[base if is_channel and base not in patients else stem] = None
            for name in sorted(names):
                image, index = self._image(folder, name, name)
                label = self.tree.find(self.tree.root / labels, name)
                expected = f"{name}_{self.channel:04d}.nii.gz in {images}/"
                yield self._candidate(name, image, label, expected, index, part if label else None)

    def _numbered_patients(self, images: str, segmented: set[str]) -> set[str]:
        """The names whose numbers are the patients': their segmentations have them, or there are fewer channels."""
        patients = {base for base, number in map(split_channel, segmented) if number < NO_CHANNEL}
        if self.counted:
            numbered = [split_channel(nifti_stem(path) or "") for path in self.tree.below(images)]
            patients |= {base for base, number in numbered if self.channels <= number < NO_CHANNEL} - segmented
        return patients

    def channels_of(self, candidates: Sequence[Candidate]) -> Iterator[Path]:
        """The files of all channels of the cases whose channels are files of their own."""
        yield from self.separate
        for folder in {each.image.parent for each in candidates if each.image}:
            names = {each.name for each in candidates if each.image and each.image.parent == folder}
            for path in self.tree.folders.get(folder, []):
                if split_channel(nifti_stem(path) or "")[0] in names and path not in self.separate:
                    yield path

    def _candidate(
        self, name: str, image: Path | None, label: Path | None, expected: str, channel: int | None, part: str | None
    ) -> Candidate:
        return Candidate(name, image, label, expected, channel, modality=self.modality, part=part)

    def _case_of(self, folder: Path, stem: str, label: str | None) -> str:
        """The name of the case without the channel's number, if it has one."""
        base, number = split_channel(stem)
        if base == label:
            return base
        if stem == label and self.channels == 1:
            return stem
        every = all(self.tree.find(folder, f"{base}_{index:04d}") for index in range(self.channels))
        return base if number < self.channels and every else stem

    def _image(self, folder: Path, name: str, stem: str) -> tuple[Path | None, int | None]:
        """The file of a case, and which of its channels, where it holds all."""
        separate = f"{name}_{self.channel:04d}"
        if path := self.tree.find(folder, separate) or self._at_stem(folder, separate):
            return path, None
        path = self.tree.find(folder, stem) or self._at_stem(folder, stem)
        return path, self.channel if self.channels > 1 else None

    def _at_stem(self, folder: Path, stem: str) -> Path | None:
        """A file that the tree does not reach, as outside of the folder."""
        return None if folder in self.tree.folders else self._at(folder / f"{stem}.nii.gz")

    def _at(self, path: Path) -> Path | None:
        """`path` if it is a file or a link to one that was not fetched, whatever the case of its suffix."""
        if path.is_file() or path.is_symlink():
            return path
        return self.tree.find(path.parent, nifti_stem(path) or "")
