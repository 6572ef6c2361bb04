"""Students: the latent student, and decoding for latent and explicit students."""

from kava.student.config import LatentStudentConfig
from kava.student.latent import LatentStudent
from kava.student.passes import LatentOutput

__all__ = ["LatentOutput", "LatentStudent", "LatentStudentConfig"]
