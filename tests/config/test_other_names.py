"""Settings that go by the names PyTorch Connectomics has for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import FinetuningSettings
from hsf_finetune.system.errors import ConfigError

OTHER = ("finetuning.external_weights_path=", "finetuning.external_weights_key_prefix=")


@pytest.mark.parametrize("plus", ["", "++"])
def test_they_mean_ours(plus: str, tmp_path: Path) -> None:
    weights = tmp_path / "a.pt"
    given = [f"{plus}{OTHER[0]}{weights}", f"{plus}{OTHER[1]}model."]
    tuning = compose("finetune", given).finetuning
    assert (tuning.pretrained, tuning.key_prefix) == (str(weights), "model.")
    assert "external" not in str(tuning.model_dump())


def test_both_names_must_agree() -> None:
    both = FinetuningSettings.model_validate({"external_weights_path": "a", "pretrained": "a"})
    assert both.pretrained == "a"
    assert FinetuningSettings.model_validate({"external_weights_path": None}).pretrained is None
    with pytest.raises(ValidationError, match="external_weights_path=a contradicts pretrained=b"):
        FinetuningSettings.model_validate({"external_weights_path": "a", "pretrained": "b"})
    with pytest.raises(ConfigError, match="contradicts key_prefix=b"):
        compose("finetune", [f"{OTHER[1]}a", "finetuning.key_prefix=b"])


def test_a_name_like_them_is_none() -> None:
    with pytest.raises(ConfigError, match="no setting"):
        compose("finetune", ["finetuning.external_weights_paths=a"])


def test_an_empty_prefix_is_none() -> None:
    with pytest.raises(ConfigError, match="key_prefix"):
        compose("finetune", ["finetuning.key_prefix=''"])


def test_globals_to_trust_as_the_error_writes_them() -> None:
    line = "finetuning.trust=[numpy._core.multiarray.scalar,numpy.dtype]"
    trust = compose("finetune", [line]).finetuning.trust
    assert trust == ["numpy._core.multiarray.scalar", "numpy.dtype"]
