"""`kava lm-eval`: lm-evaluation-harness with its model `kava` registered.

lm_eval finds models of other packages by their entry point (group `lm_eval.models`, which this
package declares) in the versions that look for it; 0.4.13, the newest that was released, does not
yet. This command takes lm_eval's own flags, registers the model and calls lm_eval.
"""

from __future__ import annotations

import sys

from kava.devices import check_device
from kava.quiet import quiet_libraries


def main(argv: list[str]) -> int:
    """Run lm_eval on its flags, as in `--model kava --model_args pretrained=outputs/run`.

    Raises:
        ValueError: lm_eval is not installed, or a --device that is not there.
    """
    quiet_libraries()
    device = _device_of(argv)
    if device is not None:
        check_device(device)
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


def _device_of(argv: list[str]) -> str | None:
    """What the flags name as the device; lm_eval itself names cuda:0 where they name none."""
    for word, following in zip(argv, [*argv[1:], None]):
        name, equals, value = word.partition("=")
        if name == "--device":
            return value if equals else following
    return None
