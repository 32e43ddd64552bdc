"""`preprocessing=nnunet` makes of scans what nnU-Net itself makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.load_case import load_case
from hsf_finetune.data.preprocessing.nnunet_rules import preprocessing_by_nnunet
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.networks.padding import padded_shape
from tests.data.writing import PROTOCOL
from tests.export.test_clients import environment, run

pytestmark = pytest.mark.clients


def test_scans_are_prepared_as_by_nnunet(tmp_path: Path) -> None:
    """Its planner and preprocessor, on isotropic and anisotropic MR and on CT."""
    script = Path(__file__).with_name("run_nnunet_preprocessor.py")
    run(environment("NNUNET") / "python", script, tmp_path)
    for file in sorted(tmp_path.glob("*/plan.json")):
        plan = json.loads(file.read_text())
        names = [f"case{number}" for number in range(4)]
        cases = [
            Case(
                name,
                name,
                "lab",
                (VolumeRef(file.parent / f"{name}_0000.nii.gz"),),
                VolumeRef(file.parent / f"{name}.nii.gz"),
                PROTOCOL,
            )
            for name in names
        ]
        how = preprocessing_by_nnunet(cases, [plan["channel"]])
        assert how.spacing_mm == pytest.approx(plan["spacing"])
        assert how.patch_vox is not None
        # As large as the median scan, and then a multiple of what each network halves.
        assert padded_shape(how.patch_vox, [int(n) for n in plan["divisor"]]) == tuple(
            plan["patch"]
        )
        for case in cases:
            image, label = np.load(file.parent / f"{case.name}.npy")
            sample = load_case(case, how)
            assert sample.label.shape == image.shape
            found, rows = sample.image[0].numpy(), sample.label.numpy()
            difference = float(np.abs(found - image).max())
            equal = float(np.mean(rows == label))
            print(f"{file.parent.name} {case.name}: {difference:.1e} at most, labels {equal:.4%}")
            assert difference < 2e-3 * np.ptp(image)
            assert equal > 0.999
