"""The last act of a training: how its best network is to decide."""

from __future__ import annotations

from functools import partial

from engine.evaluation.decision import Decision, choose_offsets
from engine.saved_segmenter import load_segmenter
from engine.training.trainer import Trainer


def decide_best(trainer: Trainer) -> Decision:
    """Choose the offsets of the best network on the validation cases, save them with it, and print them.

    In full precision, as predict.py and evaluate.py decide, whatever the training's is.
    """
    segmenter, _ = load_segmenter(trainer.folder.best, trainer.precision.device)
    validation = trainer.validation
    cases = partial(validation.labelled_cases, "choosing the decision")
    decision = choose_offsets(segmenter, cases, validation.batch_size)
    trainer.folder.save_offsets(decision.offsets)
    segmenter.offsets = decision.offsets
    without = "at 0.5" if len(decision.offsets) == 1 else "by argmax"
    print(
        f"decision: {segmenter.describe_decision()} "
        f"(validation Dice {decision.dice:.4f}, {decision.argmax_dice:.4f} {without})",
        flush=True,
    )
    return decision
