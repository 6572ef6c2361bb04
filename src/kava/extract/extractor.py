"""The extractor that users of earlier scripts know: texts in, keys and values out.

Shapes: L layers, B texts, T tokens, H key/value heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kava import __version__
from kava.extract.request import ExtractConfig, Request
from kava.extract.run import extract
from kava.flags.aliases import ANYWHERE
from kava.flags.known import Instead
from kava.models.chunked import capture_in_chunks
from kava.models.devices import choose_device
from kava.models.load import load_model, load_tokenizer
from kava.store.fingerprints import weights_fingerprint
from kava.store.tensor_file import TensorFile, write_tensors
from kava.trace import KVTrace, join_samples

_TENSORS = ("keys", "values", "input_ids", "attention_mask")


class TeacherKVExtractor:
    """Reads texts with a model, and gives the cache that they leave behind.

    For training, `kava extract` writes a store; this is for looking at caches.

    Args:
        model_name_or_path: as in `kava.load_model`.
        device: auto, cpu, cuda, cuda:N or mps.
        max_length: most tokens of a text; a longer one is refused, and never cut.
        batch_size: texts of a forward.
        trust_remote_code, cache_dir: refused, as by every command.
        dtype: of the weights; "auto" takes the checkpoint's.
        capture_chunk: tokens of a forward, for long texts; None reads whole texts.

    Raises:
        ValueError: an argument that is refused, or a model that cannot be loaded.
        OSError: a folder or hub model that cannot be read.

    Example:
        >>> extractor = TeacherKVExtractor("kava/tiny-llama", device="cpu")
        >>> kvs = extractor.extract_kvs(["2 + 2 is 4.", "So it is."], show_progress=False)
        >>> kvs["keys"].shape[:2]  # [L, B, T, H·D]
        torch.Size([2, 2])
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        device: str = "auto",
        max_length: int = 2048,
        batch_size: int = 4,
        trust_remote_code: bool = False,
        cache_dir: str | None = None,
        *,
        dtype: torch.dtype | str = "auto",
        capture_chunk: int | None = None,
    ):
        for name, value in (("trust_remote_code", trust_remote_code), ("cache_dir", cache_dir)):
            answer = ANYWHERE[name]
            if value and isinstance(answer, Instead):
                raise ValueError(f"{name}={value!r} {answer.answer}")
        if max_length < 1 or batch_size < 1 or (capture_chunk is not None and capture_chunk < 1):
            raise ValueError(
                f"max_length={max_length}, batch_size={batch_size} and "
                f"capture_chunk={capture_chunk} must be 1 or more"
            )
        self.name = str(model_name_or_path)
        self.max_length = max_length
        self.capture_chunk = capture_chunk
        self.batch_size = batch_size
        self.tokenizer = load_tokenizer(self.name)
        self.model = load_model(self.name, dtype=dtype, device=choose_device(device))

    @torch.no_grad()
    def extract_kvs(
        self, texts: Sequence[str], return_dict: bool = True, show_progress: bool = True
    ) -> dict[str, Any] | tuple[Tensor, Tensor]:
        """The keys and values of texts, padded on the right.

        Args:
            texts: one or more, none of them empty.
            return_dict: give all parts by name, else keys and values alone.
            show_progress: show a bar.

        Returns:
            keys and values [L, B, T, H·D], heads side by side and keys with their rotation, as the
            model caches them; input_ids and attention_mask [B, T]; metadata.

        Raises:
            ValueError: no text, an empty one, or one of more than `max_length` tokens.
        """
        if isinstance(texts, str) or not texts:
            raise ValueError("texts must be a list of one text or more")
        ids = [self.tokenizer(text)["input_ids"] for text in texts]
        for place, one in enumerate(ids):
            if not 0 < len(one) <= self.max_length:
                raise ValueError(
                    f"text {place} has {len(one)} tokens, and from 1 to max_length="
                    f"{self.max_length} are read: no text is cut"
                )
        width = max(map(len, ids))
        input_ids = torch.full((len(ids), width), int(self.tokenizer.pad_token_id))
        mask = torch.zeros(len(ids), width, dtype=torch.long)
        for row, one in enumerate(ids):
            input_ids[row, : len(one)] = torch.tensor(one)
            mask[row, : len(one)] = 1
        traces = []
        starts = range(0, len(ids), self.batch_size)
        for start in tqdm(starts, unit=" batches", disable=not show_progress):
            rows = slice(start, start + self.batch_size)
            _, trace = capture_in_chunks(
                self.model,
                input_ids[rows].to(self.model.device),
                mask[rows].to(self.model.device),
                chunk=self.capture_chunk,
                hidden_states=False,
                logits_to_keep=1,
            )
            traces.append(trace.to("cpu"))
        trace = join_samples(traces)
        keys, values = _side_by_side(trace)
        if not return_dict:
            return keys, values
        return {
            "keys": keys,
            "values": values,
            "input_ids": input_ids,
            "attention_mask": mask,
            "metadata": {
                "model": self.name,
                "weights": weights_fingerprint(self.model),
                "num_heads": trace.num_heads,
                "head_dim": trace.head_dim,
                "dtype": str(trace.keys.dtype).removeprefix("torch."),
                "version": __version__,
            },
        }

    def save_kvs(
        self, kvs: Mapping[str, Any], path: str | Path, save_metadata: bool = True
    ) -> None:
        """Write what `extract_kvs` gave into one safetensors file, its metadata in the header.

        Raises:
            OSError: it cannot be written.
        """
        parts = {name: kvs[name].contiguous() for name in _TENSORS}
        write_tensors(path, parts, kvs["metadata"] if save_metadata else {})

    @staticmethod
    def load_kvs(path: str | Path) -> dict[str, Any]:
        """Read what `save_kvs` wrote; tensors are views of the file.

        Raises:
            OSError: it is not there.
            ValueError: it is damaged.
        """
        file = TensorFile(path)
        return {**{name: file.tensor(name) for name in _TENSORS}, "metadata": file.manifest}


def extract_from_dataset(
    model_name: str,
    dataset_name: str,
    split: str = "train",
    output_dir: str | Path = "outputs/store",
    max_samples: int | None = None,
    batch_size: int = 4,
    text_column: str | None = None,
    **settings: Any,
) -> Path:
    """Store the whole texts of a data set, as `kava extract --full` does.

    Args:
        model_name: the teacher.
        dataset_name, split: as the flags of `kava train`.
        output_dir: folder of the store.
        max_samples: this many samples, taken at random; None: all.
        batch_size: samples of a forward.
        text_column: field of a raw text; None: question, reasoning and answer.
        **settings: further flags of `kava train`, such as `target_len=8`.

    Returns:
        The store's folder.

    Raises:
        ValueError, OSError, KavaError: as `kava extract`.

    Example:
        >>> extract_from_dataset("gpt2", "gsm8k", output_dir="outputs/gsm8k_store", max_samples=100)
    """
    values = {"overflow": "skip", "no_progress": True, **settings}
    config = ExtractConfig(
        teacher_name=model_name,
        dataset_name=dataset_name,
        split=split,
        subset_size=max_samples,
        batch_size=batch_size,
        text_field=text_column,
        **values,
    )
    (folder,) = extract(Request(config=config, store=Path(output_dir), full=True))
    return folder


def _side_by_side(trace: KVTrace) -> tuple[Tensor, Tensor]:
    """Keys and values [L, B, T, H·D]."""
    keys, values = (
        part.permute(1, 0, 3, 2, 4).flatten(3).contiguous() for part in (trace.keys, trace.values)
    )
    return keys, values
