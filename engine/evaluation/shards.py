"""The scores of cases, kept until all are scored, so that nothing is scored twice by whoever goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.evaluation.score import Scores
from engine.provenance import digest_of
from utils.journal import add_line, read_lines
from utils.shards import ONLY, Place, Shard

FORMAT = 2
"""Of what is kept of a case; what is of another is not taken over."""


class ScoredCases:
    """The scores of one evaluation, case by case, on disk after every one."""

    def __init__(self, place: Place, shard: Shard | None, afresh: bool = False) -> None:
        """What was scored before is taken over: for the whole evaluation, by shards too; for a shard, by itself and
        by a process of the whole that was stopped.

        afresh: nothing is taken over or kept, as a report shows what only the network tells. already: how many of the
        cases were taken over.
        """
        self.place, self.shard, self.afresh = place, shard, afresh
        self.part = place.part(shard or ONLY)
        self.order: list[str] = []
        self.already = 0
        self.cases: dict[str, dict[str, Any]] = {}
        if not afresh:
            for part in dict.fromkeys([place.part(ONLY), self.part]) if shard else place.parts():
                self.cases |= self._read(part)

    def choose(self, files: Mapping[str, Sequence[Path]]) -> list[str]:
        """Of all cases, in their order, those that are left to score here: new ones, and those that have changed."""
        self.order = self.shard.of(list(files)) if self.shard else list(files)
        for name in self.order:
            if name in self.cases and not _is_of(self.cases[name], files[name]):
                del self.cases[name]
        left = [name for name in self.order if name not in self.cases]
        self.already = len(self.order) - len(left)
        return left

    def add(self, name: str, content: dict[str, Any]) -> None:
        """What `scored_case` tells."""
        self.cases[name] = content
        if not self.afresh:
            add_line(self.part, {"format": FORMAT, "key": self.place.key, "name": name, "case": content})

    def scores(self) -> Scores:
        """Of all cases, in their order."""
        scores = Scores([], [], {}, {}, {name: case["digest"] for name, case in self._in_order()})
        for name, case in self._in_order():
            scores.volumes.extend(case["volumes"])
            scores.slice_protocol.extend(case["slice_protocol"])
            if case["notes"]:
                scores.notes[name] = case["notes"]
        return scores

    @property
    def seconds(self) -> float:
        """Of all processes together."""
        return float(sum(case["seconds"] for _, case in self._in_order()))

    @property
    def places(self) -> list[dict[str, Any]]:
        """Where the cases were scored: device, packages and machine, each once."""
        places: list[dict[str, Any]] = []
        for _, case in self._in_order():
            if case["where"] not in places:
                places.append(case["where"])
        return places

    def _in_order(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return ((name, self.cases[name]) for name in self.order)

    def _read(self, path: Path) -> dict[str, dict[str, Any]]:
        """The cases that were scored for this evaluation; what is of another is deleted, by whoever writes there."""
        lines = read_lines(path)
        wanted = (FORMAT, self.place.key)
        own = {line["name"]: line["case"] for line in lines if (line.get("format"), line.get("key")) == wanted}
        if lines and not own and (self.shard is None or path == self.part):
            path.unlink()
        return own


def scored_case(name: str, scores: Scores, seconds: float, where: Mapping[str, Any]) -> dict[str, Any]:
    """A case's scores, of which files they are, how long all of its work took, and where, as `describe_place` tells."""
    files = scores.files[name]
    return {
        "volumes": scores.volumes,
        "slice_protocol": scores.slice_protocol,
        "files": _state_of(files),
        "digest": digest_of(files),
        "notes": scores.notes.get(name, []),
        "seconds": seconds,
        "where": where,
    }


def _is_of(scored: Mapping[str, Any], files: Sequence[Path]) -> bool:
    """Whether a case was scored on these files as they are now; only of files that look changed the content is read."""
    return bool(scored.get("files") == _state_of(files) or scored["digest"] == digest_of(files))


def _state_of(files: Sequence[Path]) -> list[list[int]]:
    """Size in bytes and mtime in ns of each."""
    return [[state.st_size, state.st_mtime_ns] for state in (path.stat() for path in files)]
