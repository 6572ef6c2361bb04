"""Reading texts with a teacher once, and writing what it leaves behind into a store."""

from typing import TYPE_CHECKING

from kava.lazy import lazy_names

if TYPE_CHECKING:
    from kava.extract.extractor import TeacherKVExtractor, extract_from_dataset

__all__ = ["TeacherKVExtractor", "extract_from_dataset"]

__getattr__ = lazy_names(
    __name__,
    {
        "TeacherKVExtractor": "kava.extract.extractor",
        "extract_from_dataset": "kava.extract.extractor",
    },
)
