"""Turn off the progress bars and notices of libraries in commands."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Silence the output of transformers, the hub, tokenizers and bitsandbytes.

    Errors are still raised as exceptions.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # optional kernels that are missing
    import huggingface_hub
    import transformers

    # an unreachable hub is reported once, as an error, and not at every retry
    huggingface_hub.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
