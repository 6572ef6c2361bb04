"""Word problems: right arithmetic, disjoint splits, one token a word, options that are checked."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from kava.data import (
    WORD_PROBLEMS_TEMPLATE,
    Record,
    chance,
    encode_records,
    load_records,
    oracle_positions,
    word_problems,
    word_problems_tokenizer,
)
from kava.data.answers import judge
from kava.data.word_phrases import THEMES, Phrases
from kava.dataset_names import (
    WORD_PROBLEMS_NAME,
    WordProblemsOptions,
    builtin_options,
    check_dataset_name,
)
from kava.importance.roles import token_roles
from kava.models.builtin import BUILTIN_NAMES
from kava.models.load import load_tokenizer

TOKENIZER = word_problems_tokenizer()
ALL_PHRASES = [(theme, kind, found) for theme in THEMES for kind, found in theme.phrases.items()]


def drawn(split: str = "train", num: int = 400, **options: object) -> list[Record]:
    sizes = {f"num_{split}": num}
    return word_problems(WordProblemsOptions(**sizes, **options), split=split)  # type: ignore[arg-type]


def numbers_of(text: str) -> Counter[int]:
    """The numbers that a text names, in digits or words."""
    words = {"twice": 2, "half": 2, "third": 3, "quarter": 4, "fifth": 5}
    found = re.findall(r"\d+|twice|half|third|quarter|fifth", text.lower())
    return Counter(words[word] if word in words else int(word) for word in found)


def skeleton(record: Record) -> tuple[str, ...]:
    """The equations of a record, which are its problem without words."""
    assert record.meta["form"] == "equations"
    return record.steps


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("max_number", [10, 40, 99])
def test_every_step_is_right_and_uses_the_numbers_of_the_question(
    split: str, max_number: int
) -> None:
    options = {"steps": "1-8", "max_number": max_number, "seed": 3}
    written = drawn(split, form="equations", **options)
    short = drawn(split, form="compact", **options)
    for record, compact in zip(written, short):
        left = numbers_of(record.question)
        results: list[int] = []
        for step in record.steps:
            found = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", step)
            assert found is not None
            a, b, c = int(found[1]), int(found[3]), int(found[4])
            right = {"+": a + b, "-": a - b, "*": a * b}
            assert c == right[found[2]] if found[2] in right else c * b == a
            assert 1 <= c <= max_number
            for number in (a, b):
                if number in results:
                    results.remove(number)
                else:
                    assert left[number] > 0, f"{record.question}: {number} comes from nowhere"
                    left[number] -= 1
            results.append(c)
        assert results == [int(record.answer)]  # every result but the last was used
        assert compact.question == record.question.replace("Equations:", "Results:")
        assert compact.steps == tuple(step.split()[-1] for step in record.steps)
        assert record.meta["num_steps"] == len(record.steps) == len(compact.steps)


def test_all_counts_of_steps_are_drawn_and_what_is_not_needed_is_counted() -> None:
    records = drawn(num=4000, steps="2-5", distractors="1-2")
    assert all(800 < n < 1200 for n in Counter(r.meta["num_steps"] for r in records).values())
    assert {r.meta["theme"] for r in records} == {theme.name for theme in THEMES}
    unneeded = Counter()
    for r in drawn(num=400, steps="2", distractors="1-2", form="equations"):
        used = sum((numbers_of(step.split(" =")[0]) for step in r.steps), Counter())
        unneeded[sum((numbers_of(r.question) - used).values())] += 1
    # a result is not in the question, and a number that is not needed may equal one that is
    assert unneeded[1] + unneeded[2] > 350


def test_same_seed_same_records_and_none_twice() -> None:
    records = drawn(num=3000, seed=3)
    assert records == drawn(num=3000, seed=3)
    assert records != drawn(num=3000, seed=4)
    assert records[:100] == drawn(num=100, seed=3)
    assert len({r.question for r in records}) == len({r.id for r in records}) == 3000


def test_the_records_stay_the_same_from_version_to_version() -> None:
    record = drawn(num=1)[0]
    assert (record.question, record.reasoning, record.answer) == GOLDEN


GOLDEN = (
    "Ida holds 4 eggs in the box in January. Only a quarter of the eggs are left with Ida in "
    "February. Cara counts 16 cards in the market. Ida owns 4 times as many in March. How many "
    "eggs does Ida have in March? Results:",
    "1 4",
    "4",
)


def test_splits_share_no_problem_whatever_the_seed() -> None:
    for steps, size in (("1", 300), ("2-4", 3000)):
        options = {"steps": steps, "form": "equations", "distractors": "0"}
        train = {skeleton(r) for seed in (0, 1) for r in drawn("train", size, seed=seed, **options)}
        test = {skeleton(r) for seed in (0, 2) for r in drawn("test", size, seed=seed, **options)}
        assert not train & test


def test_splits_share_no_phrasing_and_a_test_asks_for_no_new_word() -> None:
    of_split = {
        split: {sentence for *_, found in ALL_PHRASES for sentence in getattr(found, split)}
        for split in Phrases._fields
    }
    assert not of_split["train"] & of_split["test"]
    for theme, kind, found in ALL_PHRASES:
        assert len(found.train) >= 3
        assert found.test
        train, test = (set(re.findall(r"\w+|[^\w\s]", " ".join(part))) for part in found)
        assert test <= train, f"{theme.name}, {kind}: {test - train}"


def test_the_question_of_a_record_is_made_of_the_phrasings_of_its_split() -> None:
    for split in Phrases._fields:
        patterns = [
            re.compile(re.sub(r"\\{\w+\\}", r"[\\w ]+?", re.escape(sentence)), re.IGNORECASE)
            for *_, found in ALL_PHRASES
            for sentence in getattr(found, split)
        ]
        for record in drawn(split, 60, steps="1-8"):
            for sentence in re.findall(r"[^.?]+[.?]", record.question):
                assert any(one.fullmatch(sentence.strip()) for one in patterns), sentence


@pytest.mark.parametrize("form", ["compact", "equations"])
def test_a_word_is_a_token_and_the_text_comes_back(form: str) -> None:
    for split in ("train", "test"):
        for record in drawn(split, 5000, steps="1-8", max_number=99, form=form):
            text = WORD_PROBLEMS_TEMPLATE.render(record).text
            ids = TOKENIZER(text)["input_ids"]
            assert TOKENIZER.decode(ids) == " ".join(text.split())
            assert TOKENIZER.unk_token_id not in ids
            assert len(ids) == len(re.findall(r"\w+|[^\w\s]", text))


def test_the_tokenizer_is_the_same_each_time_and_spells_other_words(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == word_problems_tokenizer().get_vocab()
    text = "Zoe juggles 123 oranges!"
    ids = loaded(text)["input_ids"]
    assert loaded.unk_token_id not in ids
    assert loaded.decode(ids) == text
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.padding_side) == (0, 1, "left")


@pytest.mark.parametrize("name", [name for name in BUILTIN_NAMES if name.startswith("kava/word-")])
def test_every_model_of_the_task_reads_it_by_a_tokenizer_of_its_words(name: str) -> None:
    pieces = 2 if name.endswith(("pieces", "multiplier")) else 1
    expected = word_problems_tokenizer(pieces).get_vocab()
    assert load_tokenizer(name).get_vocab() == expected


def test_longer_words_may_take_two_tokens_and_the_text_comes_back() -> None:
    whole, pieces = word_problems_tokenizer(), word_problems_tokenizer(pieces=2)
    texts = [record.question for record in load_records(WORD_PROBLEMS_NAME + "?num_train=200")]
    words = {word for text in texts for word in re.findall(r"[A-Za-z]+|[0-9]+", text)}
    counts = {word: len(pieces.tokenize(word)) for word in words}
    assert all(counts[word] == 1 for word in words if len(word) <= 4)
    assert set(counts.values()) == {1, 2}
    assert all(pieces.decode(pieces(text)["input_ids"]) == text for text in texts)
    assert all(len(pieces(t)["input_ids"]) > len(whole(t)["input_ids"]) for t in texts)


@pytest.mark.parametrize(
    ("operations", "signs"), [("additive", "+-"), ("multiplicative", "*/"), ("any", "+-*/")]
)
@pytest.mark.parametrize("steps", ["2-5", "8"])
def test_a_part_of_the_task_has_its_operations_alone(
    operations: str, signs: str, steps: str
) -> None:
    name = f"{WORD_PROBLEMS_NAME}?operations={operations}&form=equations&steps={steps}&num_train=60"
    records = load_records(name)
    found = {sign for record in records for sign in re.findall(r" ([-+*/]) ", record.reasoning)}
    assert found == set(signs)
    named = {record.meta.get("teacher_id") for record in records}
    assert named == {None if operations == "any" else operations}


def test_parts_come_by_turns_and_name_their_teacher() -> None:
    records = load_records(f"{WORD_PROBLEMS_NAME}?operations=parts&form=equations&num_train=60")
    for place, record in enumerate(records):
        part = ("additive", "multiplicative")[place % 2]
        assert record.meta["teacher_id"] == part
        signs = set(re.findall(r" ([-+*/]) ", record.reasoning))
        assert signs <= set("+-" if part == "additive" else "*/")


def test_the_judge_takes_the_gold_answer_and_no_other() -> None:
    cue = WORD_PROBLEMS_TEMPLATE.cue
    for record in drawn(num=200, form="both"):
        text = WORD_PROBLEMS_TEMPLATE.render(record).text
        assert judge(text, record.answer, cue).correct
        assert not judge(f"{cue}{int(record.answer) + 1}", record.answer, cue).correct


def test_the_student_is_asked_for_its_own_form() -> None:
    (record,) = drawn(num=1, form="equations", student_form="compact")
    assert record.student_question == record.question.replace("Equations:", "Results:")
    assert drawn(num=1, form="compact", student_form="compact")[0].student_question is None
    assert [r.meta["form"] for r in drawn(num=4, form="both")] == ["compact", "equations"] * 2


def test_the_results_are_known_by_place_and_role() -> None:
    for form in ("compact", "equations"):
        records = drawn(num=30, steps="2-6", form=form)
        encoded, _ = encode_records(records, TOKENIZER, WORD_PROBLEMS_TEMPLATE, 256)
        for record, sample in zip(records, encoded):
            results = [step.split()[-1] for step in record.steps[:-1]]
            kept = [sample.input_ids[place] for place in oracle_positions(record, sample)]
            assert TOKENIZER.decode(kept).split() == results
            roles = token_roles(record, sample, TOKENIZER)
            written = TOKENIZER.decode(
                sample.input_ids[sample.prompt_length : sample.answer_start]
            ).split()
            assert [word for word, role in zip(written, roles) if role == "result"] == results


def test_chance_is_what_two_guesses_get() -> None:
    train, test = drawn(num=5000), drawn("test", 1000)
    found = chance(train, test)
    after = defaultdict(Counter)
    for r in train:
        after[r.reasoning.split()[-1]][r.answer] += 1
    usual = Counter(r.answer for r in train).most_common(1)[0][0]
    assert found.most_frequent == sum(r.answer == usual for r in test) / 1000
    assert found.most_frequent < found.last_operation < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("steps=0", "steps='0' must be a number or a range such as 2-5, from 1 to 8"),
        ("steps=2-9", "steps='2-9' must be"),
        ("steps=4-2", "steps='4-2' must be"),
        ("steps=two", "steps='two' must be"),
        ("distractors=5", "distractors='5' must be a number or a range such as 2-5, from 0 to 4"),
        ("max_number=9", "max_number=9 must be from 10 to 99"),
        ("max_number=100", "max_number=100 must be from 10 to 99"),
        ("max_number=ten", "max_number=ten must be a whole number"),
        ("operations=powers", "operations='powers' is unknown"),
        ("form=verbose", "form='verbose' is unknown"),
        ("student_form=both", "student_form='both' is unknown"),
        ("num_moves=3", "kava/word-problems has no option 'num_moves'"),
        ("seed=1&seed=2", "seed stands there twice"),
        ("num_train=0", "num_train=0 must be"),
    ],
)
def test_bad_options_are_named(options: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_dataset_name(f"kava/word-problems?{options}")


def test_more_records_than_there_are_problems_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_test=9000 asks for more than the .* different"):
        load_records(
            "kava/word-problems?steps=1&max_number=10&theme=sums&num_test=9000", split="test"
        )
    with pytest.raises(ValueError, match="split='valid' is not in kava/word-problems"):
        load_records("kava/word-problems", split="valid")


def test_the_words_of_the_reasoning_are_counted() -> None:
    options = builtin_options("kava/word-problems?steps=2-5&form=equations")
    assert options.reasoning_words(keep_last_step=False) == (5, 20)
    assert builtin_options("kava/word-problems?steps=3").reasoning_words(True) == (3, 3)
