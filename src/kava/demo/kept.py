"""Which of the reasoning tokens each eviction rule keeps, without training anything.

Shapes: N problems, R reasoning tokens, B batch, L layers, H heads, M kept positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kava.demo.arms import Arm

if TYPE_CHECKING:
    from torch import Tensor

    from kava.data.encoded import Encoded
    from kava.data.records import Record, Template
    from kava.train.config import TrainConfig

NUM_PROBLEMS = 200
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Kept:
    """What the rules keep.

    Attributes:
        tokens: the R reasoning tokens of each example problem.
        examples: rule → for each example, the share of layers and heads that keep each token.
        frequency: rule → the same, averaged over all problems.
        results: the places of the tokens that a step arrives at.
        num_problems: how many problems `frequency` is over.
        teacher: the teacher's own written answers: accuracy, num_items, forward_passes.
    """

    tokens: Sequence[Sequence[str]]
    examples: Mapping[str, Sequence[Sequence[float]]]
    frequency: Mapping[str, Sequence[float]]
    results: Sequence[int]
    num_problems: int
    teacher: Mapping[str, float]


def find_kept(arms: Sequence[Arm], config_of: Mapping[str, TrainConfig]) -> Kept:
    """Let the teacher read problems, and each rule choose among its positions.

    Args:
        arms: the rules.
        config_of: arm → the configuration of one of its runs, whose rule and data are used.
    """
    import torch

    from kava.data.collate import Collator
    from kava.data.encode import encode_records
    from kava.data.shell_game import oracle_positions, with_oracle_positions
    from kava.data.sources import default_template, load_records
    from kava.eviction import EVICTIONS, build_eviction
    from kava.models.capture import capture
    from kava.models.load import load_model, load_tokenizer
    from kava.train.target import eviction_options

    config = config_of[arms[0].name]
    assert config.teacher_name is not None
    tokenizer = load_tokenizer(config.model_name)
    template = default_template(config.dataset_name)
    records = load_records(config.dataset_name, split="test")[:NUM_PROBLEMS]
    encoded, _ = encode_records(records, tokenizer, template, config.max_length)
    results = oracle_positions(records[0], encoded[0])
    encoded = with_oracle_positions(records, encoded, config.target_len)
    pad = tokenizer.pad_token_id
    assert isinstance(pad, int)
    batch = Collator(pad)(encoded)
    teacher = load_model(config.teacher_name)
    with torch.no_grad():
        _, trace = capture(
            teacher,
            batch["input_ids"],
            batch["attention_mask"],
            batch["segment_ids"],
            queries=True,
        )
    start, stop = encoded[0].prompt_length, encoded[0].answer_start
    frequency, examples = {}, {}
    for arm in arms:
        options: dict[str, Any] = eviction_options(config_of[arm.name])
        if arm.name == "positions":
            options["positions"] = batch["positions"]
        if arm.name == "random":
            options["sample_ids"] = batch["ids"]
        method = config_of[arm.name].kv_method
        if EVICTIONS[method].needs_scores:
            options["scores"] = _scores(config_of[arm.name], teacher, encoded, records, template)
        _, indices_BLHM = build_eviction(method, **options)(trace, config.target_len)
        shares_NR = share_kept(indices_BLHM, trace.length)[:, start:stop]
        frequency[arm.name] = [round(x, 4) for x in shares_NR.mean(0).tolist()]
        examples[arm.name] = [
            [round(x, 4) for x in row] for row in shares_NR[:NUM_EXAMPLES].tolist()
        ]
    return Kept(
        tokens=[
            [str(tokenizer.decode(int(token))) for token in item.input_ids[start:stop]]
            for item in encoded[:NUM_EXAMPLES]
        ],
        examples=examples,
        frequency=frequency,
        results=[place - start for place in results],
        num_problems=len(encoded),
        teacher=_written_by_teacher(teacher, tokenizer, records, template),
    )


def _scores(
    config: TrainConfig,
    teacher: Any,
    encoded: Sequence[Encoded],
    records: Sequence[Record],
    template: Template,
) -> Tensor:
    """[B, T]: the teacher's own scores of the positions, as the run had them."""
    from dataclasses import replace

    from kava.data.collate import Collator
    from kava.importance import score_samples

    rows = score_samples(
        teacher,
        encoded,
        records,
        template,
        method=config.kv_method,
        reach=config.knockout_reach,  # type: ignore[arg-type]
    )
    scored = [replace(item, scores=row_R) for item, row_R in zip(encoded, rows)]
    return Collator(0)(scored)["scores"]


def share_kept(indices_BLHM: Tensor, length: int) -> Tensor:
    """[B, T]: the share of layers and heads that keep each position."""
    import torch

    B, L, H, _M = indices_BLHM.shape
    kept_BLHT = torch.zeros(B, L, H, length)
    return kept_BLHT.scatter_(-1, indices_BLHM, 1.0).mean(dim=(1, 2))


def _written_by_teacher(
    teacher: Any, tokenizer: Any, records: Sequence[Any], template: Any
) -> dict[str, float]:
    """The teacher asked for the long form, as the students are measured by."""
    from dataclasses import replace

    from kava.student.answering import answer_records

    own = [replace(record, student_question=None) for record in records]
    answers = answer_records(teacher, tokenizer, own, template, max_new_tokens=40)
    return {
        "accuracy": answers.accuracy,
        "num_items": answers.num_items,
        "forward_passes": answers.forward_passes,
    }
