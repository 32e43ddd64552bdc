"""Names and meanings of labels: sides, sets, unannotated classes, spellings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from field.workbench import Attempt, Outcome, Workbench, judge, kind, phantom, run_command, save
from hsf_finetune.config.settings import AugmentationSettings
from hsf_finetune.data.augment.flips import SideEvidence, plan_flips
from hsf_finetune.labels.classes import ClassSpace

SIDES = (
    ("antL", "antR"), ("CA1L", "CA1R"), ("lHippocampus", "rHippocampus"), ("HippL", "HippR"), ("CA1_lt", "CA1_rt"),
    ("CA1_gauche", "CA1_droite"), ("hippocampe gauche", "hippocampe droit"), ("links", "rechts"), ("Hipp_li", "Hipp_re"),
    ("Left-CA1", "Right-CA1"), ("L_CA1", "R_CA1"), ("CA1 (L)", "CA1 (R)"), ("ctx-lh-x", "ctx-rh-x"), ("L.CA1", "R.CA1"),
    ("LCA1", "RCA1"), ("SUBL", "SUBR"), ("antl", "antr"), ("antLeft", "antRight"), ("lefthippo", "righthippo"), ("L", "R"),
    ("ippocampo sinistro", "ippocampo destro"), ("ippocampo sx", "ippocampo dx"), ("hipocampo izquierdo", "hipocampo derecho"),
    ("hipocampo_izq", "hipocampo_der"), ("hipocampo esquerdo", "hipocampo direito"), ("hippocampe_G", "hippocampe_D"),
    ("hipocampo_E", "hipocampo_D"), ("левый", "правый"), ("左海馬", "右海馬"), ("왼쪽 해마", "오른쪽 해마"), ("sol", "sağ"),
    ("vänster", "höger"), ("venstre", "høyre"), ("lewy", "prawy"), ("levá", "pravá"), ("lijevi", "desni"), ("kiri", "kanan"),
    ("vasen", "oikea"), ("αριστερά", "δεξιά"), ("يسار", "يمين"), ("bal", "jobb"), ("stâng", "drept"), ("trái", "phải"),
    ("CA2/3_L", "CA2/3_R"), ("1L", "1R"), ("lh.CA1", "rh.CA1"), ("CA1_lft", "CA1_rgt"), ("hippocampus_sin", "hippocampus_dext"),
    ("izda", "dcha"), ("hippocampe_gche", "hippocampe_dte"), ("tail_sn", "tail_dx"), ("vlevo", "vpravo"), ("ліва", "права"),
    ("שמאל", "ימין"), ("چپ", "راست"), ("ซ้าย", "ขวา"), ("बायाँ", "दायाँ"), ("kairė", "dešinė"), ("vasak", "parem"),
)  # fmt: skip
NO_SIDES = (
    ("SL", "SR"),
    ("layer_c", "layer_d"),
    ("anterior", "posterior"),
    ("CA1", "CA2"),
    ("led", "red"),
)


@kind("laterality")
def laterality(bench: Workbench) -> Iterator[Attempt]:
    """Classes of two sides are exchanged by flips, or nothing is flipped, and this is printed."""
    settings = AugmentationSettings()
    for pair in (*SIDES, *NO_SIDES):
        both = frozenset({pair, pair[::-1]})
        beside = SideEvidence(frozenset({pair}), both)
        seen = beside if pair in SIDES else SideEvidence(together=both)
        plan = plan_flips(settings, ClassSpace(("background", *pair)), seen)
        exchanged = plan.partners == (0, 2, 1)
        right = exchanged if pair in SIDES else plan.allowed and not exchanged
        outcome: Outcome = "right" if right else "refused" if not plan.allowed else "wrong"
        yield Attempt(" and ".join(pair), outcome, plan.remark)
    for names, axis, words in (
        (("antL", "antR"), 0, "on; they exchange antL and antR"),
        (("one", "other"), 0, "off"),
        (("front", "back"), 1, "on; no class has a side"),
        (("SUBL", "SUBR"), 0, "on; they exchange SUBL and SUBR"),
    ):
        data = bench.folder()
        for number in range(4):
            image, label = phantom(number)
            mask = (label > 0).astype(np.uint8)
            both_sides = np.concatenate([mask, 2 * mask], axis=axis)
            save(data / "images" / f"c{number}.nii.gz", np.concatenate([image, image], axis=axis))
            save(data / "labels" / f"c{number}.nii.gz", both_sides)
        listed = f"{{1: {names[0]}, 2: {names[1]}}}"
        answer = bench.train(data, "augmentation=mri", epochs=1, labels_names=listed)
        yield judge(" and ".join(names), answer, answer.says(f"left-right flips: {words}"))


@kind("a class that is drawn and unannotated")
def unannotated(bench: Workbench) -> Iterator[Attempt]:
    for given in ("[anterior]", "[posterior]", "[anterior, posterior]", "anterior"):
        data = bench.cohort(4)
        for command in ("check", "plan", "train"):
            answer = run_command(command, *bench.overrides(data, unannotated=given))
            yield judge(f"{given}, {command}", answer, answer.code == 2 and answer.says("ignore"))


@kind("names that mean the same")
def similar(bench: Workbench) -> Iterator[Attempt]:
    for one, other, ca_type in (
        ("dg", "DG", None), ("CA23", "CA2/3", None), ("CA1 ", "CA1", None), ("sub", "SUB", None), ("CA-1", "CA1", None),
        ("L_CA1", "CA1_L", None), ("Left CA1", "L_CA1", None), ("ca_1", "CA1", None), ("Para-Sub", "parasub", None),
        ("R_HEAD", "CA1", "1/2/3"), ("head", "CA1", "1/2/3"), ("L_CA", "DG", "123"), ("Tail", "DG", "1/23"), ("HEAD_left", "CA1", "123"),
    ):  # fmt: skip
        data = bench.cohort(4)
        keys = {"labels_names": f"{{1: {one!r}, 2: {other!r}}}"}
        keys |= {"ca_type": repr(ca_type)} if ca_type else {}
        answer = run_command("check", *bench.overrides(data, **keys))
        warned = answer.code == 0 and answer.says(one.strip(), "class of its own")
        warned |= answer.code == 0 and answer.says("classes of their own")
        warned |= answer.code == 2 and answer.says("ca_type")
        yield judge(f"{one} beside {other}, ca_type {ca_type}", answer, warned)


@kind("classes that no cohort draws together")
def apart(bench: Workbench) -> Iterator[Attempt]:
    data, other = bench.cohort(4), bench.cohort(4, seed=20)
    overrides = bench.overrides(data, "lightning.max_epochs=1", "models.use_forgiving_loss=True")
    dataset = (
        "  {}:\n    path: {}\n    labels: {{{}: 1, {}: 0}}\n    labels_names: {{1: {}}}\n"
        "    unannotated: [{}]\n"
        "    patterns: {{a: {{mri: 'images/*.nii.gz', label: 'labels/*.nii.gz'}}}}\n"
    )
    (data / "conf" / "datasets" / "mine.yaml").write_text(
        "datasets:\n"
        + dataset.format("one", data, 1, 2, "anterior", "posterior")
        + dataset.format("two", other, 2, 1, "posterior", "anterior")
    )
    answer = run_command("train", *overrides)
    yield judge(
        "anterior here, posterior there",
        answer,
        answer.says("no dataset draws anterior beside posterior"),
    )


@kind("a schedule that max_epochs cuts")
def cut(bench: Workbench) -> Iterator[Attempt]:
    data = bench.cohort(4)
    for strategy in ("hsf", "progressive", "gradual"):
        for command in ("plan", "finetune", "compare"):
            options = [f"finetuning.pretrained={bench.model}", "lightning.max_epochs=2"]
            options += [f"finetuning={strategy}"] if command != "compare" else []
            if command == "compare" and strategy != "hsf":
                continue
            answer = run_command(command, *bench.overrides(data, *options))
            yield judge(
                f"{command} {strategy}", answer, answer.says("never train") or answer.code == 2
            )
