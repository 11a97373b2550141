"""Distillation methods, one file per family, and the tasks that the training loop runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distillation.specs import own_options, parse_spec, read_options, written
from utils.errors import UserError
from utils.registry import lookup, match_name, plain

if TYPE_CHECKING:
    from distillation.method import Method
    from networks.contract import Channels

METHODS: dict[str, str] = {
    "hlfd": "distillation.hierarchical:hlfd",
    "hlfd_paper": "distillation.hierarchical:hlfd_paper",
    "ifd": "distillation.hierarchical:ifd",
    "hifd": "distillation.hierarchical:hifd",
    "deep": "distillation.same_level:deep",
    "skd": "distillation.same_level:skd",
    "hlfd_published": "distillation.hlfd_published:HLFDPublished",
    "kd": "distillation.logits:KD",
    "dkd": "distillation.logits:DecoupledKD",
    "dist": "distillation.logits:DIST",
    "lskd": "distillation.logits:StandardisedKD",
    "cwd": "distillation.channel_wise:cwd",
    "cwd_features": "distillation.channel_wise:cwd_features",
    "fitnet": "distillation.hints:FitNet",
    "at": "distillation.same_level:at",
    "at_paper": "distillation.attention:AttentionTransfer",
    "ofd": "distillation.overhaul:OFD",
    "reviewkd": "distillation.review:ReviewKD",
    "mgd": "distillation.generative:MGD",
    "vid": "distillation.variational:VID",
    "ickd": "distillation.inter_channel:ICKD",
    "sp": "distillation.similarity:SP",
    "skd_pairwise": "distillation.similarity:PairWise",
    "rkd": "distillation.similarity:RKD",
    "ifvd": "distillation.class_variation:IFVD",
    "dsd": "distillation.double_similarity:DSD",
    "cirkd_minibatch": "distillation.cross_image:MiniBatch",
    "cirkd": "distillation.cross_image:CIRKD",
    "ktaad": "distillation.affinity:KTAAD",
    "skd_holistic": "distillation.holistic:Holistic",
    "emkd": "distillation.emkd:EMKD",
    "best": "distillation.best:best",
}

PUBLISHED_NAMES: dict[str, str] = {
    "recursive_feedback_ours": "hlfd",
    "cat_feedback_ours": "ifd",
    "indv_feedback": "hifd",
    "deep_kd": "deep",
    "wo_feedback": "skd",
    "attn_kd": "at",
}


def method_name(name: str) -> str:
    """The name in `METHODS` that a forgiving or a published name means; UserError with those that exist."""
    for published, ours in PUBLISHED_NAMES.items():
        if plain(name) == plain(published):
            return ours
    return match_name("distillation method", name, METHODS)


def plain_spec(text: str, **options: Any) -> str:
    """The same spec in one way of writing: the name in `METHODS`, and only what differs from its defaults.

    options: as for `build_method`, defaults in the place of the method's own.
    """
    spec = parse_spec(text)
    name = method_name(spec.name)
    known = own_options(lookup(METHODS, "distillation method", name))
    usual = known | read_options(name, _shared(options, known), known)
    chosen = read_options(name, spec.options, known)
    changed = [f"{key}={written(value)}" for key, value in chosen.items() if value != usual[key]]
    return ",".join([name if spec.factor == 1 else f"{name}:{spec.factor:g}", *changed])


def _shared(options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given and that a method knows."""
    return {key: value for key, value in options.items() if key in known and value is not None}


def describe_methods() -> str:
    """Every method with its options and their defaults, and what it is."""
    lines = []
    for name in METHODS:
        factory = lookup(METHODS, "distillation method", name)
        lines.append(f"{name:<16} {factory.__doc__.splitlines()[0]}")
        if options := " ".join(f"{key}={written(value)}" for key, value in own_options(factory).items()):
            lines.append(f"{'':<16} {options}")
    return "\n".join(lines)


def build_method(specs: Sequence[str], student: Channels, teacher: Channels, **options: Any) -> Method:
    """The method that specs such as `["hlfd", "at:3.0", "cwd,layers=e4+e5"]` mean (see `distillation.specs`).

    options: defaults for every method that knows them, such as temperature; None leaves each its own. UserError
    for an unknown name, one given twice, an option that no method knows, or a value out of its range.
    """
    from distillation.method import Combined

    unused = {key for key, value in options.items() if value is not None}
    parts: list[tuple[str, float, Method]] = []
    for spec in map(parse_spec, specs):
        name = method_name(spec.name)
        if any(name == other for other, _, _ in parts):
            raise UserError(f"distillation method {name} is given twice: give it once, with its weight")
        factory = lookup(METHODS, "distillation method", name)
        known = own_options(factory)
        unused -= known.keys()
        chosen = read_options(name, {**_shared(options, known), **spec.options}, known)
        parts.append((name, spec.factor, factory(student, teacher, **chosen)))
    if not parts:
        raise UserError(f"no distillation method is given: choose one of {', '.join(METHODS)}")
    if unused:
        raise UserError(f"--{min(unused)}: {', '.join(name for name, _, _ in parts)} has no such option")
    _, factor, method = parts[0]
    return method if len(parts) == 1 and factor == 1 else Combined(parts)
