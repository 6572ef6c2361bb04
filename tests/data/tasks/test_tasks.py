"""Tasks: every row read as it is meant, from a file and from the hub, and bad ones named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kava.data import load_records
from kava.data.tasks import TASKS, find_task
from kava.data.tasks.arc import lettered

SVAMP = {
    "ID": "chal-7",
    "Body": "Tom had 4.0 pens and 2 more.",
    "Question": "How many for each of 3?",
    "Equation": "( ( 4.0 + 2.0 ) / 3.0 )",
    "Answer": 2.0,
}
STRATEGYQA = {
    "qid": "ab12",
    "question": "Could it?",
    "answer": False,
    "facts": ["It is small.", " It sleeps."],
    "decomposition": ["What is it?"],
}
ARC = {"query": "Question: Which is wet?", "choices": ["sand", "rain"], "gold": 1}
ARC_HUB = {
    "id": "Mercury_1",
    "question": "Which is wet?",
    "choices": {"text": ["sand", "rain"], "label": ["1", "2"]},
    "answerKey": "2",
}
AUG = "How much?||<<4-2=2>> <<2/.5=4>> #### 4"
GSM_HARD = '{"input": "How many?", "code": "def solution(): return 1", "target": -9867630.0}'
MULTIARITH = {
    "iIndex": 3,
    "sQuestion": " How many? ",
    "lEquations": ["X=(4-2)"],
    "lSolutions": [2.0],
}
ASDIV = {
    "body": "Ann has 9 pens.",
    "question": "How many has she?",
    "solution_type": "Sum",
    "answer": "9 (pens)",
    "formula": "9+0=9",
}
ASDIV_XML = (
    '<?xml version="1.0" encoding="UTF-8" ?><File><ProblemSet>'
    '<Problem ID="nluds-0001" Grade="1"><Body>Ann has 9 pens.</Body>'
    "<Question>How many has she?</Question><Solution-Type>Sum</Solution-Type>"
    "<Answer>9 (pens)</Answer><Formula>9+0=9</Formula></Problem></ProblemSet></File>"
)
MATH500 = {
    "problem": "What is $\\frac12$ of 3?",
    "solution": "Halve it.\nThat is $\\boxed{\\frac{3}{2}}.$",
    "answer": "\\frac{3}{2}",
    "subject": "Algebra",
    "level": 1,
    "unique_id": "test/algebra/1.json",
}
GSM = {"question": "How many?", "answer": "48/2 = <<48/2=24>>24.\nAll: <<48+24=72>>72.\n#### 72"}
FILES: dict[str, tuple[str, str]] = {
    "gsm8k": ("test.jsonl", json.dumps(GSM)),
    "gsm8k_aug": ("test.txt", AUG),
    "gsm_hard": ("test.jsonl", GSM_HARD),
    "svamp": ("SVAMP.json", json.dumps([SVAMP])),
    "multiarith": ("MultiArith.json", json.dumps([MULTIARITH])),
    "asdiv": ("ASDiv.xml", ASDIV_XML),
    "math500": ("test.jsonl", json.dumps(MATH500)),
    "strategyqa": ("dev.json", json.dumps([STRATEGYQA])),
    "arc_easy": ("arc_easy.jsonl", json.dumps(ARC)),
    "arc_challenge": ("arc_challenge.jsonl", json.dumps(ARC)),
}
EXPECTED = {
    "gsm8k": ("gsm8k-test-0", "How many?", "48/2 = 24.\nAll: 72.", "72"),
    "gsm8k_aug": ("gsm8k_aug-test-0", "How much?", "<<4-2=2>> <<2/.5=4>>", "4"),
    "gsm_hard": ("gsm_hard-test-0", "How many?", "", "-9867630"),
    "multiarith": ("multiarith-3", "How many?", "", "2"),
    "asdiv": ("asdiv-nluds-0001", "Ann has 9 pens. How many has she?", "", "9"),
    "math500": (
        "math500-test/algebra/1.json",
        "What is $\\frac12$ of 3?",
        "Halve it.\nThat is $\\boxed{\\frac{3}{2}}.$",
        "\\frac{3}{2}",
    ),
    "svamp": (
        "svamp-chal-7",
        "Tom had 4.0 pens and 2 more. How many for each of 3?",
        "(4 + 2) / 3",
        "2",
    ),
    "strategyqa": ("strategyqa-ab12", "Could it?", "It is small.\nIt sleeps.", "no"),
    "arc_easy": ("arc_easy-0", "Which is wet?\nA. sand\nB. rain", "", "B"),
    "arc_challenge": ("arc_challenge-0", "Which is wet?\nA. sand\nB. rain", "", "B"),
}
COUNTS = {
    ("gsm8k", "gsm8k", "train"): 7473,
    ("gsm8k", "gsm8k", "test"): 1319,
    ("gsm8k_aug", "gsm8k_aug", "valid"): 500,
    ("gsm8k_aug", "gsm8k_aug", "test"): 1319,
    ("svamp", "svamp", "test"): 1000,
    ("strategyqa", "strategyqa", "train"): 2061,
    ("strategyqa", "strategyqa", "test"): 229,
    ("arc_easy", "arc", "test"): 2376,
    ("arc_challenge", "arc", "test"): 1172,
}
NO_EQUATION = {("gsm8k_aug", "valid"): 6, ("gsm8k_aug", "test"): 18}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("as_folder", [True, False])
def test_a_local_row_is_read_as_it_is_meant(name: str, as_folder: bool, tmp_path: Path) -> None:
    file, text = FILES[name]
    (tmp_path / file).write_text(text + "\n", encoding="utf-8")
    path = tmp_path if as_folder else tmp_path / file
    (record,) = load_records(f"{name}:{path}", split="test")
    assert (record.id, record.question, record.reasoning, record.answer) == EXPECTED[name]
    assert record.where.startswith(f"{tmp_path / file}, {'problem' if name == 'asdiv' else 'line'}")
    assert record.meta.get("judge") == TASKS[name].judge
    assert bool(record.reasoning) == TASKS[name].reasons
    assert record.states_answer == (name not in ("svamp", "strategyqa"))
    if name.startswith("arc"):
        assert record.meta["choices"] == ("sand", "rain")


@pytest.mark.parametrize(
    ("name", "row", "hub"),
    [
        ("gsm8k", GSM, ("openai/gsm8k", "main")),
        (
            "gsm8k_aug",
            {"question": "How much?", "steps": ["<<4-2=2>>", "<<2/.5=4>>"], "answer": "4"},
            ("whynlp/gsm8k-aug", "default"),
        ),
        (
            "gsm8k_aug",
            {"question": "How much?", "cot": "<<4-2=2>> <<2/.5=4>>", "answer": "4"},
            ("whynlp/gsm8k-aug", "default"),
        ),
        ("svamp", SVAMP, ("ChilleD/SVAMP", "default")),
        (
            "gsm_hard",
            {"input": "How many?", "code": "", "target": -9867630.0},
            ("reasoning-machines/gsm-hard", "default"),
        ),
        (
            "multiarith",
            {"question": "How many?", "final_ans": "2"},
            ("ChilleD/MultiArith", "default"),
        ),
        ("asdiv", ASDIV, ("EleutherAI/asdiv", "asdiv")),
        ("math500", MATH500, ("HuggingFaceH4/MATH-500", "default")),
        (
            "strategyqa",
            {**STRATEGYQA, "facts": "It is small.\nIt sleeps."},
            ("ChilleD/StrategyQA", "default"),
        ),
        ("arc_challenge", ARC_HUB, ("allenai/ai2_arc", "ARC-Challenge")),
    ],
)
def test_a_row_of_the_hub_is_the_same_record(
    name: str, row: dict[str, Any], hub: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def load_dataset(repository: str, configuration: str, *, split: str) -> list[dict[str, Any]]:
        assert (repository, configuration, split) == (*hub, TASKS[name].hub_splits["test"])
        return [row]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (record,) = load_records(name, split="test")
    expected = EXPECTED[name]
    assert (record.question, record.reasoning, record.answer) == expected[1:]
    ids = {"arc_challenge": "arc_challenge-Mercury_1", "asdiv": "asdiv-test-0"}
    ids["multiarith"] = "multiarith-test-0"
    assert record.id == ids.get(name, expected[0])


@pytest.mark.parametrize("name", TASKS)
def test_without_a_network_the_way_out_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} cannot be loaded .* as {name}:PATH"):
        load_records(name, split="test")


def test_the_validation_split_is_the_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: [asked.append(split), GSM][1:])
    (record,) = load_records("gsm8k_aug", split="valid")
    assert asked == ["validation"]
    assert record.id == "gsm8k_aug-valid-0"
    with pytest.raises(ValueError, match="choose train or valid or test"):
        load_records("gsm8k_aug", split="dev")


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("svamp", "SVAMP.json", "{}", "must be a list of rows, got dict"),
        ("svamp", "SVAMP.json", "[1]", "row 0 must be a JSON object"),
        ("svamp", "SVAMP.json", "[", "is not JSON"),
        ("svamp", "SVAMP.json", "[]", "is empty: it holds no row of svamp"),
        ("svamp", "SVAMP.json", '[{"Body": "x"}]', "row 0 has no field 'Question'"),
        ("svamp", "SVAMP.json", json.dumps([SVAMP, SVAMP]), "has the id 'svamp-chal-7' of"),
        ("strategyqa", "dev.json", '[{"question": "x", "facts": 1}]', "must be list or str"),
        (
            "strategyqa",
            "dev.json",
            json.dumps([{**STRATEGYQA, "answer": "yes"}]),
            "row 0: field 'answer' must be bool, got 'yes'",
        ),
        ("arc_easy", "arc_easy.jsonl", json.dumps({**ARC, "gold": 2}), "none of its 2 choices"),
        ("arc_easy", "arc_easy.jsonl", '{"query": "?"}', "line 1 has no field 'choices'"),
        ("arc_easy", "arc_easy.jsonl", json.dumps({**ARC, "gold": True}), "must be int, got True"),
        ("arc_easy", "arc_easy.jsonl", json.dumps({**ARC, "gold": 0.5}), "must be int, got 0.5"),
        (
            "arc_easy",
            "arc_easy.jsonl",
            json.dumps({**ARC, "choices": ["sand", None]}),
            "line 1: field 'choices', item 1 must be text, got None",
        ),
        (
            "arc_easy",
            "arc_easy.jsonl",
            json.dumps({**ARC_HUB, "choices": {"text": ["sand"]}}),
            "line 1: 'label' of field 'choices' must be a list of texts, got None",
        ),
        ("arc_easy", "arc_easy.jsonl", json.dumps({**ARC, "id": [1]}), "field 'id' must be text"),
        (
            "strategyqa",
            "dev.json",
            json.dumps([{**STRATEGYQA, "facts": ["It is.", 1, True]}]),
            "line 1, row 0: field 'facts', item 2 must be text, got True",
        ),
        ("strategyqa", "dev.json", '[{"facts": "a", "answer": NaN, "question": "b"}]', "bool, got"),
        ("svamp", "SVAMP.json", json.dumps([{**SVAMP, "Answer": None}]), "'Answer' must be text"),
        ("svamp", "SVAMP.json", json.dumps([{**SVAMP, "ID": False}]), "'ID' must be text, got Fal"),
        ("svamp", "SVAMP.json", '[{"Body": "a",\n"Body": "b"}]', 'line 2 has the key "Body" twice'),
        (
            "gsm8k_aug",
            "test.jsonl",
            '{"question": "a", "steps": ["<<1+1=2>>", {}], "answer": "2"}',
            "line 1: field 'steps', item 1 must be text",
        ),
        ("gsm8k_aug", "test.txt", AUG + "\nno bars", r"line 2 must be question\|\|"),
        ("gsm8k_aug", "test.txt", "a?||4", "line 1 has no answer behind '####'"),
        ("gsm8k", "test.jsonl", "{", "line 1 is not JSON"),
        ("gsm8k", "test.txt", AUG, "holds no test.jsonl of gsm8k"),
        ("gsm_hard", "test.jsonl", '{"input": "a"}', "line 1 has no field 'target'"),
        ("gsm_hard", "test.jsonl", '{"input": "a", "target": NaN}', "'target' is the number NaN"),
        ("multiarith", "test.json", '[{"question": "a"}]', "row 0 has no field 'final_ans'"),
        (
            "multiarith",
            "MultiArith.json",
            json.dumps([{**MULTIARITH, "lSolutions": [1, 2]}]),
            "'lSolutions' must hold one number, got 2",
        ),
        ("asdiv", "ASDiv.xml", ASDIV_XML[:-9], "ASDiv.xml, line 1 is not XML"),
        ("asdiv", "ASDiv.xml", "<File/>", "is empty: it holds no row of asdiv"),
        (
            "asdiv",
            "ASDiv.xml",
            ASDIV_XML.replace("Answer", "Reply"),
            "problem nluds-0001 has no field 'answer'",
        ),
        ("math500", "test.jsonl", '{"prompt": "a", "answer": "1"}', "has no field 'problem'"),
        ("gsm8k", "train.jsonl", "{}", "holds no test.jsonl of gsm8k"),
    ],
)
def test_a_bad_file_is_named(name: str, file: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_records(f"{name}:{tmp_path}", split="test")


def test_a_bad_path_is_named() -> None:
    with pytest.raises(ValueError, match="svamp:nowhere: there is no such file or folder"):
        load_records("svamp:nowhere")
    with pytest.raises(ValueError, match="'svamp:' names no file behind its colon"):
        load_records("svamp:")
    with pytest.raises(
        ValueError, match=r"neither a file nor a known name.*gsm8k_aug, gsm_hard, sva"
    ):
        load_records("swamp:file.json")


def test_a_name_is_a_task_or_none() -> None:
    assert find_task("kava/shell-game") is None
    assert find_task("openai/gsm8k") == (TASKS["gsm8k"], None)
    assert find_task("arc_easy:a/b.jsonl") == (TASKS["arc_easy"], "a/b.jsonl")


def test_choices_are_lettered() -> None:
    assert lettered("?", ["x", "y"]) == "?\nA. x\nB. y"


@pytest.mark.shared
@pytest.mark.parametrize(("name", "folder", "split"), COUNTS)
def test_every_row_of_the_real_files_is_read(
    name: str, folder: str, split: str, shared: Path
) -> None:
    records = load_records(f"{name}:{shared / 'data' / folder}", split=split)
    assert len(records) == COUNTS[name, folder, split]
    assert all(record.id.startswith(f"{name}-") for record in records)
    assert all(record.where for record in records)
    assert len({record.id for record in records}) == len(records)
    if TASKS[name].reasons:
        # a few of GSM8K-Aug's problems have no equation
        assert sum(not r.reasoning for r in records) == NO_EQUATION.get((name, split), 0)
    if name == "svamp":
        # one gold answer is not what its own equation gives
        wrong = [r for r in records if abs(eval(r.reasoning) - float(r.answer)) > 1e-6]
        assert [r.id for r in wrong] == ["svamp-chal-680"]
