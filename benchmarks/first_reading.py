"""What a student reads of its own written reasoning before it is trained, by its positions.

    python benchmarks/first_reading.py
    python benchmarks/first_reading.py --model_name MODEL --dataset_name gsm8k:train.jsonl

The written chain of thought stands between begin- and end-of-thought, whose positions are their own
or shared with the token before them (`--thought_positions`), and in plain text.
"""

from __future__ import annotations

import argparse

import torch

from kava.data import load_records
from kava.data.collate import IGNORED, Collator
from kava.data.encode import encode_records
from kava.data.sources import default_template
from kava.models.load import load_model, load_tokenizer
from kava.models.quiet import quiet_libraries
from kava.names import THOUGHT_POSITIONS
from kava.student.latent import LatentStudent
from kava.train.reading import right_answers, written_text
from kava.train.terms import token_loss
from timing import positive


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model_name", default="kava/shell-teacher")
    parser.add_argument("--dataset_name", default="kava/shell-game")
    parser.add_argument("--samples", type=positive, default=32)
    args = parser.parse_args(argv)
    quiet_libraries()
    tokenizer = load_tokenizer(args.model_name)
    template = default_template(args.dataset_name)
    records = load_records(args.dataset_name)[: args.samples]
    encoded, _ = encode_records(records, tokenizer, template, 512, overflow="skip")
    batch = Collator(tokenizer.pad_token_id)(encoded)
    print("| between | tokens' CE | answer's CE | answers right |")
    print("|---|---|---|---|")
    for kind in THOUGHT_POSITIONS:
        torch.manual_seed(0)
        model = load_model(args.model_name, dtype=torch.float32)
        student = LatentStudent.wrap(model, num_latents=1, thought_positions=kind).eval()
        with torch.no_grad():
            text = written_text(batch)
            read = student.read_written(batch["prompt_ids"], batch["prompt_mask"], text)
        _print(f"thought vectors, positions {kind}", read.logits, text.labels, read.answer_labels)
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    answers = labels.masked_fill(batch["segment_ids"][:, 1:] != 2, IGNORED)
    _print("plain text", logits, labels, answers)
    return 0


def _print(name: str, logits: torch.Tensor, labels: torch.Tensor, answers: torch.Tensor) -> None:
    losses = [token_loss(logits, one, int((one != IGNORED).sum())) for one in (labels, answers)]
    right = right_answers(logits, answers).float().mean()
    print(f"| {name} | {losses[0]:.2f} | {losses[1]:.2f} | {right:.0%} |")


if __name__ == "__main__":
    raise SystemExit(main())
