"""From files to cases: every layout proposes `Candidate`s, and one function names them or refuses."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.raw.layout import Case, NoCases
from datasets.raw.tree import NOT_FETCHED, Tree, conversion, is_fetched
from datasets.splits import patient_of
from utils.errors import UserError

LABEL_NOT_FETCHED = "segmentation not fetched (git lfs pull, git annex get or datalad get brings it)"
OTHER_CHANNELS = "other channels of the same images"
LISTED_TWICE = "listed twice and read once"
NOT_RECOGNISED = "not named as the layout's files"
SHOWN = 5


@dataclass(frozen=True)
class Candidate:
    """What a layout takes for a case. `image` is None where only the segmentation is there, or nothing at all.

    name: as the layout names it; expected: the image to look for where it is missing; the rest as in `Case`.
    """

    name: str
    image: Path | None
    label: Path | None = None
    expected: str = ""
    channel: int | None = None
    patient: str | None = None
    modality: str | None = None
    part: str | None = None
    files: tuple[Path, ...] = ()


class FoundCases(list[Case]):
    """Cases in order, and, by reason, the files that are in none of them.

    label_not_fetched: cases whose image is here and whose segmentation is only a link: to predict, not to train on;
    image_not_fetched: the names of those whose image is a link too.
    """

    def __init__(
        self,
        root: Path,
        cases: Iterable[Case],
        left_out: Mapping[str, Sequence[Path]] | None = None,
        label_not_fetched: Sequence[Case] = (),
        image_not_fetched: Sequence[str] = (),
    ) -> None:
        super().__init__(cases)
        self.root, self.left_out = root, dict(left_out or {})
        self.label_not_fetched, self.image_not_fetched = list(label_not_fetched), list(image_not_fetched)

    @property
    def notes(self) -> list[str]:
        """A line for each reason why something was left out, with the number and the first names."""
        return describe_left_out(self.left_out, self.root)


def identify(
    candidates: Iterable[Candidate],
    tree: Tree,
    expected: str,
    *,
    named_by_path: bool = False,
    other: Mapping[str, Collection[Path]] | None = None,
    beside: Collection[Path] = (),
) -> FoundCases:
    """The cases of any layout: each with its own name, patient, image, channel and segmentation, sorted by name.

    Cases whose files were not fetched are left out. named_by_path: cases of one name get that of their folder in
    front of it, except for the only one that can be trained on; otherwise two cases of one name are refused, for
    names are the patients' numbers. other: reason -> files that are left out on purpose; beside: further files that
    every folder of the layout has, of which nothing is said.

    UserError that names the files: segmentations without image (all of them), one image in two cases, two cases of
    one name. NoCases, with the `expected` files, if there is no case.
    """
    left_out = {reason: list(paths) for reason, paths in (*tree.left_out.items(), *(other or {}).items())}
    candidates = list(candidates)
    _refuse_labels_without_image(candidates)
    fetched, without_label, without_image = [], [], []
    for candidate in candidates:
        if candidate.image is None or not is_fetched(candidate.image):
            left_out.setdefault(NOT_FETCHED, []).append(candidate.image or tree.root / candidate.name)
            without_image.append(candidate.name)
        elif candidate.label is not None and not is_fetched(candidate.label):
            left_out.setdefault(LABEL_NOT_FETCHED, []).append(candidate.label)
            without_label.append(candidate)
        else:
            fetched.append(candidate)
    single = _without_repetitions(fetched + without_label, left_out)
    cases = _with_patients(_with_names(single, tree.root, named_by_path))
    known = {path for each in candidates for path in (each.image, each.label)}
    known |= set(beside)
    known |= {path for paths in left_out.values() for path in paths}
    if unknown := [path for path in tree.files if path not in known]:
        left_out[NOT_RECOGNISED] = unknown
    if tree.foreign:
        left_out[f"no NIfTI; {conversion(tree.foreign[0])}"] = tree.foreign
    absent = {candidate.image for candidate in without_label}
    found = FoundCases(
        tree.root,
        [case for case in cases if case.image not in absent],
        left_out,
        [case for case in cases if case.image in absent],
        without_image,
    )
    if not cases:
        raise NoCases("; ".join([_nothing(tree.root, expected), *found.notes]))
    return found


def describe_left_out(left_out: Mapping[str, Sequence[Path]], root: Path) -> list[str]:
    """ "left out, REASON: 7: first, second, ... and 2 more", with paths below `root`."""
    lines = []
    for reason, paths in left_out.items():
        names = [os.path.relpath(path, root if root.is_dir() else root.parent) for path in paths[:SHOWN]]
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        lines.append(f"left out, {reason}: {len(paths)}: {', '.join(names)}{more}")
    return lines


def _nothing(root: Path, expected: str) -> str:
    if not root.exists():
        return f"{root}: no such folder; give the folder that holds {expected}"
    return f"{root}: holds no case; expected {expected}"


def _refuse_labels_without_image(candidates: Sequence[Candidate]) -> None:
    errors = [
        f"{each.label}: its image is missing: expected {each.expected}"
        for each in candidates
        if each.label is not None and each.image is None
    ]
    if errors:
        more = f"; and {len(errors) - SHOWN} more such segmentations" if len(errors) > SHOWN else ""
        raise UserError("; ".join(errors[:SHOWN]) + more)


def _without_repetitions(candidates: Sequence[Candidate], left_out: dict[str, list[Path]]) -> list[Candidate]:
    """One candidate for each image; UserError if an image is in two cases that differ."""
    images: dict[tuple[str, tuple[Path, ...]], Candidate] = {}
    for each in candidates:
        assert each.image is not None
        first = images.setdefault((os.path.realpath(each.image), each.files), each)
        if first is each:
            continue
        if (first.image, first.label, first.part) != (each.image, each.label, each.part):
            pair = " and ".join(f"{case.image} (segmentation: {case.label or 'none'})" for case in (first, each))
            raise UserError(f"{pair} are one image in two cases; leave one of them out")
        left_out.setdefault(LISTED_TWICE, []).append(each.image)
    return list(images.values())


def _with_names(candidates: Sequence[Candidate], root: Path, named_by_path: bool) -> list[Case]:
    """A case for each candidate; no two names are the same, not even on a disk that ignores upper case."""
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for each in candidates:
        groups[each.name.lower()].append(each)
    cases: dict[str, Case] = {}
    for group in groups.values():
        trained_on = [each for each in group if each.label is not None and each.part != "test"]
        for each in group:
            named = each
            if named_by_path and len(group) > 1 and trained_on != [each]:
                # A test image with a training image's number may well be of the same patient.
                patient = each.patient or (each.name if len(trained_on) == 1 else None)
                named = replace(each, name=_name_by_path(each, root), patient=patient)
            assert named.image is not None
            fields = (named.channel, named.patient, named.modality, named.part, named.files)
            case = Case(named.name, named.image, named.label, *fields)
            if (other := cases.setdefault(case.name.lower(), case)) is not case:
                raise UserError(f"{case.image}: has the name of {other.image}; rename or remove one of them")
    return sorted(cases.values(), key=lambda case: (case.name.isdigit() and int(case.name), case.name))


def _name_by_path(candidate: Candidate, root: Path) -> str:
    """PATIENT_ct for PATIENT/ct.nii.gz."""
    assert candidate.image is not None
    folders = Path(os.path.relpath(candidate.image.parent, root)).parts
    return "_".join([*(part for part in folders if part not in ("..", os.sep)), candidate.name])


def _with_patients(cases: Sequence[Case]) -> list[Case]:
    """Cases that share a segmentation are of one patient."""
    owners: dict[str, str] = {}
    named = []
    for case in cases:
        patient = case.patient
        if case.label is not None:
            # Not the link's target: git-annex stores equal segmentations, such as empty ones, once.
            owner = owners.setdefault(os.path.normpath(case.label), patient or patient_of(case.name))
            patient = patient or (owner if owner != patient_of(case.name) else None)
        named.append(replace(case, patient=patient))
    return named
