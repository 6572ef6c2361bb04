"""Commands show their own output: the libraries' bars and notes are turned off."""

from __future__ import annotations

import os
import warnings


def quiet_libraries() -> None:
    """Silence what transformers, the hub and tokenizers print on their own account.

    Errors still come through, as exceptions.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import huggingface_hub
    import transformers

    # a hub that cannot be reached is reported once, as an error, and not at each of its retries
    huggingface_hub.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
