"""Time and memory of a step of real pretrained models, against what any trainer must pay.

The student is SmolLM2-135M-Instruct, trained whole, by LoRA, and by LoRA with its layers
recomputed, as its own teacher; then by LoRA under gemma-3-270m as a live teacher in float32,
bfloat16, 8 and 4 bit. `time ÷ bare` is the step over its bare passes: the same forwards of teacher
and student, with their cross-entropies, and one backward. `peak ÷ own` is the peak memory of the
step over that of the model's own training step: cross-entropy on the same texts, one backward, the
same optimiser. `estimate` is what `kava profile --memory` says of the peak. Each number of memory
comes from a process of its own, whose second step is measured.

    python benchmarks/real.py                          # all rows, as a table in Markdown
    python benchmarks/real.py --only LoRA --models ~/.cache/kava-models
    python benchmarks/real.py --off                    # how far quantised caches are off

`--off` reads the longest four texts with each model, and prints the norm of the difference of all
keys and of all values to those of float32, over their norm.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from kava.data.collate import Collator
from kava.models.capture import capture
from kava.models.load import load_model, load_tokenizer
from kava.models.quiet import quiet_libraries
from kava.profile.memory import profile_memory
from kava.profile.peak import GIVES_BACK, measure_peak
from kava.train.build import build_run
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.longest import longest
from kava.train.reading import written_text
from kava.train.recording import peak_memory_bytes, reset_peak_memory
from step import measure
from timing import positive

STUDENT, TEACHER = "SmolLM2-135M-Instruct", "gemma-3-270m"
LORA = {"lora_r": 16}
UNDER = {**LORA, "teacher_name": TEACHER, "kv_method": "uniform", "map_proj_init_uniform": True}
ROWS: dict[str, dict[str, Any]] = {
    "full": {},
    "LoRA": LORA,
    "LoRA, checkpointing": {**LORA, "gradient_checkpointing": True},
    "LoRA, gemma float32": UNDER,
    "LoRA, gemma bfloat16": {**UNDER, "dtype": "bfloat16"},
    "LoRA, gemma 8bit": {**UNDER, "teacher_quantization": ["8bit"]},
    "LoRA, gemma 4bit": {**UNDER, "teacher_quantization": ["4bit"]},
}
FORMS = (("float32", "none"), ("bfloat16", "none"), ("float32", "8bit"), ("float32", "4bit"))


def config_of(args: argparse.Namespace, options: dict[str, Any]) -> TrainConfig:
    """The run of a row, on the built-in word problems."""
    folder = Path(args.models).expanduser()
    named = dict(options)
    if "teacher_name" in named:
        named["teacher_name"] = str(folder / named["teacher_name"])
    return TrainConfig(
        model_name=str(folder / STUDENT), dataset_name="kava/word-problems", subset_size=32,
        keep_short=True, batch_size=args.batch, aligner_fit="frozen", save_only_model=True,
        device="cpu", no_progress=True, output_dir=str(Path(tempfile.gettempdir()) / "real"),
        overwrite=True, **named,
    )  # fmt: skip


def contenders(config: TrainConfig) -> dict[str, Callable[[], None]]:
    """The step, its bare passes, and the model's own training step without its optimiser."""
    run = build_run(config)
    trainer, distiller = run.trainer, run.trainer.model.train()
    collate: Any = trainer.data_collator
    batch = collate(longest(run.data.train, config.batch_size))
    student: Any = distiller.student
    prompt = batch["prompt_ids"], batch["prompt_mask"]
    labels = batch["labels"]

    def own() -> None:
        student.base(batch["input_ids"], batch["attention_mask"], labels=labels).loss.backward()
        distiller.zero_grad()

    def step() -> None:
        distiller(batch).loss.backward()
        distiller.zero_grad()

    def bare() -> None:
        teacher = distiller.teacher
        if not isinstance(teacher, PreTrainedModel):
            text = student.base(batch["input_ids"], batch["attention_mask"], labels=labels).loss
        else:
            with torch.no_grad():
                theirs = batch.get("teacher", batch)
                teacher(theirs["input_ids"], theirs["attention_mask"], logits_to_keep=1)
            written = student.read_written(*prompt, written_text(batch))
            text = cross_entropy(written.logits.flatten(0, 1), written.text.labels.flatten())
        output = student(*prompt, batch["answer_ids"], trace=False)
        answer = cross_entropy(output.logits.flatten(0, 1), batch["answer_ids"].flatten())
        (text + answer).backward()
        distiller.zero_grad()

    return {"step": step, "bare passes": bare, "own": own}


def own_peak(config: TrainConfig) -> int:
    """Peak bytes of the model's own training step, the second of two; in a process of its own."""
    run = build_run(config)
    trainer, student = run.trainer, run.trainer.model.student
    model: Any = student.base
    trained = [part for part in model.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    collate: Any = trainer.data_collator
    batch = collate(longest(run.data.train, config.batch_size))
    for _ in range(2):
        reset_peak_memory(torch.device("cpu"))
        texts = batch["input_ids"], batch["attention_mask"]
        model.train()(*texts, labels=batch["labels"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return peak_memory_bytes(torch.device("cpu"))


def child(args: argparse.Namespace, what: str, options: dict[str, Any]) -> Any:
    """What a fresh process prints of one row."""
    asked = json.dumps([what, options])
    command = [sys.executable, __file__, "--child", asked, "--models", args.models]
    command += ["--batch", str(args.batch), "--repeats", str(args.repeats)]
    memory = GIVES_BACK if what == "own" else {}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **memory}, check=False
    )
    if done.returncode:
        raise SystemExit(f"{what} of {options}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def be_child(args: argparse.Namespace) -> None:
    """Measure one thing, and print it."""
    quiet_libraries()
    torch.set_num_threads(1)
    what, options = json.loads(args.child)
    config = config_of(args, options)
    if what in ("own", "estimate"):
        found = own_peak(config) if what == "own" else profile_memory(config).peak
        print(json.dumps(found))
        return
    functions = contenders(config)
    functions.pop("own")
    print(json.dumps(measure(functions, args.repeats)))


def print_off(args: argparse.Namespace) -> None:
    """How far keys and values are off in each form of the weights, as a table in Markdown."""
    print("| model | weights | keys | values | bytes ÷ float32 | s a pass |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in (STUDENT, TEACHER):
        folder = str(Path(args.models).expanduser() / name)
        config = replace(config_of(args, {}), model_name=folder)
        tokenizer = load_tokenizer(folder)
        samples = longest(load_data(config, tokenizer).train, 4)
        batch = Collator(tokenizer.pad_token_id)(samples)
        texts = batch["input_ids"], batch["attention_mask"]
        whole: Any = None
        for dtype, bits in FORMS:
            model = load_model(folder, dtype=dtype, quantization=bits)
            with torch.no_grad():
                capture(model, *texts, hidden_states=False, logits_to_keep=1)  # packs the weights
                start = time.perf_counter()
                _, trace = capture(model, *texts, hidden_states=False, logits_to_keep=1)
                seconds = time.perf_counter() - start
            size = model.get_memory_footprint()
            whole = (trace, size) if whole is None else whole
            valid = texts[1].bool()[:, None, None, :, None]
            pairs = (trace.keys, whole[0].keys), (trace.values, whole[0].values)
            off = [
                float(((ours.float() - theirs) * valid).norm() / (theirs * valid).norm())
                for ours, theirs in pairs
            ]
            form = dtype if bits == "none" else bits
            print(
                f"| {name} | {form} | {off[0]:.3f} | {off[1]:.3f} | {size / whole[1]:.2f} | "
                f"{seconds:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models = os.environ.get("KAVA_MODELS", "~/.cache/kava-models")
    parser.add_argument("--models", default=models, help="folder that holds both models")
    parser.add_argument("--batch", type=positive, default=2, help="samples")
    parser.add_argument("--repeats", type=positive, default=2, help="counted rounds of a step")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), help="rows")
    parser.add_argument("--off", action="store_true", help="only how far caches are off")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        be_child(args)
        return
    for name in (STUDENT, TEACHER):
        if not (Path(args.models).expanduser() / name).is_dir():
            raise SystemExit(f"{args.models} holds no {name}: name its folder by --models")
    quiet_libraries()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    if args.off:
        print_off(args)
        return
    print("| step | s | ÷ bare | peak GB | ÷ own | estimate GB | off |")
    print("|---|---|---|---|---|---|---|", flush=True)
    owns: dict[str, int] = {}
    for label in args.only:
        options = ROWS[label]
        alone = {k: v for k, v in options.items() if k in ("lora_r", "gradient_checkpointing")}
        key = json.dumps(alone)
        owns[key] = owns.get(key) or child(args, "own", alone)
        seconds = child(args, "time", options)
        ratios = [a / b for a, b in zip(seconds["step"], seconds["bare passes"])]
        config = config_of(args, options)
        estimate, peak = child(args, "estimate", options), measure_peak(config).bytes
        print(
            f"| {label} | {statistics.median(seconds['step']):.1f} | "
            f"{statistics.median(ratios):.2f} | {peak / 1e9:.2f} | {peak / owns[key]:.2f} | "
            f"{estimate / 1e9:.2f} | {estimate / peak - 1:+.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
