"""The contract that every layout of raw cases subclasses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.raw import open_layout
from datasets.raw.layout import Layout
from datasets.raw.volume import read_volume
from utils.errors import UserError

IMAGE = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
LABEL = np.zeros((3, 4, 5), np.uint8)
LABEL[1, 2, 1:3] = 1


class LayoutContract:
    """A subclass says what its files are called; `build` makes two labelled cases and one without a label."""

    name: str
    names: tuple[str, ...]
    tasks: frozenset[str]
    window: tuple[float, float] | None = None

    def build(self, root: Path) -> None:
        raise NotImplementedError

    def image_of_first(self, root: Path) -> Path:
        return self.layout(root).find(root)[0].image

    def layout(self, root: Path) -> Layout:
        return open_layout(self.name, root)

    def test_finds_the_cases_in_order(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        cases = self.layout(tmp_path).find(tmp_path)
        assert [case.name for case in cases] == list(self.names)
        assert [case.label is None for case in cases] == [False, False, True]
        assert all(case.image.is_file() and (case.label is None or case.label.is_file()) for case in cases)

    def test_its_cases_can_be_read(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        layout = self.layout(tmp_path)
        volume = read_volume(layout.find(tmp_path)[0], layout.labels)
        np.testing.assert_array_equal(volume.image, IMAGE)
        np.testing.assert_array_equal(volume.label, LABEL)

    def test_tasks_and_window(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        layout = self.layout(tmp_path)
        assert layout.tasks.keys() == self.tasks
        assert layout.window == self.window
        assert 0 in layout.labels
        for task in layout.tasks.values():
            assert {label for labels in task.labels for label in labels} <= set(layout.labels)
            assert {index for indices in task.regions.values() for index in indices} < set(range(task.num_classes))
            assert layout.label_map(task.name.upper().replace("_", "-")) == task
        with pytest.raises(UserError, match=f"choose one of .*{sorted(self.tasks)[0]}"):
            layout.label_map("spleen-of-nobody")

    def test_a_segmentation_without_its_image(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        self.image_of_first(tmp_path).unlink()
        with pytest.raises(UserError, match="image is missing"):
            self.layout(tmp_path).find(tmp_path)

    def test_what_was_not_fetched_is_named(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        first, second, _ = self.layout(tmp_path).find(tmp_path)
        assert second.label is not None
        for path in (first.image, second.label):
            path.unlink()
            path.symlink_to(tmp_path / "absent")
        found = self.layout(tmp_path).find(tmp_path)
        assert [case.name for case in found] == [self.names[2]]
        assert [case.name for case in found.label_not_fetched] == [self.names[1]]
        notes = "\n".join(found.notes)
        assert "not fetched" in notes and first.image.name in notes and second.label.name in notes

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for folder, message in (("empty", "holds no case; expected"), ("absent", "no such folder")):
            with pytest.raises(UserError, match=f"{folder}: {message}"):
                self.layout(tmp_path / folder).find(tmp_path / folder)
