"""TensorBoard's events of a training."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from utils.files import make_folder, writing

SHOWN = (bool, int, float, str)
"""What TensorBoard takes for a setting."""


class EventLog:
    """Writes what validations found, and in the end the result; UserError where the folder cannot be written."""

    def __init__(self, folder: Path, writer: SummaryWriter) -> None:
        self.folder, self.writer = folder, writer

    def add(self, step: int, numbers: Mapping[str, float], pictures: Mapping[str, Tensor]) -> None:
        """numbers, pictures [3, H, W] in 0..1: by their names."""
        with writing(self.folder):
            for name, value in numbers.items():
                self.writer.add_scalar(name, value, step)
            for name, picture in pictures.items():
                self.writer.add_image(name, picture, step)
            self.writer.flush()

    def add_result(self, step: int, settings: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        """The settings with the scores that they led to, for TensorBoard's table of runs."""
        shown = {name: value if isinstance(value, SHOWN) else json.dumps(value) for name, value in settings.items()}
        with writing(self.folder):
            # `SummaryWriter.add_hparams` would make the table list a second run, in a folder of its own.
            for summary in hparams(shown, dict(scores)):
                self.writer._get_file_writer().add_summary(summary)
        self.add(step, scores, {})


@contextmanager
def event_log(folder: Path, step: int) -> Iterator[EventLog]:
    """The log of a run of which `step` steps are done; what a killed process logged of later ones is not shown."""
    make_folder(folder)
    before = threading.excepthook
    threading.excepthook = _ignore_system_errors
    try:
        with writing(folder):
            writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        try:
            yield EventLog(folder, writer)
        finally:
            with writing(folder):
                writer.close()
    finally:
        threading.excepthook = before


def _ignore_system_errors(what: threading.ExceptHookArgs) -> None:
    """The writer's thread prints its traceback of a full disk, which the next call raises here too."""
    if not isinstance(what.exc_value, OSError):
        threading.__excepthook__(what)
