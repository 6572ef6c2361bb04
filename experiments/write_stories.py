"""Let models tell short stories, and write them as a data set of question, reasoning and answer.

    python experiments/write_stories.py --model_name ../shared/models/stories260K \\
        ../shared/models/babyllama_tok105 --num_stories 400 --output stories.jsonl

For measuring on text that small pretrained models know: each model writes as many stories as the
others, from its begin mark alone. A story is cut at its last whole sentence; the first sentence
becomes the question, the last the answer, and what stands between them the reasoning. Stories of
fewer than three sentences, and repeated ones, are left out and written anew.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kava import names
from kava.cli import run
from kava.files.outputs import check_output
from kava.flags import Usage, check_fields, flag, needed

SENTENCE_END = re.compile(r'(?<=[.!?])"?\s+|(?<=[.!?]")\s+')
MOST_ROUNDS = 100


@dataclass(kw_only=True)
class Options:
    """Who tells how many stories, and of what length."""

    model_name: list[str] = needed("the models that tell")
    output: str = needed("the .jsonl file to write")
    num_stories: int = flag(400, "stories of each model", least=1, most=1_000_000)
    max_characters: int = flag(250, "of a story", least=1, most=100_000)
    max_new_tokens: int = flag(250, "tokens of a story", least=1, most=100_000)
    temperature: float = flag(0.9, "of the sampling", above=0, most=100)
    batch_size: int = flag(64, "stories at once", least=1, most=names.MOST_BATCH)
    seed: int = flag(0, "of the sampling", least=0, most=names.MOST_SEED)

    def __post_init__(self) -> None:
        check_fields(self)


USAGE = Usage(
    prog="write_stories.py",
    kind=Options,
    summary="Let models tell short stories, and write them as a data set.",
    example="python experiments/write_stories.py --model_name models/stories260K --output x.jsonl",
)


def stories(name: str, options: Options) -> Iterator[list[str]]:
    """Stories of one model, as sentences, without end."""
    import torch

    from kava.models.load import load_model, load_tokenizer

    model: Any = load_model(name)  # its generate() comes from a mixin that the type lacks
    tokenizer = load_tokenizer(name)
    if tokenizer.bos_token_id is None:
        raise ValueError(f"--model_name {name} has no begin mark to start a story from")
    limit = min(options.max_new_tokens, model.config.max_position_embeddings - 1)
    start = torch.full((options.batch_size, 1), tokenizer.bos_token_id, device=model.device)
    torch.manual_seed(options.seed)
    while True:
        written = model.generate(
            start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            top_k=0,
            temperature=options.temperature,
            max_new_tokens=limit,
            pad_token_id=tokenizer.eos_token_id,
        )
        for text in tokenizer.batch_decode(written, skip_special_tokens=True):
            text = " ".join(text.split())[: options.max_characters]
            yield [part.strip() for part in SENTENCE_END.split(text)[:-1]]


def main(argv: list[str]) -> int:
    from kava.files.write import write_whole
    from kava.models.quiet import quiet_libraries

    options = USAGE.parse(argv)
    check_output(options.output)
    quiet_libraries()
    rows: dict[str, dict[str, str]] = {}
    for name in options.model_name:
        teller, found = Path(name).name, len(rows)
        source = stories(name, options)
        for _ in range(MOST_ROUNDS * options.num_stories):
            if len(rows) == found + options.num_stories:
                break
            sentences = next(source)
            question, reasoning = sentences[:1], " ".join(sentences[1:-1])
            if reasoning and " ".join(sentences) not in rows:
                rows[" ".join(sentences)] = {
                    "id": f"{teller}-{len(rows) - found}",
                    "question": question[0],
                    "reasoning": reasoning,
                    "answer": sentences[-1],
                }
        else:
            raise ValueError(
                f"--model_name {name} told only {len(rows) - found} different stories of three "
                f"sentences; raise --max_characters or --temperature"
            )
        print(f"{name}: {len(rows) - found} stories")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values())
    write_whole(options.output, "".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
