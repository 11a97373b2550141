"""Documentation keeps to the code: commands parse, links lead to files, examples run, generated pages are current."""

from __future__ import annotations

import argparse
import ast
import re
import runpy
import shlex
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.paths import ROOT, SCRIPTS

PAGES = [ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN_BY_PROGRAMS = {ROOT / "docs" / "methods.md", *(ROOT / "docs" / "results" / "tables").glob("*.md")}
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
ELSEWHERE = ("http://", "https://")
CLASS_OUTSIDE = re.compile(r"[a-z_.]+:[A-Z]")
"""A method named as package.module:Class."""


class Parsed(BaseException):
    """Raised in the place of all that a script does with its command line."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self.arguments = arguments


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def lines_of(page: Path) -> Iterator[tuple[str, bool]]:
    """The lines of a page, each with whether it is code: fenced or indented by four spaces."""
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.startswith("```")
        fenced ^= fence
        yield line, fence or fenced or line.startswith("    ")


def sentences_of(page: Path) -> str:
    """A page without its code, on one line."""
    return " ".join(line for line, code in lines_of(page) if not code)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each `python` and `make` command in a page, on lines of code and in its sentences."""
    code = "\n".join(line.strip() for line, code in lines_of(page) if code).replace("\\\n", "")
    for command in [*code.splitlines(), *re.findall("`([^`]*)`", sentences_of(page))]:
        if command.startswith(("python ", "make ")):
            yield shlex.split(command, comments=True)


def parse(script: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace | None:
    """What a script's own parser makes of the words; None where an option such as --list_methods ends the script."""
    original = argparse.ArgumentParser.parse_args

    def parse_and_stop(*arguments: Any, **keywords: Any) -> None:
        raise Parsed(original(*arguments, **keywords))

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        patch.setattr(sys, "argv", [str(script), *words])
        patch.setattr(sys, "path", [str(script.parent), *sys.path])
        try:
            runpy.run_path(str(script), run_name="__main__")
        except Parsed as parsed:
            return parsed.arguments
        except SystemExit as end:
            assert not end.code, f"{script.name} refuses {shlex.join(words)}; its message is on stderr"
            return None
    raise AssertionError(f"{script.name} parses nothing")


def methods(arguments: argparse.Namespace) -> Iterator[str]:
    """What --kd or --methods names, except classes that are not in the repository."""
    for word in [*(getattr(arguments, "kd", None) or ()), *(getattr(arguments, "methods", None) or ())]:
        if not CLASS_OUTSIDE.match(word):
            yield word


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_are_understood_by_their_scripts(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.benchmark.rows import read_row

    makefile = (ROOT / "Makefile").read_text()
    for program, target, *words in commands(page):
        if program == "make":
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}: there is no such target"
            assert all(f"$({word.partition('=')[0]})" in makefile for word in words)
        else:
            arguments = parse(ROOT / target, words, monkeypatch)
            for row in methods(arguments or argparse.Namespace()):
                assert read_row(row).name


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The files of the repository that a page links to or shows, each with the anchor or ""."""
    for target in LINK.findall(sentences_of(page)):
        if not target.startswith(ELSEWHERE):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors(page: Path) -> set[str]:
    """Those that GitHub makes of a page's headings."""
    headings = (line.lstrip("# ") for line, code in lines_of(page) if not code and line.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_pictures_lead_to_files(page: Path) -> None:
    for path, anchor in links(page):
        assert path.exists(), f"{name(page)} links to {path}"
        assert not anchor or anchor in anchors(path), f"{name(page)} links to {anchor} in {name(path)}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md", ROOT / "data" / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        waiting += [path for path, _ in links(page) if path.suffix == ".md" and path not in reached]
    assert not [name(page) for page in PAGES if page not in reached]


def test_pages_are_short_and_so_are_their_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
    for page in set(PAGES) - WRITTEN_BY_PROGRAMS:
        text = [line for line, _ in lines_of(page) if not line.startswith(("|", "!["))]
        assert max(map(len, text)) <= 130, name(page)


def test_the_page_of_methods_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    written = runpy.run_path(str(SCRIPTS / "write_docs.py"))["methods_page"]()
    current = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8") == written
    assert current, "docs/methods.md is out of date: python scripts/write_docs.py"


def test_the_paths_name_functions_that_exist() -> None:
    """`file.py: name` or `file.py: Class.name`, as architecture.md has them."""
    named = re.findall(r"`([\w/]+\.py):\s(\w+)(?:\.(\w+))?`", (ROOT / "docs" / "architecture.md").read_text("utf-8"))
    assert len(named) > 20
    for file, outer, inner in named:
        body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        for wanted in filter(None, (outer, inner)):
            found = [node for node in body if wanted in defined_by(node)]
            assert found, f"{file} defines no {wanted}"
            body = getattr(found[0], "body", [])


def defined_by(node: ast.stmt) -> set[str]:
    """The names that a statement defines: of a function, a class, or a variable with an annotation."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    return {node.target.id} if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else set()


@pytest.fixture(scope="module")
def examples() -> dict[str, str]:
    """File -> code of the examples in extending.md; a registry's line is under its name and "module:factory"."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    files = {block.partition("\n")[0].removeprefix("# "): block for block in blocks if block.startswith("# ")}
    return files | dict(re.findall(r'^ {4}"(\w+)": "([\w.:]+)",$', text, re.MULTILINE))


def add(
    examples: Mapping[str, str], key: str, registry: dict[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make an example a module of the repository, and its name one of the registry."""
    module = ModuleType(path.removesuffix(".py").replace("/", "."))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(examples[path], path, "exec"), module.__dict__)
    monkeypatch.setitem(registry, key, examples[key])
    factory_module, _, factory = examples[key].partition(":")
    assert import_module(factory_module) is module and hasattr(module, factory)


def test_the_example_of_a_network(examples: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from networks import NETWORKS, build

    add(examples, "tiny_fcn", NETWORKS, "networks/tiny_fcn.py", monkeypatch)
    network = build("tiny_fcn", classes=2).train()
    features = network.features(torch.randn(2, 1, 64, 96))
    for stage in network.channels.stages:
        assert features.stage(stage.name).shape == (2, stage.channels, 64 // stage.stride, 96 // stage.stride)
    features.logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.eval()(torch.randn(1, 1, 33, 47)).shape == (1, 2, 33, 47)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(2e5, rel=0.1)


def test_the_example_of_a_data_set(examples: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets.raw import LAYOUTS, open_layout
    from datasets.raw.volume import read_volume

    add(examples, "clinic", LAYOUTS, "datasets/raw/clinic.py", monkeypatch)
    for patient, files in {"b": ("ct", "liver"), "a": ("ct",)}.items():
        (tmp_path / patient).mkdir()
        for stem in files:
            nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.int16), np.eye(4)), tmp_path / patient / f"{stem}.nii.gz")
    layout = open_layout("clinic", tmp_path)
    cases = layout.find(tmp_path)
    assert [(case.name, case.label is None) for case in cases] == [("a", True), ("b", False)]
    label = read_volume(cases[1], layout.labels).label
    assert label is not None and layout.label_map("liver").encode(label).all()


def test_the_example_of_a_method(examples: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from distillation import METHODS, build_method, parse_methods
    from networks import build
    from utils.batch import Batch

    add(examples, "brier", METHODS, "distillation/methods/brier.py", monkeypatch)
    student, teacher = (build(model, classes=2).eval() for model in ("malunet", "enet"))
    method = build_method(parse_methods(["brier:2,temperature=4"]), student.channels, teacher.channels)
    batch = Batch(torch.randn(2, 1, 32, 32), torch.zeros(2, 32, 32, dtype=torch.uint8), ["a", "b"])
    answers = teacher.features(batch.image)
    (loss,) = method(student.features(batch.image), answers, batch).values()
    assert loss.requires_grad and loss > 0
    assert list(method(answers, answers, batch).values()) == [0.0]
    assert "Brier(t_logits -> s_logits)" in method.equation()
