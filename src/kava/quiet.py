"""Commands show their own output: the libraries' bars and notes are turned off."""

from __future__ import annotations

import os
import warnings


def quiet_libraries() -> None:
    """Silence what transformers, datasets and tokenizers print on their own account.

    Errors still come through, as exceptions.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
