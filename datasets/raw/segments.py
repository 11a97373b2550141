"""What DICOM calls the labels of the data sets: SNOMED CT codes, names and colours, from one table.

Names that the table does not know, as a user's own in a list, get a private code, which DICOM allows under a scheme
that begins with 99: the segmentation can be written and read back, and viewers show its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.labels import LabelMap, plain_name
from utils.errors import UserError
from utils.fingerprint import fingerprint

MAKER = "distilling kidney and liver tumour segmentation"
"""Of the SEGs that are written: the manufacturer, by which they are known again."""

SNOMED, PRIVATE = "SCT", "99HLFD"
ANATOMY, ABNORMAL = "91723000", "49755003"
CATEGORIES = {ANATOMY: "Anatomical Structure", ABNORMAL: "Morphologically Abnormal Structure"}
PRIVATE_COLOUR = (128, 174, 128)
# In characters, of DICOM's short and long strings.
LONGEST_CODE, LONGEST_NAME = 16, 64


@dataclass(frozen=True)
class SegmentCode:
    """One kind of segment. name: in viewers; colour: RGB; region: the organ in which an abnormal structure lies."""

    name: str
    value: str
    meaning: str
    colour: tuple[int, int, int]
    category: str = ANATOMY
    scheme: str = SNOMED
    region: SegmentCode | None = None


_ORGANS = (
    SegmentCode("kidney", "64033007", "Kidney", (185, 102, 83)),
    SegmentCode("liver", "10200004", "Liver", (221, 130, 101)),
    SegmentCode("heart", "80891009", "Heart", (206, 110, 84)),
    SegmentCode("left atrium", "82471001", "Left atrium", (186, 77, 64)),
    SegmentCode("left ventricle", "87878005", "Left ventricle", (152, 55, 13)),
    SegmentCode("right ventricle", "53085002", "Right ventricle", (181, 85, 57)),
    SegmentCode("myocardium", "49848007", "Myocardium of left ventricle", (225, 157, 90)),
    SegmentCode("spleen", "78961009", "Spleen", (157, 108, 162)),
    SegmentCode("pancreas", "15776009", "Pancreas", (249, 180, 111)),
    SegmentCode("lung", "39607008", "Lung", (197, 165, 145)),
    SegmentCode("prostate", "41216001", "Prostate", (230, 158, 140)),
    SegmentCode("colon", "71854001", "Colon", (204, 168, 143)),
    SegmentCode("gallbladder", "28231008", "Gallbladder", (139, 150, 98)),
    SegmentCode("stomach", "69695003", "Stomach", (216, 132, 105)),
    SegmentCode("aorta", "15825003", "Aorta", (224, 97, 76)),
    SegmentCode("adrenal gland", "23451007", "Adrenal gland", (244, 186, 150)),
    SegmentCode("bladder", "89837001", "Urinary bladder", (222, 154, 132)),
    SegmentCode("brain", "12738006", "Brain", (250, 250, 225)),
)
_LESIONS = (
    SegmentCode("tumor", "108369006", "Neoplasm", (255, 214, 10), ABNORMAL),
    SegmentCode("cyst", "367643001", "Cyst", (80, 160, 255), ABNORMAL),
    SegmentCode("lesion", "52988006", "Lesion", (255, 214, 10), ABNORMAL),
)
CODES = {plain_name(code.name): code for code in (*_ORGANS, *_LESIONS)}
OTHER_NAMES = {
    "tumour": "tumor",
    "neoplasm": "tumor",
    "cancer": "tumor",
    "rv": "right_ventricle",
    "lv": "left_ventricle",
    "myo": "myocardium",
    "atrium": "left_atrium",
}
# What `organ` is; a data set that is not here has no organ of its own.
ORGANS = {"kits": "kidney", "lits": "liver", "heart": "left_atrium"}


def segment_code(dataset: str, name: str, others: Iterable[str] = ()) -> SegmentCode:
    """The code of a label's name in a data set; others: the names beside it, among which an organ is a lesion's region.

    "Kidney tumour" is the tumour of the table, with the kidney as its region.
    """
    plain = plain_name(name)
    code = _lookup(dataset, plain)
    organ, _, lesion = plain.rpartition("_")
    if code is None and (within := _lookup(dataset, lesion)) in _LESIONS and _lookup(dataset, organ) in _ORGANS:
        code, others = within, [organ]
    if code is None:
        value = plain.upper() if len(plain) <= LONGEST_CODE and plain.isascii() else fingerprint([plain])
        return SegmentCode(name[:LONGEST_NAME], value, name[:LONGEST_NAME], PRIVATE_COLOUR, scheme=PRIVATE)
    if code.category != ABNORMAL:
        return code
    organs = {each for other in (*others, "organ") if (each := _lookup(dataset, plain_name(other))) in _ORGANS}
    if len(organs) != 1:
        return code
    (region,) = organs
    assert region is not None
    return replace(code, name=f"{region.name} {code.name}", region=region)


def segments_of(dataset: str, label_map: LabelMap) -> dict[int, SegmentCode]:
    """The source label that is written for each class -> its code."""
    names = [_name_of(index, label_map) for index in range(1, label_map.num_classes)]
    return {labels[0]: segment_code(dataset, name, names) for name, labels in zip(names, label_map.labels, strict=True)}


def match_segments(
    segments: Mapping[int, tuple[str, str, str]], codes: Mapping[int, SegmentCode], path: Path
) -> dict[int, int]:
    """Segment number -> source label; UserError, with the file's path, for a segment that is none of them.

    segments: number -> scheme, code value and name; codes: of the source labels. The code decides, else the name: many
    programs call every segment tissue. A label that is only called `organ` is any organ.
    """
    labels = {(code.scheme, code.value): label for label, code in codes.items()}
    organs = {(organ.scheme, organ.value): labels.get((PRIVATE, "ORGAN")) for organ in _ORGANS}
    matched = {}
    for number, (scheme, value, name) in segments.items():
        named = segment_code("", name)
        keys = ((scheme, value), (named.scheme, named.value))
        found = [each for known in (labels, organs) for key in keys if (each := known.get(key)) is not None]
        if not found:
            expected = ", ".join(f"{code.name} ({code.scheme} {code.value})" for code in codes.values())
            raise UserError(f"{path}: holds the segment {name!r} ({scheme} {value}); expected only {expected}")
        matched[number] = found[0]
    return matched


def _name_of(index: int, label_map: LabelMap) -> str:
    """Of a class; where an organ includes its lesions, the rest of it has no name of its own, and gets the organ's."""
    name = label_map.classes[index - 1]
    regions = [region for region, indices in label_map.regions.items() if indices[0] == index]
    return regions[0] if name.startswith("label_") and regions else name


def _lookup(dataset: str, plain: str) -> SegmentCode | None:
    plain = ORGANS.get(dataset, plain) if plain == "organ" else plain
    return CODES.get(OTHER_NAMES.get(plain, plain))
