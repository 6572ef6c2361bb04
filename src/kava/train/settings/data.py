"""Flags of `kava train`: the samples to train and evaluate on, and how their text is read."""

from __future__ import annotations

from dataclasses import dataclass

from kava.data_settings import DataConfig, Source, check_chat_template
from kava.dataset_names import check_dataset_name
from kava.flags import again, flag


@dataclass(kw_only=True)
class Samples(Source):
    """Which samples are trained and evaluated on."""

    eval_dataset_name: str | None = flag(
        None,
        "data to evaluate on; left out, eval_size samples are set apart from dataset_name",
        check=check_dataset_name,
    )
    eval_split: str = flag("test", "split of eval_dataset_name")
    subset_size: int | None = flag(None, "use this many training samples, taken at random", least=1)
    eval_size: int = flag(0, "evaluation samples; 0: no evaluation during training", least=0)
    streaming: bool = flag(
        False,
        "read and encode samples while training, without holding them: files, saved data sets, or "
        "a data set of the hub (owner/name); needs max_steps",
    )
    shuffle_buffer: int = flag(
        1000, "streaming: rows that are held and shuffled by the seed", least=1
    )


# a dataclass takes the fields of its last base first
@dataclass(kw_only=True)
class DataSettings(DataConfig, Samples):
    """Which samples are read, and how."""

    overflow: str = again(
        DataConfig,
        "overflow",
        "error",
        help="a sample that is too long, has fewer reasoning tokens than target_len, or whose "
        "segments are not found: error, or skip (counted and reported)",
    )
    keep_short: bool | None = flag(
        None,
        "keep samples with fewer reasoning tokens than target_len: all of their positions are "
        "kept, and their last latents are left without a target; also samples of a task without "
        "reasoning, whose answer alone is learned",
        unset="on where the problems of a built-in task differ in steps, else off",
    )
    teacher_chat_templates: list[str] | None = flag(
        None,
        "chat template of each teacher, in the values of chat_template: tokenizer is the teacher's "
        "own",
        check=check_chat_template,
        metavar="TEMPLATE",
        unset="that of chat_template",
    )
