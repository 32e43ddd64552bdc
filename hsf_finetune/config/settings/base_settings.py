"""What all groups of settings share: bounds, and what is an error."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Whole = Annotated[int, Field(ge=1)]
Size = Whole | Annotated[list[Whole], Field(min_length=3, max_length=3)]
"""One number for the three axes, or one for each."""
Norm = Literal["instance", "instance_plain", "batch", "group"]
"""Normalisation with learnt gain and offset, which `instance_plain` goes without."""
Activation = Literal["prelu", "relu", "leakyrelu", "gelu", "elu"]
Text = Annotated[str, Field(coerce_numbers_to_str=True)]
"""A text that YAML may have read as a number, such as a class called 123."""


def as_text(value: object) -> object:
    """A number that YAML made of a text, such as 123, as text again; anything else as it is."""
    return str(value) if isinstance(value, int) else value


def as_list(value: object) -> object:
    """A single text, or None, as the list of it."""
    return [value] if isinstance(value, str) else value or []


def as_switch(value: object) -> object:
    """`on` and `off`, which YAML reads as booleans, as texts again; anything else as it is."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class Group(BaseModel):
    """A group of settings: immutable, numbers are finite, and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )
