"""Models and tokenizers that a caller has in memory, under names that `kava.models.load` finds.

A run names its models, and everything that it checks and builds loads them by name. Objects that
were given in Python get names of their own (`kava.names.given`) for as long as the run is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class GivenObjects:
    """Models and tokenizers by name."""

    models: Mapping[str, PreTrainedModel] = field(default_factory=dict)
    tokenizers: Mapping[str, PreTrainedTokenizerBase] = field(default_factory=dict)


_NONE = GivenObjects()
_given: ContextVar[GivenObjects] = ContextVar("given", default=_NONE)


@contextmanager
def given_objects(objects: GivenObjects) -> Iterator[None]:
    """Have these models and tokenizers found by their names inside the block.

    Example:
        >>> with given_objects(GivenObjects(models={"mine (given in Python)": model})):
        ...     assert load_model("mine (given in Python)") is model
    """
    token = _given.set(objects)
    try:
        yield
    finally:
        _given.reset(token)


def given_model(name: str) -> PreTrainedModel | None:
    """The model that was given under a name; None if none was."""
    return _given.get().models.get(name)


def given_tokenizer(name: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer that was given under a name; None if none was."""
    return _given.get().tokenizers.get(name)
