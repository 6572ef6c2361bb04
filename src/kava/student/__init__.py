"""Students: the latent student, and decoding for latent and explicit students."""

from typing import TYPE_CHECKING

from kava.lazy import lazy_names

if TYPE_CHECKING:
    from kava.student.config import LatentStudentConfig
    from kava.student.latent import LatentStudent
    from kava.student.passes import LatentOutput

__all__ = ["LatentOutput", "LatentStudent", "LatentStudentConfig"]

__getattr__ = lazy_names(
    __name__,
    {
        "LatentOutput": "kava.student.passes",
        "LatentStudent": "kava.student.latent",
        "LatentStudentConfig": "kava.student.config",
    },
)
