"""Short digests, to detect whether two runs used the same data and weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


END = 2**22
CHECKED = (b"\x1f\x8b", b"PK\x03\x04")
"""How gzip and zip files begin."""


def fingerprint(parts: Iterable[str]) -> str:
    """The digest of a sequence of strings, 12 hexadecimal digits."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    """The digest of a file, 12 hexadecimal digits, of its size and content; UserError if it cannot be read.

    Of gzip and zip files (a checkpoint is one) beyond 16 MiB, the first and last 4 MiB are enough: they end with the
    checksums of all that they hold.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(str(size).encode())
            first = file.read(END)
            digest.update(first)
            if size > 4 * END and first.startswith(CHECKED):
                file.seek(-END, os.SEEK_END)
            while block := file.read(END):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    return digest.hexdigest()[:12]


def files_digest(paths: Iterable[Path]) -> str:
    """One digest, 12 hexadecimal digits, for several files, one after another."""
    return fingerprint(map(file_digest, paths))


def fingerprint_weights(network: nn.Module) -> str:
    """The digest of all parameters and buffers, wherever they were loaded from."""
    return fingerprint_tensors(network.state_dict().values())


def fingerprint_tensors(values: Iterable[Tensor]) -> str:
    """The digest of tensors, in their order."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
