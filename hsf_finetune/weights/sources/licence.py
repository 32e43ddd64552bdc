"""Licences of named weights whose conditions have to be accepted once."""

from __future__ import annotations

from hsf_finetune.config.settings import NamedWeights
from hsf_finetune.system.atomic_files import cache_folder
from hsf_finetune.system.errors import ConfigError


def require_acceptance(name: str, named: NamedWeights, accepted: bool) -> None:
    """Refuses weights whose conditions nobody has accepted; notes an acceptance in the cache.

    Raises:
        ConfigError: the licence has conditions, and they are not accepted.
    """
    if not named.conditions:
        return
    note = cache_folder() / "accepted_licences" / f"{name}.txt"
    terms = "\n".join([named.licence, *named.conditions])
    if note.is_file() and note.read_text(encoding="utf-8") == terms:
        return
    if not accepted:
        raise ConfigError(
            f"the licence of the weights '{name}' has conditions, which have to be accepted once",
            found=terms,
            expected=f"weights that you may use so: see {named.source}",
            fix="weights.accept_licence=true, if you accept them; this is kept for later runs",
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(terms, encoding="utf-8")
