"""The built-in task: a shell game with four cups, which needs serial reasoning.

Four cups a, b, c, d stand in a row. A state is their order, as one word ("bdca"); a move is a
permutation, as one word of digits: under "3142" the new row takes the cups that stood at places
3, 1, 4 and 2. The question gives a state and several moves, the answer is the last state:

    Cups abcd moves 3412 3142 1234 4231 order ?
    cdab acbd acbd dcba
    Answer dcba

The written reasoning is the state after each move; its last step is the answer. The compact form
writes one word a step, the verbose form (asked for by "steps ?") five: the state before, the
move, an arrow, the state after, and a mark that ends the step. Only the state after carries what
the next step needs, which makes the verbose form a test of which positions an eviction keeps.

Composing permutations of four symbols is a word problem of a group that no fixed number of
attention layers is known to solve for any length in one pass; with one word per state, a
reasoning step is one token.

Whether a problem belongs to the train or the test split is decided by a hash of the problem
itself, so that the splits are disjoint whatever seeds, counts and forms they are drawn with.

Shapes: N records, K moves; states and moves are indices into the 24 permutations.
"""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import permutations
from typing import TYPE_CHECKING, Literal

import numpy as np

from kava.data.builtin_tokenizer import EOS, PAD, UNKNOWN, builtin_tokenizer
from kava.data.records import Record, Template
from kava.dataset_names import FORMS, MAX_MOVES, WORDS_PER_STEP, Form

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


Split = Literal["train", "test"]

NUM_STATES = 24
CHANCE = 1 / NUM_STATES
"""Accuracy of a guess: every state is equally likely to be the last, whatever the start is."""

TEST_FRACTION = 1 / 8
_PERMUTATIONS = np.array(list(permutations(range(4))))
STATES: tuple[str, ...] = tuple("".join("abcd"[i] for i in row) for row in _PERMUTATIONS)
MOVES: tuple[str, ...] = tuple("".join("1234"[i] for i in row) for row in _PERMUTATIONS)
WORDS: tuple[str, ...] = ("Cups", "moves", "order", "steps", "?", "Answer", ">", ";")

SHELL_GAME_TEMPLATE = Template(cue="Answer ")

_ASK = {"compact": "order ?", "verbose": "steps ?"}
_RESULT_WORD = 3


def shell_game(
    num_records: int,
    seed: int = 0,
    *,
    num_moves: int = 4,
    form: Form = "compact",
    student_form: Literal["compact", "verbose"] | None = None,
    fixed_start: bool = True,
    split: Split | None = None,
) -> list[Record]:
    """Draw shell-game records, all different, by a seeded generator.

    The task stands in for arithmetic word problems where no pretrained model is at hand: written
    reasoning solves it, a guess is right once in 24 times, and nothing in between is easy.

    Args:
        num_records: N.
        seed: same seed and arguments, same records.
        num_moves: K, from 1 to 12; the difficulty.
        form: how the reasoning is written; "both" alternates compact and verbose records, to
            train a teacher that can do either; "each" writes every game in both forms, as two
            records of one question (that of the compact form).
        student_form: the form that the student's own prompt asks for, where it differs from the
            teacher's (`Record.student_question`); None gives both the same prompt.
        fixed_start: let every game start from "abcd"; otherwise from any order, which makes the
            game one move harder.
        split: draw only from the train or the test problems; None draws from all.

    Returns:
        N records. `meta["result_words"]` holds the indices, among the words of the reasoning, of
        the state that each step arrives at.

    Raises:
        ValueError: an unknown form or split, a count of moves out of range, or more records than
            there are problems.

    Example:
        >>> shell_game(1, seed=0)[0].question.split()[0]
        'Cups'
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r} is unknown; choose from {', '.join(FORMS)}")
    if student_form is not None and student_form not in _ASK:
        raise ValueError(f"student_form={student_form!r} is unknown; choose from {', '.join(_ASK)}")
    each = form == "each"
    num_games = -(-num_records // 2) if each else num_records
    starts_N, moves_NK = _draw(num_games, seed, num_moves, fixed_start, split)
    states_NK = _play(starts_N, moves_NK)

    prefix = "shell-game" if split is None else f"shell-game-{split}"
    forms = ["compact", "verbose"] if form in ("both", "each") else [form]
    meta = {
        name: {
            "form": name,
            "num_moves": num_moves,
            "result_words": tuple(
                step * WORDS_PER_STEP[name] + (_RESULT_WORD if name == "verbose" else 0)
                for step in range(num_moves)
            ),
        }
        for name in forms
    }
    records = []
    for index, (start, moves_K, states_K) in enumerate(
        zip(starts_N.tolist(), moves_NK.tolist(), states_NK.tolist())
    ):
        asked = f"Cups {STATES[start]} moves {' '.join([MOVES[move] for move in moves_K])} "
        after = [STATES[state] for state in states_K]
        for name in forms if each else [forms[index % len(forms)]]:
            asks = "compact" if each else name
            if name == "verbose":
                before = [STATES[start], *after[:-1]]
                steps = [f"{b} {MOVES[m]} > {a} ;" for b, m, a in zip(before, moves_K, after)]
            records.append(
                Record(
                    id=f"{prefix}-{index}-{name}" if each else f"{prefix}-{index}",
                    question=asked + _ASK[asks],
                    reasoning="\n".join(steps) if name == "verbose" else " ".join(after),
                    answer=after[-1],
                    student_question=None
                    if student_form in (None, asks)
                    else asked + _ASK[student_form],
                    step_separator="\n" if name == "verbose" else " ",
                    meta=meta[name],
                )
            )
    return records[:num_records]


def shell_game_splits(
    num_train: int,
    num_test: int,
    seed: int = 0,
    *,
    num_moves: int = 4,
    form: Form = "compact",
    student_form: Literal["compact", "verbose"] | None = None,
    fixed_start: bool = True,
) -> tuple[list[Record], list[Record]]:
    """Draw a train and a test set that share no problem.

    Arguments, errors: as `shell_game`.

    Example:
        >>> train, test = shell_game_splits(100, 20)
        >>> {r.question for r in train} & {r.question for r in test}
        set()
    """
    options = partial(
        shell_game,
        seed=seed,
        num_moves=num_moves,
        form=form,
        student_form=student_form,
        fixed_start=fixed_start,
    )
    return options(num_train, split="train"), options(num_test, split="test")


def shell_game_tokenizer() -> PreTrainedTokenizerFast:
    """Build the task's word-level tokenizer: one token per word of either form.

    Decoding joins the words by spaces. A word outside the vocabulary becomes "<unk>", which
    `encode_records` refuses by name.

    Example:
        >>> tokenizer = shell_game_tokenizer()
        >>> tokenizer.decode(tokenizer("Cups bdca order ?")["input_ids"])
        'Cups bdca order ?'
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    vocabulary = {w: i for i, w in enumerate((PAD, EOS, UNKNOWN, *WORDS, *STATES, *MOVES))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return builtin_tokenizer(tokenizer)


@lru_cache(maxsize=1)
def _move_table() -> np.ndarray:
    """[state, move] -> state: new[i] = old[move[i]]."""
    moved_SM4 = _PERMUTATIONS[:, _PERMUTATIONS]
    place = {tuple(row): i for i, row in enumerate(_PERMUTATIONS.tolist())}
    return np.array([[place[tuple(p)] for p in row] for row in moved_SM4.tolist()])


def _play(starts_N: np.ndarray, moves_NK: np.ndarray) -> np.ndarray:
    table = _move_table()
    states_NK = np.empty_like(moves_NK)
    state_N = starts_N
    for step in range(moves_NK.shape[1]):
        state_N = table[state_N, moves_NK[:, step]]
        states_NK[:, step] = state_N
    return states_NK


def _draw(
    num_records: int, seed: int, num_moves: int, fixed_start: bool, split: Split | None
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct problems of a split: starts [N] and moves [N, K]."""
    if not 1 <= num_moves <= MAX_MOVES:
        raise ValueError(f"num_moves={num_moves} is out of range; choose from 1 to {MAX_MOVES}")
    if num_records < 1:
        raise ValueError(f"num_records={num_records} must be at least 1")
    if split not in (None, "train", "test"):
        raise ValueError(f"split={split!r} is unknown; choose train or test")
    rng = np.random.default_rng(seed)
    population = NUM_STATES ** (num_moves + (0 if fixed_start else 1))
    exhaustive = population <= 2**20
    codes = np.empty(0, dtype=np.int64)
    while len(codes) < num_records:
        if exhaustive:
            drawn = rng.permutation(population)
        else:
            drawn = rng.integers(0, population, size=max(2 * num_records, 1024))
        if fixed_start:
            # the same game gets the same code, and so the same split, with either option
            drawn = drawn * NUM_STATES
        if split is not None:
            drawn = drawn[_is_test(drawn, num_moves) == (split == "test")]
        codes = np.concatenate([codes, drawn])
        codes = codes[np.sort(np.unique(codes, return_index=True)[1])]
        if exhaustive and len(codes) < num_records:
            raise ValueError(
                f"num_records={num_records} asks for more than the {len(codes)} different "
                f"problems with num_moves={num_moves}"
                f"{'' if split is None else f' in the {split} split'}; lower it or add moves"
            )
    codes = codes[:num_records]
    digits_NK = [(codes // NUM_STATES**place) % NUM_STATES for place in range(num_moves + 1)]
    return digits_NK[0], np.stack(digits_NK[1:], axis=1)


def _is_test(codes: np.ndarray, num_moves: int) -> np.ndarray:
    """Whether each problem is held out: the SplitMix64 finaliser of its code, below a limit."""
    z = codes.astype(np.uint64) * np.uint64(MAX_MOVES + 1) + np.uint64(num_moves)
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return z < np.uint64(int(TEST_FRACTION * 2**64))
