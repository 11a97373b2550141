"""Distillation methods, how they are named and combined, and the tasks that the training loop runs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from distillation.specs import MethodSpec, Option, format_option, option_types, read_factor, read_options, split_spec
from utils.errors import UserError
from utils.registry import lookup, match_name, normalise_name

if TYPE_CHECKING:
    from distillation.method import Method
    from networks.contract import Channels

METHODS: dict[str, str] = {
    "hlfd": "distillation.methods.hlfd:HLFD",
    "ifd": "distillation.methods.hlfd:IFD",
    "hifd": "distillation.methods.hlfd:HIFD",
    "deep": "distillation.methods.hlfd:Deep",
    "skd": "distillation.methods.hlfd:SKD",
    "hlfd_published": "distillation.methods.hlfd_published:HLFDPublished",
    "kd": "distillation.methods.kd:KD",
    "kd_soft": "distillation.methods.kd:SoftKD",
    "dkd": "distillation.methods.dkd:DecoupledKD",
    "dist": "distillation.methods.dist:DIST",
    "lskd": "distillation.methods.lskd:StandardisedKD",
    "dice_semimetric": "distillation.methods.dice_semimetric:DiceSemimetric",
    "cwd": "distillation.methods.cwd:ChannelWise",
    "cwd_features": "distillation.methods.cwd:ChannelWiseFeatures",
    "fitnet": "distillation.methods.fitnet:FitNet",
    "canonical": "distillation.methods.canonical:Canonical",
    "at": "distillation.methods.at:AT",
    "at_paper": "distillation.methods.at_paper:AttentionTransfer",
    "ofd": "distillation.methods.ofd:OFD",
    "reviewkd": "distillation.methods.reviewkd:ReviewKD",
    "mgd": "distillation.methods.mgd:MGD",
    "vid": "distillation.methods.vid:VID",
    "ickd": "distillation.methods.ickd:ICKD",
    "sp": "distillation.methods.sp:SP",
    "skd_pairwise": "distillation.methods.skd_pairwise:PairWise",
    "rkd": "distillation.methods.rkd:RKD",
    "ifvd": "distillation.methods.ifvd:IFVD",
    "dsd": "distillation.methods.dsd:DSD",
    "cirkd_minibatch": "distillation.methods.cirkd:MiniBatch",
    "cirkd": "distillation.methods.cirkd:CIRKD",
    "ktaad": "distillation.methods.ktaad:KTAAD",
    "skd_holistic": "distillation.methods.skd_holistic:Holistic",
    "emkd": "distillation.methods.emkd:EMKD",
    "hilbert": "distillation.methods.hilbert:Hilbert",
    "prototypes": "distillation.methods.prototypes:Prototypes",
}

ALIASES: dict[str, str] = {
    "best": "dice_semimetric",
    "hlfd_paper": "hlfd",
    "recursive_feedback_ours": "hlfd",
    "cat_feedback_ours": "ifd",
    "indv_feedback": "hifd",
    "deep_kd": "deep",
    "wo_feedback": "skd",
    "attn_kd": "at",
}
"""Other names: the best recipe so far (by validation cases: docs/results/liver.md), and those of published code."""


def parse_method(text: str) -> MethodSpec:
    """The method that a text such as `hlfd`, `best:2` or `my.module:MyMethod:0.5,weight=2` means.

    Names are those of `METHODS` and `ALIASES`, forgivingly spelt, or `package.module:Class`, which is imported: so
    give this what a user typed, never what a file says. UserError for anything else.
    """
    return parse_methods([text])[0]


def parse_methods(texts: Sequence[str], **shared: Option | None) -> tuple[MethodSpec, ...]:
    """`parse_method` of each.

    shared: options, such as temperature, for every method that has them and whose text does not set them; None is not
    given. UserError if no method has one, for a method given twice, and if there is none.
    """
    given = {key: format_option(value) for key, value in shared.items() if value is not None}
    specs: dict[str, MethodSpec] = {}
    unused = set(given)
    for text in texts:
        name, factor, own = _split_method(text)
        types = option_types(_method_class(name, text))
        unused -= types.keys()
        chosen = read_options(name, {key: value for key, value in given.items() if key in types} | own, types)
        values = {key: chosen.get(key, option.default) for key, option in types.items()}
        changed = tuple(key for key, option in types.items() if values[key] != option.default)
        spec = MethodSpec(name, factor, tuple(values.items()), changed)
        if spec.label in specs:
            raise UserError(f"distillation method {spec.label} is given twice: give it once, with its weight")
        specs[spec.label] = spec
    if not specs:
        raise UserError(f"no distillation method is given: choose one of {', '.join(METHODS)}")
    if unused:
        raise UserError(f"--{min(unused)}: {', '.join(spec.name for spec in specs.values())} has no such option")
    return tuple(specs.values())


def _split_method(text: str) -> tuple[str, float, dict[str, str]]:
    """(name in `METHODS` or `package.module:Class`, factor, options as texts); an alias is resolved."""
    head, options = split_spec(text)
    name, *factors = head.split(":")
    exact_names = {normalise_name(exact): exact for exact in (*METHODS, *ALIASES)}
    exact = exact_names.get(normalise_name(name))
    if exact is None and factors and factors[0].isidentifier() and all(map(str.isidentifier, name.split("."))):
        exact = f"{name}:{factors.pop(0)}"
    if len(factors) > 1:
        raise UserError(f"{text}: one weight follows the name, as in at:3.0")
    factor = read_factor(text, factors[0]) if factors else 1.0
    if exact in ALIASES:
        exact, alias_factor, alias_options = _split_method(ALIASES[exact])
        factor, options = factor * alias_factor, alias_options | options
    return exact or match_name("distillation method", name, METHODS), factor, options


def _method_class(name: str, text: str) -> type[Method]:
    """The class of a name that `_split_method` gave, imported now; UserError if there is none."""
    if name in METHODS:
        found: type[Method] = lookup(METHODS, "distillation method", name)
        return found
    from distillation.method import Method

    module, _, class_name = name.partition(":")
    try:
        method = getattr(import_module(module), class_name, None)
    except ImportError as error:
        raise UserError(
            f"{text}: {module} cannot be imported ({error}); give a name of --list_methods, or package.module:Class"
        ) from None
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise UserError(f"{text}: {module} has no class {class_name} that is a distillation.method.Method")
    return method


def build_method(specs: Sequence[MethodSpec], student: Channels, teacher: Channels) -> Method:
    """The method, or the weighted sum of several, between networks of these channels.

    UserError for a method that needs more than the probabilities of a teacher that has nothing else, or blocks of
    slices where the teacher sees single ones.
    """
    from distillation.method import REASONS, Combined

    parts = []
    for spec in specs:
        method_class = _method_class(spec.name, str(spec))
        if not teacher.has_stages and method_class.needs != "probabilities":
            raise UserError(
                f"{spec}: {REASONS[method_class.needs]}; choose one of {', '.join(methods_for_answers())}, or give the "
                "teacher's checkpoint with --tckpt in place of --teacher_probabilities"
            )
        if not suits(spec, teacher):
            raise UserError(
                f"{spec.label} compares blocks of slices, and this teacher sees single slices; train a volumetric "
                "teacher with train.py --model segresnet3d, or choose another method"
            )
        parts.append((spec.label, spec.factor, method_class(student, teacher, **dict(spec.options))))
    _, factor, method = parts[0]
    return method if len(parts) == 1 and factor == 1 else Combined(student, teacher, parts)


def methods_for_answers() -> list[str]:
    """The methods that learn from class probabilities alone, as they are on disk."""
    return [name for name in METHODS if _method_class(name, name).needs == "probabilities"]


def suits(spec: MethodSpec, teacher: Channels) -> bool:
    """Whether a teacher sees blocks of slices, where the method compares these."""
    return bool(teacher.block) or not _method_class(spec.name, str(spec)).volumetric


def describe_methods() -> str:
    """Every method with its options, their defaults, and what it is; then the other names."""
    lines = []
    for name in METHODS:
        method = _method_class(name, name)
        lines.append(f"{name:<16} {(method.__doc__ or '').splitlines()[0]}")
        options = [f"{key}={format_option(option.default)}" for key, option in option_types(method).items()]
        if options:
            lines.append(f"{'':<16} {' '.join(options)}")
    lines += [f"{alias:<16} the same as {meaning}" for alias, meaning in ALIASES.items()]
    return "\n".join(lines)
