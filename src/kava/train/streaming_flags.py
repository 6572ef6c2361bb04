"""Checks of `--streaming` against the flags that need the whole of the data."""

from __future__ import annotations

from kava.flags import flags_of
from kava.ranks import num_launched
from kava.train.settings import Settings


def check_streaming(config: Settings) -> None:
    """Check `--streaming` against the flags that need the whole of the data.

    Raises:
        ValueError: the first conflict; the message names the flags and the mend.
    """
    if not config.streaming:
        if config.shuffle_buffer != flags_of(type(config))["shuffle_buffer"].default:
            raise ValueError(
                f"--shuffle_buffer {config.shuffle_buffer} is read by --streaming alone: pass it "
                f"too, or leave this out"
            )
        return
    apart = config.eval_size > 0 and config.eval_dataset_name is None
    refused = {
        "--epochs counts passes over data of a known size": config.max_steps <= 0
        and "give --max_steps",
        "--subset_size draws from all samples": config.subset_size is not None
        and "leave it out; --max_steps says how many are read",
        f"--eval_size {config.eval_size} sets samples apart from the others": apart
        and "name an --eval_dataset_name, which is read whole",
        f"--eval_train_size {config.eval_train_size} takes samples evenly from all": bool(
            config.eval_train_size
        )
        and "leave it out",
        "--wrong_sample needs the sample before each": config.wrong_sample and "leave it out",
        "--store looks all samples up before training": bool(config.store) and "leave one out",
        "--teachers reads the texts of several": config.several and "name one --teacher_name",
        f"--kv_method {config.kv_method} scores all samples before training": config.kv_weight > 0
        and config.kv_method in ("knockout", "knockout_gradient")
        and "choose another method",
    }
    for why, mend in refused.items():
        if mend:
            raise ValueError(f"--streaming does not hold the data, and {why}: {mend}")
    if num_launched() > 1:
        raise ValueError(
            "--streaming reads one stream, and several processes train: leave it out, or train "
            "with one process"
        )
