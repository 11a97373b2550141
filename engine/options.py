"""Command lines: the parser and the flags that entry points share. Nothing heavy is imported for `--help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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


def data_options(parser: Parser, *, inherited: bool = False) -> None:
    """What to train on. With `inherited`, what is left out comes from the teacher's checkpoint."""
    source = " (default: the teacher's)" if inherited else ""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset", default=None if inherited else "kits", help="kits, lits, acdc, heart or msd" + source
    )
    group.add_argument(
        "--task", default=None if inherited else "tumor", help="organ, tumor, all, or a name of the data" + source
    )
    group.add_argument(
        "--train_data_path", type=Path, help="slices that SliceMaker wrote (default: data/<dataset>/train)"
    )
    group.add_argument("--test_data_path", type=Path, help="slices to test on (default: data/<dataset>/test)")
    group.add_argument(
        "--val_fraction", type=float, default=0.1, help="share of cases to validate on, where none were set apart"
    )
    group.add_argument("--size", type=int, help="slices are resized to SIZE x SIZE; 0 keeps them" + source)
    group.add_argument("--crop", type=int, help="pixels a side that the network sees; 0 for all" + source)
    group.add_argument(
        "--window", type=float, nargs=2, metavar=("LO", "HI"), help="intensity window, HU for CT" + source
    )
    group.add_argument("--augment", choices=["none", "paper", "strong"], default="paper", help="default: paper")


def training_options(parser: Parser, *, epochs: int) -> None:
    """How to train. `epochs` is the published number."""
    group = parser.add_argument_group("training")
    group.add_argument("--mode", choices=["train", "test"], default="train", help="test: score best.ckpt")
    group.add_argument("--checkpoint_path", type=Path, help="folder to write to (default: checkpoints/<run>)")
    group.add_argument("--epochs", type=int, default=epochs, help=f"default: {epochs}")
    group.add_argument("--batch_size", type=int, default=8, help="default: 8")
    group.add_argument("--lr", type=float, default=1e-3, help="Adam's first learning rate (default: 1e-3)")
    group.add_argument("--seed", type=int, default=0, help="default: 0")
    group.add_argument("--patience", type=int, default=0, help="stop after this many epochs without a better score")
    group.add_argument("--resume", action="store_true", help="go on from last.ckpt")
    group.add_argument("--pretrained", nargs="?", const="imagenet", help="ImageNet weights, or a file of weights")
    device_options(parser, group)
    group.add_argument("--amp", choices=["auto", "off", "bf16", "fp16"], default="auto", help="mixed precision")
    group.add_argument("--val_every", type=int, default=1, help="epochs from one validation to the next")


def device_options(parser: Parser, group: argparse._ArgumentGroup | None = None) -> None:
    """Where to compute."""
    group = group or parser.add_argument_group("device")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    group.add_argument("--workers", type=int, help="loading processes (default: by the number of cores)")


def positive(args: argparse.Namespace, *names: str) -> None:
    """UserError unless each of these options is above 0."""
    for name in names:
        if getattr(args, name) <= 0:
            raise UserError(f"--{name} must be above 0, not {getattr(args, name)}")
