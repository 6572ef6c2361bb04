"""`kava profile`: where the time of a distillation step goes, and whether its shapes fit."""

from kava.profile.command import larger_teacher, main, profile_step

__all__ = ["larger_teacher", "main", "profile_step"]
