"""`kava profile`: where the time of a distillation step goes, and whether its shapes fit."""

from typing import TYPE_CHECKING

from kava.lazy import lazy_names

if TYPE_CHECKING:
    from kava.profile.step import larger_teacher, profile_step

__all__ = ["larger_teacher", "profile_step"]

__getattr__ = lazy_names(
    __name__,
    {"larger_teacher": "kava.profile.step", "profile_step": "kava.profile.step"},
)
