"""A volume whose slices can be used while others are still being read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Condition
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from datasets.raw.layout import Case
from datasets.raw.volume import Volume


class Read(Protocol):
    """Reads a case as `read_volume` does."""

    def __call__(self, *, arrived: Callable[[Volume, slice], None]) -> Volume: ...


class Arriving:
    """A case that a thread reads, by `read`; everything else is for those who wait for its slices."""

    def __init__(self, case: Case, reads: Read) -> None:
        self.case, self._reads = case, reads
        self._news = Condition()
        self._begun: Volume | None = None
        self._there: NDArray[np.bool_] = np.zeros(0, bool)
        self._end: Volume | BaseException | None = None

    def read(self) -> None:
        """To the end; an error is raised for those who wait."""
        try:
            end: Volume | BaseException = self._reads(arrived=self._arrived)
        except BaseException as error:
            end = error
        with self._news:
            self._end = end
            self._news.notify_all()

    def begun(self) -> Volume:
        """The volume as soon as a slice of it is there, without the pixels of the others, without checks and notes.

        One that can't be read slice by slice is given as `volume` gives it.
        """
        with self._news:
            self._news.wait_for(lambda: self._begun is not None or self._end is not None)
            return self._begun or self.volume()

    def volume(self) -> Volume:
        """The whole volume, read and checked; raises what the reading has raised."""
        with self._news:
            self._news.wait_for(lambda: self._end is not None)
            if not isinstance(self._end, Volume):
                assert self._end is not None
                raise self._end
            return self._end

    def parts(self, size: int) -> Iterator[slice]:
        """All slices along z, `size` at a time and in the file's order, each part when it is there."""
        volume = self.begun()
        count = len(volume.image)
        parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        upwards = volume.slices[0] <= volume.slices[-1]
        for part in parts if upwards else reversed(parts):
            with self._news:
                self._news.wait_for(lambda part=part: self._end is not None or self._there[part].all())  # type: ignore[misc]
                if isinstance(self._end, BaseException):
                    raise self._end
            yield part

    def _arrived(self, volume: Volume, part: slice) -> None:
        with self._news:
            if self._begun is None:
                self._begun, self._there = volume, np.zeros(len(volume.image), bool)
            self._there[part] = True
            self._news.notify_all()
