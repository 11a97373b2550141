"""Digests of what slice files contain, without reading it: the directory of a zip file has its members' checksums."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from datasets.slices.manifest import MANIFEST
from datasets.slices.slice_folder import SliceFolder, case_of
from utils.errors import UserError
from utils.fingerprint import fingerprint
from utils.progress import progress

CONTENTS, SCORED_CONTENTS = "slice contents", "scored slice contents"
"""Names of the digests of the slices that a run learns from, and is scored on, among what decides its result."""
THREADS = 8  # A slow disk, or one in the network, answers several at once.


def slice_digest(path: Path) -> str:
    """Eight hexadecimal digits for the arrays of a slice file; UserError if it is none."""
    try:
        with zipfile.ZipFile(path) as content:
            checksums = sorted((member.filename, member.CRC) for member in content.infolist())
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; cut the slices again") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is not a slice file ({error}); delete it and cut the slices again") from None
    return f"{zlib.crc32(repr(checksums).encode()):08x}"


def contents_fingerprint(files: Iterable[tuple[SliceFolder, str]]) -> str:
    """The digest of the contents of slices, each a folder and a name in it.

    UserError for one that is not the slice that its folder's manifest lists: cut again elsewhere, copied over, edited.
    """
    files = sorted(set(files), key=lambda file: (str(file[0].folder), file[1]))
    digests = []
    paths = [slices.folder / name for slices, name in files]
    for (slices, name), found in zip(files, file_digests(paths, "checking slices"), strict=True):
        case, index = case_of(name)
        entry = slices.manifest.cases[case] if slices.manifest else None
        listed = entry.digests.get(index, found) if entry else found
        if listed != found:
            raise UserError(
                f"{slices.folder / name}: is not the slice that {MANIFEST} lists (digest {found}, not {listed}); "
                "bring the slice back, or delete the slices of this case and run SliceMaker again"
            )
        digests.append(f"{name} {found}")
    return fingerprint(digests)


def files_of(slices: SliceFolder, names: Iterable[str], cases: Sequence[str]) -> list[tuple[SliceFolder, str]]:
    """The slices of these names, and all of these cases."""
    return [(slices, name) for name in (*names, *(name for case in cases for name in slices.cases[case]))]


def as_recorded(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """`before`, what decided a run's result, to be compared with `now`: earlier versions recorded no contents."""
    return {key: now[key] for key in (CONTENTS, SCORED_CONTENTS) if key in now} | dict(before)


def file_digests(paths: Sequence[Path], text: str) -> Iterator[str]:
    """`slice_digest` of each, with a progress bar of this text."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from progress(pool.map(slice_digest, paths, chunksize=64), text, total=len(paths))
