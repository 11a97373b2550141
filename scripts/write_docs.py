"""Write docs/methods.md from the methods themselves: the papers they cite, their options, their documentation.

python scripts/write_docs.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import _root

from utils.errors import run
from utils.options import Parser

PAGE = _root.ROOT / "docs" / "methods.md"

FAMILIES = {
    "HLFD, its ablations and its baselines": ("hlfd", "hifd", "ifd", "deep", "skd", "at", "hlfd_published"),
    "Logits": ("kd", "kd_soft", "dkd", "dist", "lskd", "dice_semimetric", "cwd"),
    "Features": ("fitnet", "canonical", "at_paper", "cwd_features", "ofd", "reviewkd", "mgd", "vid", "ickd"),
    "Relations": ("sp", "skd_pairwise", "rkd", "ifvd", "dsd", "cirkd_minibatch", "cirkd", "ktaad"),
    "Adversarial": ("skd_holistic",),
    "Medical": ("emkd",),
    "From volumetric teachers": ("hilbert", "prototypes"),
}
OTHERS = "Others"
"""The family of methods that no family names."""

BEGINNING = """\
# Distillation methods

Written by `python scripts/write_docs.py` from the files in `distillation/methods/`; `python train_kd.py --list_methods`
prints a short form. Which one to use is a question for the [benchmark](benchmark.md).

    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --kd hlfd at:3.0
    python train_kd.py --tckpt checkpoints/teacher/best.ckpt --kd cwd,layers=e4+e5,temperature=2

Several methods add up. `:3.0` multiplies all of a method's weights, and options follow as `,name=value`. The tables
give their defaults: the papers' values, or those that the method's documentation gives reasons for.
"""
END = """\
With two classes `lskd` and the `inter` term of `dist` have no gradient, and `dkd` is `kd,temperature=4`.

## Other names
"""

INITIALS = r"(?:[A-Z]\.[- ]?)+"
AUTHOR = rf"{INITIALS}[A-Z][a-z][\w' -]*"
CITATION = re.compile(
    rf"(?P<authors>{AUTHOR}(?:, {AUTHOR})*): (?P<title>[^()]+?, [^()]*?\b\d{{4}})\b(?: \(arXiv (?P<arxiv>\d+\.\d+)\))?"
)


def main() -> None:
    Parser(__doc__).parse_args()

    from utils.files import atomic_write

    with atomic_write(PAGE) as temporary:
        temporary.write_text(methods_page(), encoding="utf-8")
    print(PAGE)


def methods_page() -> str:
    from distillation import ALIASES, METHODS, methods_for_answers

    named = {name for names in FAMILIES.values() for name in names}
    families = {**FAMILIES, OTHERS: tuple(name for name in METHODS if name not in named)}
    parts = [BEGINNING]
    for family, names in families.items():
        if names:
            rows = [method_row(name) for name in names]
            parts += [f"## {family}\n", table(["`--kd`", "what it does", "options and defaults", "paper"], rows)]
    meanings = [[f"`{alias}`", f"`{meaning}`"] for alias, meaning in ALIASES.items()]
    from_disk = ", ".join(f"`{name}`" for name in methods_for_answers())
    parts.append(f"[Answers on disk](teachers.md) are enough for {from_disk}.\n")
    return "\n".join([*parts, END, table(["name", "the same as"], meanings)])


def method_row(name: str) -> list[str]:
    """Name, first line of the documentation, options, paper."""
    from distillation import METHODS
    from distillation.specs import format_option, option_types
    from utils.registry import lookup

    method = lookup(METHODS, "distillation method", name)
    options = (f"`{key}={format_option(option.default)}`" for key, option in option_types(method).items())
    return [f"`{name}`", method.__doc__.splitlines()[0], " ".join(options), paper(method)]


def paper(method: type) -> str:
    """What the class, or else its file, cites first, as a link; "" if neither cites anything."""
    for documentation in (method.__doc__, sys.modules[method.__module__].__doc__):
        if found := CITATION.search(" ".join((documentation or "").split())):
            names = [re.sub(f"^{INITIALS}", "", author) for author in found["authors"].split(", ")]
            authors = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
            title = found["title"]
            return f"{authors}: " + (f"[{title}](https://arxiv.org/abs/{found['arxiv']})" if found["arxiv"] else title)
    return ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of prose, all columns left."""
    from engine.reporting import markdown_line

    return "".join(f"{markdown_line(row)}\n" for row in (header, ["---"] * len(header), *rows))


if __name__ == "__main__":
    run(main)
