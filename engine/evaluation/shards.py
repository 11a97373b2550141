"""The scores of a share of the cases, kept until all shares are scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.evaluation.score import Scores
from engine.provenance import digest_of
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.shards import Place, Shard


class ScoredCases:
    """The scores of one evaluation, case by case; of a shard also on disk, after every case."""

    def __init__(self, place: Place, shard: Shard | None, afresh: bool = False) -> None:
        """The whole evaluation takes over what the shards have scored; a shard, what it had before it was stopped.

        afresh: nothing is taken over, as a report shows what only the network tells.
        """
        self.place, self.shard = place, shard
        self.order: list[str] = []
        self.cases: dict[str, dict[str, Any]] = {}
        for part in () if afresh else [place.part(shard)] if shard else place.parts():
            self.cases |= self._read(part)

    def choose(self, names: Sequence[str]) -> list[str]:
        """Of all cases, in their order, those that are left to score here."""
        self.order = self.shard.of(names) if self.shard else list(names)
        return [name for name in self.order if name not in self.cases]

    def add(self, name: str, scores: Scores, seconds: float) -> None:
        """A case's scores, and how long all of its work took."""
        self.cases[name] = {
            "volumes": scores.volumes,
            "slice_protocol": scores.slice_protocol,
            "digest": digest_of(scores.files[name]),
            "notes": scores.notes.get(name, []),
            "seconds": seconds,
        }
        if self.shard:
            write_json(self.place.part(self.shard), {"key": self.place.key, "cases": self.cases})

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

    def _in_order(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return ((name, self.cases[name]) for name in self.order)

    def _read(self, path: Path) -> dict[str, dict[str, Any]]:
        """Empty without a file, and where it is of another evaluation; UserError if it is something else."""
        if not path.exists():
            return {}
        content = read_json(path)
        try:
            return dict(content["cases"]) if content["key"] == self.place.key else {}
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path}: is not what evaluate.py --shard writes; delete it") from None
