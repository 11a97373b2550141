"""The image files below a folder: those that can be read, those that were not fetched, those of other formats."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UserError

SUFFIXES = (".nii.gz", ".nii")
DICOM = (".dcm", ".ima")
OTHER_FORMATS = (".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".hdr", ".img", *DICOM)
# git-lfs and unlocked git-annex put a line of text in the place of a file that was not fetched.
POINTERS = (b"version https://git-lfs", b"/annex/objects/")
POINTER_BYTES = 1024
NO_CHANNEL = 10**4

NOT_FETCHED = "not fetched (git lfs pull, git annex get or datalad get brings them)"
EMPTY = "folders of cases without a file"
# How the folders begin that a layout takes for cases: those of KiTS and LiTS, and of ACDC.
CASE_FOLDERS = ("case_", "patient")
LINKED_TWICE = "links to folders that were read already"


@dataclass
class Tree:
    """folders: every folder below `root`, itself included, with its NIfTI files in order, fetched or not.

    foreign: images of other formats; left_out: reason -> what cannot be a case.
    """

    root: Path
    folders: dict[Path, list[Path]] = field(default_factory=dict)
    foreign: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    named: dict[Path, list[Path]] = field(default_factory=dict)
    """FOLDER/STEM -> the NIfTI files of that name."""

    @property
    def files(self) -> list[Path]:
        return [path for files in self.folders.values() for path in files]

    def leave_out(self, reason: str, path: Path) -> None:
        self.left_out.setdefault(reason, []).append(path)

    def find(self, folder: Path, *stems: str) -> Path | None:
        """The NIfTI file in `folder` of the first of the `stems` that is there; UserError if two have that stem."""
        for stem in stems:
            found = self.named.get(folder / stem, [])
            if len(found) > 1:
                raise UserError(f"{found[0]}: has the name of {found[1]}; remove one of them")
            if found:
                return found[0]
        return None

    def below(self, name: str) -> list[Path]:
        """The NIfTI files in the folder `name` of `root`."""
        return self.folders.get(self.root / name, [])


def scan(root: Path) -> Tree:
    """Every file below `root`, through linked folders too; hidden files and folders are skipped.

    UserError if a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror}); change its permissions")

    tree = Tree(root)
    seen: set[str] = set()
    if not root.is_dir():
        return tree
    for place, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        folder = Path(place)
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            tree.leave_out(LINKED_TWICE, folder)
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = sorted(name for name in names if not name.startswith("."))
        tree.folders[folder] = []
        for path in (folder / name for name in shown):
            if stem := nifti_stem(path):
                tree.folders[folder].append(path)
                tree.named.setdefault(folder / stem, []).append(path)
                continue
            if is_foreign(path):
                tree.foreign.append(path)
            if not path.exists():
                tree.leave_out(NOT_FETCHED, path)
        if not folders and not shown and folder != root and folder.name.startswith(CASE_FOLDERS):
            tree.leave_out(EMPTY, folder)
    return tree


def other_files(folder: Path) -> Iterator[Path]:
    """The files in a folder that may be DICOM, whatever they are called: not NIfTI, not hidden."""
    for path in sorted(folder.iterdir()):
        if not nifti_stem(path) and not path.name.startswith(".") and path.is_file():
            yield path


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def nifti_stem(path: Path) -> str | None:
    """The file name without `.nii` or `.nii.gz`, in any case; None for other files and for hidden ones."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix) and not path.name.startswith("."):
            return path.name[: -len(suffix)]
    return None


def split_channel(stem: str) -> tuple[str, int]:
    """nnU-Net's NAME_0001 -> NAME, 1; a number beyond all channels where there is none."""
    found = re.fullmatch(r"(.+)_(\d{4})", stem)
    return (found[1], int(found[2])) if found else (stem, NO_CHANNEL)


def is_foreign(path: Path) -> bool:
    """Whether the name is that of an image in another format."""
    return path.name.lower().endswith(OTHER_FORMATS)


def is_fetched(path: Path) -> bool:
    """False for a link to a file that is not there, and for the text that stands for one of git-lfs or git-annex."""
    try:
        if path.stat().st_size > POINTER_BYTES:
            return True
        with path.open("rb") as file:
            return not file.read(POINTER_BYTES).startswith(POINTERS)
    except OSError:
        return path.exists()


def conversion(path: Path) -> str:
    """How an image of another format becomes NIfTI."""
    if path.name.lower().endswith(DICOM):
        return f"give the folder of a DICOM series by itself, or convert it: dcm2niix -z y -o NIFTI {path.parent}"
    converted = path.with_suffix(".nii.gz").name
    command = f"import SimpleITK as s; s.WriteImage(s.ReadImage('{path.name}'), '{converted}')"
    return f'convert it to NIfTI with SimpleITK: python -c "{command}"'
