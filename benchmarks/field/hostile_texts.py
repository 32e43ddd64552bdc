"""Texts made to do harm: YAML, JSON, tables, names, and values of the environment."""

from __future__ import annotations

import json
from collections.abc import Iterator

from field.hostile import MARK, measured, tried
from field.workbench import Attempt, Workbench, judge, kind, phantom, save


@kind("YAML, JSON and tables that are hostile")
def texts(bench: Workbench) -> Iterator[Attempt]:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    deep = "datasets: " + "[" * 5000 + "]" * 5000 + "\n"
    for name, text in (
        ("alias bomb", bomb),
        (
            "alias bomb below datasets",
            "datasets:\n  mine:\n" + "".join(f"    {line}\n" for line in bomb.splitlines()),
        ),
        (
            "merge bomb",
            "b0: &b0 {x: 1}\n"
            + "".join(
                f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}'] * 10)}], k{n}: 1}}\n"
                for n in range(1, 9)
            ),
        ),
        ("5,000 brackets", deep),
        ("recursive alias", "datasets: &a\n  mine: *a\n"),
        ("python object", f"datasets: !!python/object/apply:os.system ['touch {MARK}']\n"),
        ("100,000 keys", "".join(f"k{n}: {n}\n" for n in range(100_000))),
        ("10 MB of one word", "main_path: " + "x" * 10_000_000 + "\n"),
        ("binary", "\x00\x01\x02"),
        ("duplicate keys", "main_path: a\nmain_path: b\n"),
        ("interpolation of itself", "main_path: ${datasets.main_path}\n"),
        ("a number of 10,000 digits", "batch_size: " + "9" * 10_000 + "\n"),
    ):
        data = bench.cohort(3)
        given = bench.overrides(data)
        (data / "conf" / "datasets" / "mine.yaml").write_bytes(text.encode())
        yield tried(name, ["check", *given], data, 2)
    for name, header, lines in (
        (
            "100,000 columns",
            ",".join(["image", "label", *(f"c{n}" for n in range(100_000))]),
            ["images/case0.nii.gz,labels/case0.nii.gz" + "," * 100_000],
        ),
        (
            "100,000 columns called image",
            ",".join(["image", "label", *(f"image{n}" for n in range(2, 100_000))]),
            ["images/case0.nii.gz,labels/case0.nii.gz" + "," * 99_998],
        ),
        ("100,000 lines", "image,label", ["images/case0.nii.gz,labels/case0.nii.gz"] * 100_000),
        ("one quoted field of 50 MB", "image,label", ['"' + "x" * 50_000_000]),
        ("paths outside", "image,label", ["../../../etc/passwd,/etc/shadow"] * 3),
        ("NUL bytes", "image,label", ["images/\0case0.nii.gz,x"]),
    ):
        data = bench.cohort(3)
        (data / "table.csv").write_text("\n".join([header, *lines]) + "\n")
        keys = {"table": "table.csv", "patterns": "{}"}
        yield tried(f"table of {name}", ["check", *bench.overrides(data, **keys)], data, 2)
    for name, text in (
        ("deep", "[" * 200_000),
        ("huge numbers", json.dumps({"labels": {"a": 10**400}})),
        ("100,000 labels", json.dumps({"labels": {f"c{n}": n for n in range(100_000)}})),
        ("not a mapping", "[1, 2]"),
        ("labels as text", json.dumps({"labels": "x" * 1_000_000})),
        ("NaN", '{"labels": {"a": NaN, "b": Infinity}}'),
    ):
        folder = bench.folder() / "d"
        for number in range(3):
            image, label = phantom(number)
            save(folder / "imagesTr" / f"c{number}_0000.nii.gz", image)
            save(folder / "labelsTr" / f"c{number}.nii.gz", label)
        (folder / "dataset.json").write_text(text)
        output = folder.parent / "conf" / "datasets" / "x.yaml"
        yield tried(f"dataset.json, {name}", ["init", folder, "-o", output], folder.parent)


@kind("names with control characters, paths and formulas")
def names(bench: Workbench) -> Iterator[Attempt]:
    escape = "\x1b]0;owned\x07\x1b[2J\x1b[31m"
    for name in (
        escape,
        "a\nb",
        "a\rb",
        "\u202egnp",
        "../../outside",
        "=1+1",
        "x" * 200,
        "\udce9",
        "-rf",
        "a\u2028b",
        "\x9b31m",
    ):
        for place in ("file", "class", "dataset", "folder"):
            base = bench.folder()
            data = base / "x" / "y"
            shown = name.replace("/", "_") if place in ("file", "folder") else name
            below = data / shown if place == "folder" else data
            for number in range(3):
                image, label = phantom(number)
                stem = f"{shown}{number}" if place == "file" else f"case{number}"
                try:
                    save(below / "images" / f"{stem}.nii.gz", image)
                    save(below / "labels" / f"{stem}.nii.gz", label)
                except (OSError, UnicodeEncodeError):
                    break
            if place in ("file", "folder"):
                arguments: list[object] = [
                    "init",
                    data,
                    "-o",
                    data / "conf" / "datasets" / "mine.yaml",
                ]
            else:
                arguments = ["check", *bench.overrides(data)]
                quoted = json.dumps(name, ensure_ascii=True)
                file = data / "conf" / "datasets" / "mine.yaml"
                text = file.read_text()
                text = (
                    text.replace("1: anterior", f"1: {quoted}")
                    if place == "class"
                    else text.replace("  mine:", f"  {quoted}:")
                )
                file.write_text(text)
            attempt = tried(f"{place} {name[:20]!r}", arguments, data)
            outside = [p for p in (*base.glob("*"), *base.glob("x/*")) if p not in data.parents]
            outside = [p for p in outside if p != data]
            yield Attempt(attempt.name, "wrong", f"wrote {outside}") if outside else attempt


@kind("values of the environment in files that are shared")
def secrets(bench: Workbench) -> Iterator[Attempt]:
    for place in ("a path that exists", "name", "labels_names", "datasets.main_path", "note"):
        data = bench.cohort(4)
        given = bench.overrides(data, "lightning.max_epochs=1", "report=on")
        file = data / "conf" / "datasets" / "mine.yaml"
        text = file.read_text()
        if place == "labels_names":
            text = text.replace("1: anterior", '1: "${oc.env:SECRET_TOKEN}"')
        elif place == "note":
            text += "    exclude: ['${oc.env:SECRET_TOKEN}']\n"
        file.write_text(text)
        if place == "a path that exists":
            given.append("datasets.cache_dir=${oc.env:FOLDER}")
        if place == "name":
            given.append("name=${oc.env:SECRET_TOKEN}")
        if place == "datasets.main_path":
            (data / "hush-hush").symlink_to(data, target_is_directory=True)
            given = [g for g in given if not g.startswith("datasets.main_path=")]
            given.append(f"datasets.main_path={data}/${{oc.env:SECRET_TOKEN}}")
        for command in ("check", "train"):
            answer, over = measured([command, *given], data)
            leaked = [
                p.name
                for p in (data / "outputs").rglob("*")
                if p.is_file() and b"hush-hush" in p.read_bytes()
            ]
            note = ", ".join(filter(None, [over, *leaked]))
            name = f"{place}, {command}"
            yield Attempt(name, "wrong", note) if note else judge(name, answer, answer.code == 0)
