"""Which of the reasoning tokens each eviction rule keeps, without training anything.

Shapes: R reasoning tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kava.data.encoded import Encoded
    from kava.data.records import Record, Template
    from kava.train.config import TrainConfig

NUM_PROBLEMS = 200
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class KeptTokens:
    """The tokens that each eviction rule keeps.

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


def find_kept(config_of: Mapping[str, TrainConfig]) -> KeptTokens:
    """Let the teacher read problems, and each rule choose among its positions.

    Args:
        config_of: rule → the configuration of one of its runs, whose rule and data are used.
    """
    from kava.data.encode import encode_records
    from kava.data.oracle import oracle_positions, with_oracle_positions
    from kava.data.sources import default_template, load_records
    from kava.models.load import load_model, load_tokenizer

    config = next(iter(config_of.values()))
    assert config.teacher_name is not None
    tokenizer = load_tokenizer(config.model_name)
    template = default_template(config.dataset_name)
    records = load_records(config.dataset_name, split="test")[:NUM_PROBLEMS]
    encoded, _ = encode_records(records, tokenizer, template, config.max_length)
    results = oracle_positions(records[0], encoded[0])
    encoded = with_oracle_positions(records, encoded, config.target_len)
    teacher = load_model(config.teacher_name)
    start, stop = encoded[0].prompt_length, encoded[0].answer_start
    shares = _shares(config_of, teacher, encoded, records, template)
    return KeptTokens(
        tokens=[
            [str(tokenizer.decode(int(token))) for token in item.input_ids[start:stop]]
            for item in encoded[:NUM_EXAMPLES]
        ],
        examples={
            rule: [[round(float(x), 4) for x in row_R] for row_R in rows[:NUM_EXAMPLES]]
            for rule, rows in shares.items()
        },
        frequency={
            rule: [round(float(sum(column)) / len(rows), 4) for column in zip(*rows)]
            for rule, rows in shares.items()
        },
        results=[place - start for place in results],
        num_problems=len(encoded),
        teacher=_written_by_teacher(teacher, tokenizer, records, template),
    )


def _shares(
    config_of: Mapping[str, TrainConfig],
    teacher: Any,
    encoded: Sequence[Encoded],
    records: Sequence[Record],
    template: Template,
) -> dict[str, Sequence[Sequence[float]]]:
    """Rule → for each problem [R], the share of layers and heads that keep a token."""
    from kava.eviction import EVICTIONS
    from kava.importance import score_samples
    from kava.importance.kept import EvictionArm, kept_shares
    from kava.train.kept import eviction_options

    rules = {name: one for name, one in config_of.items() if one.kv_method != "positions"}
    scores = {
        one.kv_method: score_samples(
            teacher,
            encoded,
            records,
            template,
            method=one.kv_method,
            reach=one.knockout_reach,  # type: ignore[arg-type]
        )
        for one in rules.values()
        if EVICTIONS[one.kv_method].needs_scores
    }
    target_len = next(iter(config_of.values())).target_len
    arms = [
        EvictionArm(name=name, method=one.kv_method, options=eviction_options(one))
        for name, one in rules.items()
    ]
    found = kept_shares(teacher, encoded, [target_len], arms=arms, scores=scores)
    oracle = [
        [
            float(place in (item.positions or ()))
            for place in range(item.prompt_length, item.answer_start)
        ]
        for item in encoded
    ]
    return {
        name: [row.tolist() for row in found[name, target_len]] if name in rules else oracle
        for name in config_of
    }


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
