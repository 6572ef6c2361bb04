"""Students: the latent student, and decoding for both kinds."""

from kava.student.config import LatentStudentConfig
from kava.student.latent import LatentOutput, LatentStudent

__all__ = ["LatentOutput", "LatentStudent", "LatentStudentConfig"]
