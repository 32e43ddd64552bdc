"""Codes of anatomical structures, which DICOM needs and 3D Slicer shows."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hsf_finetune.labels.laterality import without_side
from hsf_finetune.system.console import shorten_list
from hsf_finetune.system.errors import ConfigError


class Code(NamedTuple):
    """A term of a coding scheme, such as 5366008 of SCT (SNOMED CT)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class ClassCode:
    """What a class is.

    Args:
        type: the structure.
        category: anatomical, or morphologically abnormal.
        side: left or right, where the class is on one side.
    """

    type: Code
    category: Code
    side: Code | None


ANATOMICAL = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_SIDES = {"left": Code("7771000", "SCT", "Left"), "right": Code("24028007", "SCT", "Right")}

_SNOMED = """
5366008 Hippocampus: hippocampus, hippocampi, hip, hipp
3937002 Entorhinal Cortex: entorhinal cortex, entorhinal, erc, ec
4958002 Amygdala: amygdala
42695009 Thalamus: thalamus, thalamus proper
11000004 Caudate Nucleus: caudate, caudate nucleus
89278009 Putamen: putamen
14738005 Globus Pallidus: pallidum, globus pallidus
427667007 Nucleus Accumbens: accumbens, nucleus accumbens, accumbens area
12738006 Brain: brain
113305005 Cerebellum: cerebellum
119238007 Brain Stem: brainstem, brain stem
61962009 Midbrain: midbrain
40146001 Cerebral cortex: cortex, cerebral cortex
389080008 White Matter: white matter, wm
389081007 Gray Matter: gray matter, grey matter, gm
65216001 Cerebrospinal Fluid: csf, cerebrospinal fluid
66720007 Lateral Ventricle: lateral ventricle
49841001 Third ventricle: third ventricle
35918002 Fourth Ventricle: fourth ventricle
88442005 Corpus callosum: corpus callosum
70007007 Substantia nigra: substantia nigra
36169008 Insula: insula
2748008 Spinal cord: spinal cord
81745001 Eye: eye
18234004 optic nerve: optic nerve
10200004 Liver: liver
64033007 Kidney: kidney, kidneys
78961009 Spleen: spleen
15776009 Pancreas: pancreas
69695003 Stomach: stomach
28231008 Gallbladder: gallbladder, gall bladder
32849002 Esophagus: esophagus, oesophagus
38848004 Duodenum: duodenum
71854001 Colon: colon
30315005 Small intestine: small intestine, small bowel
34402009 Rectum: rectum
23451007 Adrenal gland: adrenal gland, adrenal
89837001 Bladder: bladder, urinary bladder
41216001 Prostate: prostate
35039007 Uterus: uterus
39607008 Lung: lung, lungs
44567001 Trachea: trachea
69748006 Thyroid: thyroid, thyroid gland
80891009 Heart: heart
87878005 Left ventricle: left ventricle
53085002 Right ventricle: right ventricle
82471001 Left atrium: left atrium
73829009 Right atrium: right atrium
15825003 Aorta: aorta
64131007 Inferior vena cava: inferior vena cava, postcava
32764006 Portal vein: portal vein
71341001 Femur: femur
91609006 Mandible: mandible
54735007 Sacrum: sacrum
51282000 Vertebra: vertebra, vertebrae
272673000 Bone: bone
71616004 Muscle: muscle
"""
"""Code, meaning, and names of classes; as in DICOM's own dictionary (PS3.16)."""
_ABNORMAL = """
108369006 Tumor: tumor, tumour, neoplasm
52988006 Lesion: lesion, lesions
79654002 Edema: edema, oedema
6574001 Necrosis: necrosis
367643001 Cyst: cyst
50960005 Hemorrhage: hemorrhage, haemorrhage
"""
_UBERON = """
UBERON:0003881 CA1 field of hippocampus: ca1
UBERON:0003882 CA2 field of hippocampus: ca2
UBERON:0003883 CA3 field of hippocampus: ca3
UBERON:0003884 CA4 field of hippocampus: ca4
UBERON:0001885 dentate gyrus of hippocampal formation: dg, dentate gyrus, gd
UBERON:0002191 subiculum: sub, subiculum
"""
"""Subfields, of which DICOM's dictionary has no SNOMED code."""

_COLUMNS = ("class", "code", "scheme", "meaning")
_EXAMPLE = "class,code,scheme,meaning\nCA1,UBERON:0003881,UBERON,CA1 field of hippocampus"


def find_codes(names: Sequence[str], file: Path | None = None) -> dict[str, ClassCode]:
    """The codes of the classes that have one, by the file, else by the package's own table.

    A class is looked up by its name, then by its name without its side (`CA1` for `left_CA1`).

    Args:
        names: of classes.
        file: CSV with the columns class, code, scheme and meaning, and if needed category:
            `abnormal` for lesions.

    Raises:
        ConfigError: the file is no such table.
    """
    given = _read_file(file) if file else {}
    tables = (given, _read_table())
    found: dict[str, ClassCode] = {}
    for name in names:
        plain, side = without_side(name)
        keys = (_fold(name), _fold(plain))
        hit = next(((key, table[key]) for table in tables for key in keys if key in table), None)
        if hit is not None:
            # "left ventricle" of the heart is one term.
            whole = hit[0] == keys[0] and hit[1][0].meaning.lower().startswith(side or "?")
            found[name] = ClassCode(*hit[1], _SIDES[side] if side and not whole else None)
    return found


def require_codes(names: Sequence[str], file: Path | None = None) -> dict[str, ClassCode]:
    """The codes of all classes.

    Raises:
        ConfigError: as `find_codes`; or classes have none.
    """
    found = find_codes(names, file)
    if missing := [name for name in names if name not in found]:
        raise ConfigError(
            "DICOM needs a code for each class, and none is known of some",
            file=file,
            found=shorten_list(missing),
            expected=f"--terminology FILE, a CSV such as\n{_EXAMPLE}",
            fix="look the codes up at browser.ihtsdotools.org (scheme SCT, SNOMED CT) or "
            "ebi.ac.uk/ols4 (scheme UBERON)",
        )
    return found


# -------------------------------------------------------------------- internals
def _fold(name: str) -> str:
    """A name as it is compared: letters and digits of its words, in lower case."""
    return "".join(char for char in name.casefold() if char.isalnum())


def _read_table() -> dict[str, tuple[Code, Code]]:
    found = {}
    for text, scheme, category in (
        (_SNOMED, "SCT", ANATOMICAL),
        (_ABNORMAL, "SCT", ABNORMAL),
        (_UBERON, "UBERON", ANATOMICAL),
    ):
        for line in text.strip().splitlines():
            term, names = line.rsplit(": ", 1)
            value, meaning = term.split(" ", 1)
            for name in names.split(", "):
                found[_fold(name)] = (Code(value, scheme, meaning), category)
    return found


def _read_file(file: Path) -> Mapping[str, tuple[Code, Code]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
        found = {}
        for row in rows:
            name, *code = (row[column].strip() for column in _COLUMNS)
            if not all(code):
                raise ValueError(f"the line of '{name}' has an empty cell")
            abnormal = (row.get("category") or "").strip().lower() == "abnormal"
            found[_fold(name)] = (Code(*code), ABNORMAL if abnormal else ANATOMICAL)
    except (OSError, ValueError, csv.Error, KeyError, AttributeError) as error:
        missing = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            "the terminology cannot be read",
            file=file,
            found=missing,
            expected=f"a CSV in UTF-8 such as\n{_EXAMPLE}",
        ) from error
    return found
