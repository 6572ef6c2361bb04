"""The store that an extraction writes: begun or gone on with, and filled batch by batch."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from kava import __version__
from kava.data.collate import Batch, Collator
from kava.data.encoded import Encoded
from kava.extract.items import Job, Read, target_items, whole_items
from kava.extract.request import said
from kava.files.locks import clear_folder
from kava.fit.paired_traces import moved
from kava.ranks import ALONE, Ranks
from kava.store.fingerprints import target_digest, text_digest
from kava.store.manifest import FULL, TARGETS, TIERS, Manifest, check_equal, is_store, read_manifest
from kava.store.parts import (
    check_parts_free,
    merge_parts,
    own_part,
    part_file,
    remove_unlisted,
)
from kava.store.reader import Tier
from kava.store.verify import whole_shards
from kava.store.writer import TierWriter
from kava.train.config import TrainConfig
from kava.train.kept import Keeper
from kava.train.scores import FILE_NAME

Reader = Callable[[Batch], Read]


class Work(NamedTuple):
    """Samples that are not stored yet, how they are read, and what keeps their positions."""

    jobs: list[Job]
    read: Reader
    keeper: Keeper | None


def begin(folder: Path, settings: dict[str, Any], config: TrainConfig, n: int) -> Manifest:
    """The manifest to go on from: that of an earlier extraction, or a new one.

    Raises:
        ValueError: the folder holds a store of other settings, or something else.
    """
    fresh = Manifest(
        settings=settings,
        data={"config": said(config), "teacher_index": n},
        version=__version__,
    )
    if config.overwrite:
        check_parts_free(folder)
        clear_folder(folder)
    elif is_store(folder):
        mend = "pass --overwrite to extract it anew, or name another folder"
        found = merge_parts(folder, begun(folder, settings, mend))
        usable, problems = whole_shards(folder, found)
        for problem in problems:
            print(f"kava: made up for: {problem}", flush=True)
        found = replace(found, shards=usable)
        if problems:
            found.save(folder)
        remove_unlisted(folder, found)
        return found
    else:
        others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if set(others) - {FILE_NAME}:
            raise ValueError(
                f"--store {folder} holds {others[0]} and no store: name an empty folder, or pass "
                f"--overwrite to clear it"
            )
    fresh.save(folder)
    return fresh


def begun(
    folder: Path,
    settings: dict[str, Any],
    mend: str = "its files are other ones for this process than for the first",
) -> Manifest:
    """The manifest of a store that an extraction with these settings has begun.

    Args:
        folder: of the store.
        settings: of this extraction.
        mend: what helps where they differ.

    Raises:
        ValueError: the store has other settings.
    """
    found = read_manifest(folder)
    for name, ours in settings.items():
        theirs = found.settings[name]
        whose = "this extraction has"
        if isinstance(ours, dict) and isinstance(theirs, dict):
            check_equal(folder, theirs, ours, mend, whose=whose)
        check_equal(folder, {name: theirs}, {name: ours}, mend, whose=whose)
    return found


def hash_of_jobs(batches: Sequence[Sequence[Job]]) -> str:
    """A hash of what is read in which batch."""
    found = hashlib.sha256()
    for some in batches:
        found.update(b"batch")
        for job in some:
            for digest in (job.full, job.target):
                found.update(b"-" if digest is None else digest)
    return found.hexdigest()


class StoreWriter:
    """Writes the tiers of a store.

    Args:
        folder: of the store, which is locked by the first process.
        manifest: to go on from.
        shard_bytes: size of a shard.
        ranks: the processes that write it, each shards with numbers of its own.
    """

    def __init__(self, folder: Path, manifest: Manifest, shard_bytes: int, ranks: Ranks = ALONE):
        self.folder = folder
        self.manifest = manifest
        self.ranks = ranks
        self.there = {tier: Tier(folder, manifest, tier) for tier in TIERS}
        if ranks.count == 1:
            self.tiers = {tier: TierWriter(folder, tier, shard_bytes) for tier in TIERS}
            for writer in self.tiers.values():
                writer.continue_from(manifest)
            return
        self.tiers = {
            tier: TierWriter(
                folder,
                tier,
                shard_bytes,
                file=part_file(ranks.index),
                numbers=itertools.count(manifest.next_number(tier) + ranks.index, ranks.count),
            )
            for tier in TIERS
        }

    def jobs(
        self, config: TrainConfig, samples: Sequence[Encoded], *, full: bool, targets: bool
    ) -> list[Job]:
        """The samples that are not stored yet, each once."""
        named = config.kv_method == "random"
        tokens = config.token_alignment
        found: list[Job] = []
        seen: set[bytes] = set()
        for sample in samples:
            whole = text_digest(sample, sample.teacher) if full else None
            kept = None
            if targets:
                kept = target_digest(sample, sample.teacher, tokens=tokens, named=named)
            if whole is not None and (self.there[FULL].row(whole) is not None or whole in seen):
                whole = None
            if kept is not None and (self.there[TARGETS].row(kept) is not None or kept in seen):
                kept = None
            seen.update(digest for digest in (whole, kept) if digest is not None)
            if whole is not None or kept is not None:
                found.append(Job(sample, whole, kept))
        return found

    @torch.no_grad()
    def write(
        self,
        work: Sequence[Work],
        collate: Collator,
        device: torch.device,
        batch_size: int,
        *,
        progress: bool,
    ) -> None:
        """Read samples and store them, shard by shard; each process reads its share of the batches.

        Raises:
            ValueError: numbers that the form cannot hold.
            OSError: a shard cannot be written.
            KavaError: the processes would not cut the same samples into the same batches.
            ProcessLost: another process has ended; what this one has read is stored.
        """
        whole_work = [
            (jobs[at : at + batch_size], read, keeper)
            for jobs, read, keeper in work
            for at in range(0, len(jobs), batch_size)
        ]
        hashed = hash_of_jobs([some for some, _, _ in whole_work])
        self.ranks.agree(lambda: hashed, str, "the samples or --batch_size")
        batches = self.ranks.share(whole_work)
        alone = self.ranks.count == 1
        whole = self.manifest
        with nullcontext(whole) if alone else own_part(self.folder, whole, self.ranks.index) as own:
            self.manifest = own
            total = sum(len(some) for some, _, _ in batches)
            with tqdm(total=total, unit=" samples", disable=not progress or not batches) as bar:
                for some, read, keeper in batches:
                    batch = moved(collate([job.sample for job in some]), device)
                    self._store(some, read, keeper, batch)
                    bar.update(len(some))
            for writer in self.tiers.values():
                self.manifest = writer.flush(self.manifest)
        self.ranks.wait()
        if self.ranks.first and not alone:
            self.manifest = merge_parts(self.folder, whole)

    def _store(self, some: list[Job], read: Reader, keeper: Keeper | None, batch: Batch) -> None:
        settings = self.manifest.settings
        own = settings["targets"] is not None and settings["targets"]["token_alignment"] == "none"
        found = read(batch)
        queries = settings["whole_queries"]
        for item in whole_items(found, batch.get("teacher", batch), some, queries):
            self.manifest = self.tiers[FULL].add(item, self.manifest)
        if keeper is not None and any(job.target is not None for job in some):
            kept = found.in_the_text(keeper(found.trace, batch, scores=True))
            for item in target_items(found, kept, batch, some, own and "teacher" in batch):
                self.manifest = self.tiers[TARGETS].add(item, self.manifest)
