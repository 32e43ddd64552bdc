"""Lets nnU-Net v1 write a model with random weights and its logits; run in its environment.

    python run_nnunet_v1.py FOLDER

It writes FOLDER/model, a results folder, and FOLDER/logits.npz, for one input.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import torch
from nnunet.training.network_training.nnUNetTrainerV2 import nnUNetTrainerV2

ROOT = Path(sys.argv[1])
STAGE = {
    "batch_size": 2,
    "num_pool_per_axis": [1, 2, 3],
    "patch_size": np.array([16, 32, 32]),
    "current_spacing": np.array([3.0, 1.0, 0.8]),
    "original_spacing": np.array([3.0, 1.0, 0.8]),
    "median_patient_size_in_voxels": np.array([16, 32, 32]),
    "do_dummy_2D_data_aug": False,
    "pool_op_kernel_sizes": [[1, 1, 2], [1, 2, 2], [2, 2, 2]],
    "conv_kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3]],
}
PLANS = {
    "num_stages": 1,
    "num_modalities": 1,
    "modalities": {0: "T1"},
    "normalization_schemes": {0: "nonCT"},
    "use_mask_for_norm": {0: False},
    "dataset_properties": {"intensityproperties": None, "all_classes": [1, 2]},
    "num_classes": 2,
    "all_classes": [1, 2],
    "base_num_features": 4,
    "keep_only_largest_region": None,
    "min_region_size_per_class": None,
    "min_size_per_class": None,
    "transpose_forward": [1, 0, 2],
    "transpose_backward": [1, 0, 2],
    "data_identifier": "nnUNetData_plans_v2.1",
    "preprocessed_data_folder": "/data/Task001_Phantoms",
    "plans_per_stage": {0: STAGE},
    "preprocessor_name": "GenericPreprocessor",
    "conv_per_stage": 2,
}

if __name__ == "__main__":
    torch.manual_seed(0)
    fold = ROOT / "model" / "fold_0"
    fold.mkdir(parents=True)
    (ROOT / "model" / "plans.pkl").write_bytes(pickle.dumps(PLANS))
    plans, model = str(ROOT / "model" / "plans.pkl"), str(ROOT / "model")
    trainer = nnUNetTrainerV2(plans, 0, model, str(ROOT), fp16=False)
    trainer.initialize(False)
    trainer.save_checkpoint(str(fold / "model_final_checkpoint.model"), save_optimizer=False)
    network = trainer.network.cpu().eval()
    network.final_nonlin = lambda x: x
    network.do_ds = False
    image = torch.randn(1, 1, 16, 32, 32)
    with torch.no_grad():
        logits = network(image)
    np.savez(ROOT / "logits.npz", image=image.numpy(), logits=logits.numpy())
