"""Which later tokens count."""

from __future__ import annotations

import numpy as np
import pytest

from kava.data.encode import encode
from kava.data.records import Record, Template
from kava.data.shell_game import SHELL_GAME_TEMPLATE, shell_game, shell_game_tokenizer
from kava.importance import token_stages
from kava.models.tokenizers import byte_tokenizer

RECORD = Record(id="a", question="Q?", reasoning="1+1=2\n\n2+1=3\n3+1=4", answer="4")


def by_character(template: Template, reach: str = "later_steps") -> list[tuple[str, int]]:
    tokenizer = byte_tokenizer()
    encoded = encode(RECORD, tokenizer, template, 64)
    stages = token_stages(RECORD, encoded, template, reach)
    return list(zip(tokenizer.convert_ids_to_tokens(encoded.input_ids), stages.tolist()))


def test_steps_cue_and_value_are_told_apart() -> None:
    text = by_character(Template(cue="A "))
    assert [stage for _, stage in text] == (
        [-1] * len("Q?\n") + [0] * len("1+1=2\n\n") + [1] * len("2+1=3\n") + [-1] * 2 + [2] * 2
    )


def test_a_kept_last_step_and_blank_lines_are_steps_of_the_text() -> None:
    text = by_character(Template(cue="A ", drop_last_step=False))
    assert [stage for _, stage in text] == (
        [-1] * 3 + [0] * len("1+1=2\n\n") + [1] * 6 + [2] * 6 + [-1] * 2 + [3] * 2
    )


def test_all_counts_every_later_token() -> None:
    text = by_character(Template(), "all")
    assert [stage for _, stage in text] == list(range(len(text)))


def test_the_verbose_shell_game_has_five_words_a_step() -> None:
    record = shell_game(1, form="verbose")[0]
    encoded = encode(record, shell_game_tokenizer(), SHELL_GAME_TEMPLATE, 64)
    stages = token_stages(record, encoded, SHELL_GAME_TEMPLATE, "later_steps")
    assert stages.tolist() == [-1] * 9 + [0] * 5 + [1] * 5 + [2] * 5 + [-1, 3, 3]


def test_bad_input_is_named() -> None:
    template = Template()
    encoded = encode(RECORD, byte_tokenizer(), template, 64)
    other = Record(id="b", question="Q?", reasoning="x", answer="y")
    with pytest.raises(ValueError, match="record 'b' and encoded sample 'a' differ"):
        token_stages(other, encoded, template, "later_steps")
    with pytest.raises(ValueError, match="reach='far' is unknown; choose from later_steps, all"):
        token_stages(RECORD, encoded, template, "far")
    object.__setattr__(encoded, "offsets", np.zeros((0, 2)))
    with pytest.raises(ValueError, match="sample 'a' has 0 offsets for"):
        token_stages(RECORD, encoded, template, "later_steps")
