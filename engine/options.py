"""Command lines: the parser and the flags that entry points share. Nothing heavy is imported for `--help`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from utils.errors import UserError


class Parser(argparse.ArgumentParser):
    """Flags are known with dashes and with underscores; a usage error is one line, as every other error."""

    def __init__(self, description: str | None, **options: Any) -> None:
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        spelled = [_underscored(word) for word in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(spelled, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the options)")


def _underscored(word: str) -> str:
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return "--" + flag[2:].replace("-", "_") + equals + value


def whole(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number, `least` or more."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, not {text}")
        return value

    return parse


def real(least: float = -math.inf, *, above: float = -math.inf, below: float = math.inf) -> Callable[[str], float]:
    """An argparse type: a finite number within these bounds."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value and above < value < below):
            bounds = [
                f"at least {least:g}" if least > -math.inf else "",
                f"above {above:g}" if above > -math.inf else "",
            ]
            bounds += [f"below {below:g}" if below < math.inf else ""]
            limits = " and ".join(bound for bound in bounds if bound)
            raise argparse.ArgumentTypeError(f"must be a number {limits}".rstrip() + f", not {text}")
        return value

    return parse


def data_options(parser: Parser, *, inherited: bool = False) -> None:
    """What to train on. With `inherited`, what is left out comes from the teacher's checkpoint."""
    source = " (default: the teacher's)" if inherited else ""
    add = parser.add_argument_group("data").add_argument
    add("--dataset", help="kits, lits, acdc, heart or msd" + (source or " (default: kits)"))
    add("--task", help="organ, tumor, all, or a name of the data" + (source or " (default: tumor)"))
    add(
        "--train_data_path", type=Path,
        help="slices that SliceMaker wrote (default: data/<dataset> in the repository, not in the current folder, or "
        "train in it)",
    )  # fmt: skip
    add("--test_data_path", type=Path, help="slices to test on (default: data/<dataset> likewise, or test in it)")
    add("--val_fraction", type=real(0, below=1), default=0.1, help="cases to validate on, where none were set apart")
    add("--size", type=whole(0), help="slices are resized to SIZE x SIZE; 0 keeps them" + source)
    add("--crop", type=whole(0), help="pixels a side that the network sees; 0 for all" + source)
    add("--window", type=real(), nargs=2, metavar=("LO", "HI"), help="intensity window, HU for CT" + source)
    add("--augment", choices=["none", "paper", "strong"], default="paper", help="default: paper")


def training_options(parser: Parser, *, epochs: int) -> None:
    """How to train. `epochs` is the published number."""
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--mode", choices=["train", "test"], default="train", help="test: score best.ckpt")
    add("--checkpoint_path", type=Path, help="folder to write to (default: checkpoints/<run>)")
    length = group.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=whole(1), default=epochs, help=f"default: {epochs}")
    length.add_argument("--steps", type=whole(1), help="so many optimiser steps instead of epochs")
    add("--batch_size", type=whole(1), default=8, help="default: 8")
    add("--lr", type=real(above=0), default=1e-3, help="Adam's first learning rate (default: 1e-3)")
    add("--seed", type=whole(0), default=0, help="default: 0")
    add(
        "--val_every",
        type=whole(1),
        help="epochs, or steps, from one validation to the next (default: 1, or STEPS / 4)",
    )
    add("--patience", type=whole(0), default=0, help="stop after so many validations without a better score (0: never)")
    add("--resume", action="store_true", help="go on from last.ckpt")
    add("--pretrained", nargs="?", const="imagenet", help="ImageNet weights, or a file of weights")
    add("--amp", choices=["auto", "off", "bf16", "fp16"], default="auto", help="mixed precision (auto: on GPUs)")
    add("--workers", type=whole(0), help="loading processes (default: by the number of cores)")
    device_option(parser)


def device_option(parser: Parser) -> None:
    """Where to compute."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")


def prediction_options(parser: Parser) -> None:
    """How a checkpoint is used."""
    parser.add_argument("--ckpt", type=Path, required=True, help="a checkpoint of train.py or train_kd.py")
    parser.add_argument(
        "--threshold",
        type=real(0, below=1),
        help="foreground where its probability is higher (default: likeliest class)",
    )
    parser.add_argument("--batch_size", type=whole(1), default=8, help="slices at once (default: 8)")
    device_option(parser)
