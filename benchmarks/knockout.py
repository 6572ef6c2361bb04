"""Time of knockout and of its estimate, as ratios to one plain forward of the same samples.

    python benchmarks/knockout.py
    python benchmarks/knockout.py --model_name kava/tiny-llama --dataset_name data.jsonl

One batch on one CPU thread; each figure is the best of some rounds in which all rows take turns,
so that a busy machine slows them alike. "whole text, mask of pairs" is the usual way to write
knockout: for every reasoning token the whole text again, with a [T, T] mask that hides it.

Shapes: B batch, T columns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kava.data.collate import Batch
from kava.data.encode import encode_records
from kava.data.sources import default_template, load_records
from kava.importance import token_stages
from kava.importance.batches import make_batch
from kava.importance.gradient import gradient
from kava.importance.knockout import knockout
from kava.models.capture import position_ids_from_mask
from kava.models.load import load_model, load_tokenizer
from kava.trace import Segment
from timing import positive


@torch.no_grad()
def plain(model: PreTrainedModel, batch: Batch) -> Tensor:
    """One forward of the batch."""
    mask_BT = batch["attention_mask"]
    return model(
        input_ids=batch["input_ids"],
        attention_mask=mask_BT,
        position_ids=position_ids_from_mask(mask_BT),
    ).logits


@torch.no_grad()
def by_masks_of_pairs(model: PreTrainedModel, batch: Batch) -> None:
    """A forward of the whole text for every reasoning column."""
    valid_BT = batch["attention_mask"].bool()
    T = valid_BT.shape[1]
    causal_TT = torch.ones(T, T, dtype=torch.bool).tril()
    own_TT = torch.eye(T, dtype=torch.bool)
    positions_BT = position_ids_from_mask(valid_BT)
    for column in (batch["segment_ids"] == Segment.REASONING).any(dim=0).nonzero()[:, 0].tolist():
        seen_TT = causal_TT.clone()
        seen_TT[column + 1 :, column] = False
        seen_BTT = (seen_TT & valid_BT[:, None]) | own_TT
        mask_B1TT = torch.where(seen_BTT, 0.0, torch.finfo(torch.float32).min)[:, None]
        model(input_ids=batch["input_ids"], attention_mask=mask_B1TT, position_ids=positions_BT)


def best_seconds(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The shortest time of each call over rounds in which all take turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\nShapes")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model_name", default="kava/shell-teacher")
    parser.add_argument("--dataset_name", default="kava/shell-game?form=verbose")
    parser.add_argument("--num_samples", type=positive, default=256, help="samples of the batch")
    parser.add_argument("--max_length", type=positive, default=512)
    parser.add_argument("--rounds", type=positive, default=5, help="timed rounds after the first")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tokenizer, model = load_tokenizer(options.model_name), load_model(options.model_name)
    model.requires_grad_(False)
    template = default_template(options.dataset_name)
    records = load_records(options.dataset_name, subset_size=options.num_samples)
    samples, report = encode_records(
        records, tokenizer, template, options.max_length, overflow="skip"
    )
    by_id = {record.id: record for record in records}
    stages = [token_stages(by_id[s.id], s, template, "later_steps") for s in samples]
    batch, stages_BT = make_batch(model, samples, stages)
    calls: dict[str, Callable[[], object]] = {
        "one forward": lambda: plain(model, batch),
        "knockout": lambda: knockout(model, batch, stages_BT),
        "knockout_gradient": lambda: gradient(model, batch, stages_BT),
        "knockout_gradient, reach all": lambda: gradient(model, batch),
        "whole text, mask of pairs": lambda: by_masks_of_pairs(model, batch),
    }
    num_reasoning = int((batch["segment_ids"] == Segment.REASONING).sum()) / len(samples)
    print(f"{options.model_name} on {options.dataset_name}: {report}")
    print(f"{num_reasoning:.0f} reasoning tokens of {batch['input_ids'].shape[1]} columns")
    seconds = best_seconds(calls, options.rounds)
    print(f"{'':<30}{'ms/sample':>12}{'× forward':>12}{'s per 100,000':>16}")
    for name, figure in seconds.items():
        each = figure / len(samples)
        ratio = figure / seconds["one forward"]
        print(f"{name:<30}{1e3 * each:>12.3f}{ratio:>12.2f}{1e5 * each:>16.1f}")


if __name__ == "__main__":
    main()
