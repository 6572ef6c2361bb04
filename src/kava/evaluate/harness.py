"""`kava lm-eval`: lm-evaluation-harness with its model `kava` registered.

lm_eval finds models of other packages by their entry point (group `lm_eval.models`, which this
package declares) in the versions that look for it; 0.4.13, the newest that was released, does not
yet. This command takes lm_eval's own flags, registers the model and calls lm_eval.
"""

from __future__ import annotations

import sys

from kava.quiet import quiet_libraries


def main(argv: list[str]) -> int:
    """Run lm_eval on its flags, as in `--model kava --model_args pretrained=outputs/run`.

    Raises:
        ValueError: lm_eval is not installed.
    """
    quiet_libraries()
    try:
        from lm_eval.__main__ import cli_evaluate

        from kava.evaluate import harness_model  # noqa: F401 (registers the model)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "lm_eval":
            raise
        raise ValueError("lm-evaluation-harness is not installed: pip install lm_eval") from error
    before = sys.argv
    sys.argv = ["kava lm-eval", *(argv or ["--help"])]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
    return 0
