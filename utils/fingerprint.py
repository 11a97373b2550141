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


def fingerprint(parts: Iterable[str]) -> str:
    """The digest of a sequence of strings, 12 hexadecimal digits."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    """The digest of a file, 12 hexadecimal digits: of its size and content; beyond 16 MiB, of its first and last 4 MiB.

    The last bytes of a gzip file are the checksum of all that it holds. UserError if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(str(size).encode())
            if size <= 4 * END:
                digest.update(file.read())
            else:
                digest.update(file.read(END))
                file.seek(-END, os.SEEK_END)
                digest.update(file.read())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    return digest.hexdigest()[:12]


def full_digest(paths: Iterable[Path]) -> str:
    """sha256 of the files' contents, one after another, in hexadecimal digits."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: total)
    return total.hexdigest()


def fingerprint_weights(network: nn.Module) -> str:
    """The digest of all parameters and buffers, wherever they were loaded from."""
    return fingerprint_tensors(network.state_dict().values())


def fingerprint_tensors(values: Iterable[Tensor]) -> str:
    """The digest of tensors, in their order."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
