"""The flags of `kava train`, one file for each heading of `kava train --help`."""

from kava.train.settings.every import Settings

__all__ = ["Settings"]
