"""What a store of a teacher's cache costs and saves: steps, epochs, reading, memory, bytes.

    python benchmarks/store.py                      # all parts
    python benchmarks/store.py --part read --mib 512

*steps*: one step of training with a live teacher and from stores of its targets and of its whole
texts, in turns; the teacher's share of the live step; after how many epochs the extraction has
paid. The teacher is a Llama of random weights, larger than the student.
*read*: bytes a second of samples in order and shuffled, as batches in float32 that a step takes,
against a plain read of the same files (one buffer, in order), in turns in one run, shard by shard:
from the disk, where the system is told to forget the file before every turn, in wall seconds; and
from the system's memory, in CPU seconds of the one thread. The made samples are 24 kept positions
of 16 layers with 4 heads of 64.
*memory*: the peak of a process that reads a whole store shuffled, of stores of three sizes, in
shards of 8 MiB, four of which are mapped at a time.
*forms*: bytes a sample and the relative error of every form, on a trained teacher's cache.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kava.extract.request import ExtractConfig, Request
from kava.extract.run import extract
from kava.format import columns
from kava.models.load import load_model_config, load_tokenizer
from kava.store.manifest import FULL, TARGETS, Manifest, error_line, read_manifest
from kava.store.reader import Tier
from kava.store.teacher import TEACHER_FILE, StoredTeacher, teacher_parts
from kava.store.tensor_file import write_tensors
from kava.store.writer import Item, TierWriter
from kava.train.build import Run, build_run
from kava.train.config import TrainConfig
from timing import positive, resident_bytes

MIB = 2**20
GEOMETRY = 16, 4, 64
"""Layers, heads and head dim of the made samples: a student of some hundred million weights."""
KEPT = 24
BATCH = 16
AHEAD = 4
"""Samples that the system is told of before they are read."""


def median_seconds(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median wall seconds of each call, in rounds in which all take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def show(rows: Sequence[Sequence[str]]) -> None:
    print("\n".join(columns(rows, left=1)), flush=True)


def larger_teacher(folder: Path) -> str:
    """A Llama of random weights that reads the words of the built-in game."""
    config = load_model_config("kava/shell-llama").to_dict()
    config.update(hidden_size=512, intermediate_size=1536, num_hidden_layers=8)
    config.update(num_attention_heads=8, num_key_value_heads=4, head_dim=64)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(folder)
    load_tokenizer("kava/shell-llama").save_pretrained(folder)
    return str(folder)


def steps(args: argparse.Namespace) -> None:
    """Steps and epochs, live and from a store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings: dict[str, Any] = dict(  # noqa: C408
            model_name="kava/shell-llama",
            teacher_name=larger_teacher(folder / "teacher"),
            dataset_name=f"kava/shell-game?form=verbose&num_train={args.samples}",
            target_len=4, kv_method="rkv", alignment_mode="structured", calibration_samples=128,
            max_length=128, batch_size=BATCH, max_steps=1, text_ce_weight=0.0, no_progress=True,
            device="cpu", output_dir=str(folder / "run"),
        )  # fmt: skip
        start = time.perf_counter()
        extract(Request(config=ExtractConfig(**settings), store=folder / "store", full=True))
        extraction = time.perf_counter() - start
        stores: dict[str, dict[str, Any]] = {
            "live": {},
            "targets": {"store": [str(folder / "store")]},
            "full": {"store": [str(folder / "store")], "store_tier": "full"},
        }
        runs = {name: build_run(TrainConfig(**settings, **one)) for name, one in stores.items()}
        taken = median_seconds({name: stepper(run) for name, run in runs.items()}, args.rounds)
        read = median_seconds(
            {name: partial(read_teacher, run) for name, run in runs.items()},
            args.rounds,
        )
        per_epoch = args.samples / BATCH
        rows = [("", "ms a step", "teacher or store, ms", "share", "s an epoch", "of live")]
        for name, seconds in taken.items():
            rows.append(
                (
                    name,
                    f"{1e3 * seconds:.1f}",
                    f"{1e3 * read[name]:.2f}",
                    f"{read[name] / seconds:.1%}",
                    f"{seconds * per_epoch:.1f}",
                    f"{seconds / taken['live']:.2f}",
                )
            )
        show(rows)
        saved = (taken["live"] - taken["targets"]) * per_epoch
        print(
            f"extraction of both tiers: {extraction:.1f} s for {args.samples:,} samples, paid "
            f"after {extraction / saved:.1f} epochs"
            if saved > 0
            else "a step from the store is no quicker here"
        )


_ORDER = random.Random(0)


def read_teacher(run: Run) -> None:
    """The teacher's part of a step, live or stored."""
    run.trainer.model._read_teacher(next_batch(run))


def next_batch(run: Run) -> Any:
    """A batch of random samples."""
    samples: Any = run.data.train
    return run.trainer.data_collator(
        [samples[_ORDER.randrange(len(samples))] for _ in range(BATCH)]
    )


def stepper(run: Run) -> Callable[[], None]:
    """A step of training on another batch each time."""
    distiller = run.trainer.model.train()
    optimizer = torch.optim.AdamW([p for p in distiller.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        distiller(next_batch(run)).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def made_store(folder: Path, mib: int, shard_bytes: int = 64 * MIB) -> Manifest:
    """A store of random targets."""
    L, H, D = GEOMETRY
    manifest = Manifest(
        settings={
            "teacher": {"name": "made", "dtype": "float32", "weights": ""},
            "geometry": {"keys": GEOMETRY, "values": GEOMETRY},
            "targets": {
                "scope": "model", "slots": KEPT, "key_space": "unrotated", "token_alignment": "",
            },
            "include": [],
            "whole_queries": False,
            "form": "float32",
        }
    )  # fmt: skip
    folder.mkdir(parents=True)
    tensors, about = teacher_parts(None, None)
    write_tensors(folder / TEACHER_FILE, tensors, {**about, "store": manifest.store_id})
    writer = TierWriter(folder, TARGETS, shard_bytes)
    noise = torch.randn(2, L, H, KEPT, D)
    slots = torch.arange(KEPT, dtype=torch.int32)
    size = noise.nbytes
    for number in range(mib * MIB // size):
        cache = {"keys": noise[0] + number, "values": noise[1]}
        item = Item(
            id=str(number), digest=number.to_bytes(16, "little"), length=KEPT, cache=cache,
            slots={"columns": slots, "positions": slots}, whole={},
        )  # fmt: skip
        manifest = writer.add(item, manifest)
    return writer.flush(manifest)


def forget(paths: Sequence[Path]) -> None:
    """Have the system drop what it holds of files in memory."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def plain_read(paths: Sequence[Path]) -> int:
    """Read files in order, into one buffer."""
    buffer = bytearray(MIB)
    total = 0
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total


def batches(count: int, shuffled: bool) -> Iterator[list[int]]:
    order = list(range(count))
    if shuffled:
        random.Random(1).shuffle(order)
    for start in range(0, count, BATCH):
        yield order[start : start + BATCH]


def read_batch(teacher: StoredTeacher, rows: Sequence[int]) -> None:
    """A batch of a step: keys and values in float32, with what belongs to them."""
    mask = torch.ones(len(rows), 64, dtype=torch.long)
    stored = torch.tensor(list(rows))[:, None]
    teacher.read({"stored": stored, "attention_mask": mask, "input_ids": mask})


def read_all(teacher: StoredTeacher, shuffled: bool) -> None:
    """Read every sample of a store, as the batches of a step."""
    for rows in batches(len(teacher.steps), shuffled):
        read_batch(teacher, rows)


def opened(folder: Path, manifest: Manifest, checks: bool = False) -> StoredTeacher:
    teacher = StoredTeacher(folder, manifest, TARGETS, None)  # type: ignore[arg-type]
    teacher.steps.checks = checks
    return teacher


def copied(tier: Tier, rows: Sequence[int], buffer: torch.Tensor) -> None:
    """Copy keys and values of samples into one buffer, as a plain read does with bytes."""
    names = ["keys", "values"]
    tier.announce(rows[:AHEAD], names)
    for start in range(0, len(rows), AHEAD):
        tier.announce(rows[start + AHEAD : start + 2 * AHEAD], names)
        for row in rows[start : start + AHEAD]:
            if tier.checks:
                tier.read(row, [])
            tier.read_into(row, "keys", buffer[0])
            tier.read_into(row, "values", buffer[1])


KINDS = (
    "plain read", "samples in order", "samples shuffled", "shuffled, checksums",
    "batches of a step",
)  # fmt: skip


def read(args: argparse.Namespace) -> None:
    """Throughput against a plain read of the same files, shard by shard and in turns."""
    L, H, D = GEOMETRY
    buffer = torch.empty(2, L, H, KEPT, D)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name) / "store"
        manifest = made_store(folder, args.mib, shard_bytes=16 * MIB)
        for where in ("disk", "memory"):
            ratios: dict[str, list[float]] = {}
            rates: dict[str, list[float]] = {}
            for turn in range(args.rounds):
                for number, shard in enumerate(manifest.shards):
                    path, count = shard.path(folder), shard.num_samples
                    first = sum(one.num_samples for one in manifest.shards[:number])
                    rows = list(range(first, first + count))
                    mixed = random.Random(turn).sample(rows, count)
                    order = list(KINDS)
                    random.Random(turn + number).shuffle(order)
                    seconds = {}
                    for kind in order:
                        teacher = opened(folder, manifest, "checksums" in kind)
                        if where == "disk":
                            forget([path])
                        else:
                            plain_read([path])
                        clock = time.perf_counter if where == "disk" else time.thread_time
                        start = clock()
                        if kind == "plain read":
                            plain_read([path])
                        elif kind == "batches of a step":
                            read_rows(teacher, mixed)
                        else:
                            copied(teacher.steps, rows if "order" in kind else mixed, buffer)
                        seconds[kind] = clock() - start
                    for kind, taken in seconds.items():
                        ratios.setdefault(kind, []).append(seconds["plain read"] / taken)
                        rates.setdefault(kind, []).append(shard.num_bytes / taken / MIB)
            clock_name = "wall" if where == "disk" else "CPU"
            head = (f"from the {where}", f"MiB/s ({clock_name})", "of the plain read")
            table = [head]
            for kind in KINDS:
                rate, ratio = statistics.median(rates[kind]), statistics.median(ratios[kind])
                table.append((kind, f"{rate:,.0f}", f"{ratio:.2f}"))
            show(table)


def read_rows(teacher: StoredTeacher, rows: Sequence[int]) -> None:
    for start in range(0, len(rows), BATCH):
        read_batch(teacher, rows[start : start + BATCH])


def memory(args: argparse.Namespace) -> None:
    """Peak memory of a process that reads a store, by the store's size."""
    rows = [("store, MiB", "samples", "peak above the start, MiB")]
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        for mib in (args.mib // 2, args.mib, 2 * args.mib):
            folder = Path(name) / str(mib)
            manifest = made_store(folder, mib, shard_bytes=8 * MIB)
            done = subprocess.run(
                [sys.executable, __file__, "--peak", str(folder)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            samples = sum(shard.num_samples for shard in manifest.shards)
            rows.append((str(mib), str(samples), done.stdout.strip()))
    show(rows)


def peak(folder: Path) -> None:
    """Print the peak of this process over two shuffled readings of a store, in MiB."""
    manifest = read_manifest(folder)
    start = resident_bytes("VmRSS")
    teacher = opened(folder, manifest, checks=True)
    read_all(teacher, True)
    read_all(teacher, True)
    print(f"{(resident_bytes('VmHWM') - start) / MIB:.0f}")


def forms(args: argparse.Namespace) -> None:
    """Bytes a sample and error of every form, on a trained teacher's cache."""
    rows: list[tuple[str, ...]] = [("", "targets, bytes a sample", "full, bytes a sample")]
    told = []
    with tempfile.TemporaryDirectory() as name:
        for form in ("float32", "bfloat16", "float16", "int8"):
            folder = Path(name) / form
            config = ExtractConfig(
                teacher_name=args.teacher_name, dataset_name=args.dataset_name, target_len=4,
                kv_scope="model", max_length=args.max_length, overflow="skip",
                batch_size=args.batch_size, no_progress=True, device="cpu",
            )  # fmt: skip
            extract(Request(config=config, store=folder, full=True, form=form))
            manifest = read_manifest(folder)
            sizes = []
            for tier in (TARGETS, FULL):
                shards = manifest.of_tier(tier)
                samples = sum(shard.num_samples for shard in shards)
                sizes.append(f"{sum(shard.num_bytes for shard in shards) // samples:,}")
                told.append(f"{tier}, {error_line(manifest, tier)}")
                assert len(Tier(folder, manifest, tier)) == samples
            rows.append((form, *sizes))
    show(rows)
    print("\n".join(told))


PARTS = {"steps": steps, "read": read, "memory": memory, "forms": forms}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, default=None)
    parser.add_argument("--samples", type=positive, default=512, help="of an epoch")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--mib", type=positive, default=256, help="size of the made store")
    parser.add_argument("--folder", default=None, help="where the made stores are written")
    parser.add_argument("--teacher_name", default="kava/word-teacher", help="of the forms")
    parser.add_argument("--dataset_name", default="kava/word-problems?num_train=64")
    parser.add_argument("--max_length", type=positive, default=128)
    parser.add_argument("--batch_size", type=positive, default=8)
    parser.add_argument("--peak", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.peak is not None:
        peak(args.peak)
        return
    for name, part in PARTS.items():
        if args.part in (None, name):
            print(f"\n{name}")
            part(args)


if __name__ == "__main__":
    main()
