"""Write a student's folder for others: the model, what it needs beside, and its model card."""

from __future__ import annotations

from pathlib import Path

from kava.files.locks import lock_file
from kava.files.write import naming, new_folder
from kava.inputs import read_json
from kava.models.lora import has_lora, merge_lora
from kava.share.card import model_card
from kava.share.facts import facts_of
from kava.share.licences import CARD, licence_of
from kava.student.checkpoint import LoadedStudent, save_student
from kava.student.config import base_of
from kava.student.exported import SIDE_SETTINGS, write_exported
from kava.student.latent import LatentStudent
from kava.student.ready import set_ends
from kava.student.settings import SETTINGS_FILE
from kava.train.recorded import recorded_values

KEPT = ("student", "step", "template", "data_hash", "versions")
"""What the `kava.json` of an exported explicit student says; paths and flags are left out."""

EXPORTED = "exported"


def export_student(
    student: LoadedStudent,
    folder: str | Path,
    *,
    name: str,
    command: str,
    overwrite: bool = False,
    ask_hub: bool = False,
) -> None:
    """Write a trained student in a form that other programs read, with its model card.

    An explicit student becomes a plain model of transformers; a latent one its base model with a
    side file (`kava.student.exported`). LoRA adapters are added to the weights. The folder appears
    whole or not at all.

    Args:
        student: the result of `load_student` for a checkpoint; its adapters are merged in place.
        folder: where to.
        name: title of the model card.
        command: the command that exports, for the card.
        overwrite: replace an export that is there.
        ask_hub: ask the hub for the licences of its models.

    Raises:
        ValueError: no checkpoint of a trained student, or a folder in the way.
        OSError: it cannot be written; an export that was there is as it was.

    Example:
        >>> export_student(load_student("outputs/run"), "exported", name="mine", command="…")
    """
    folder = Path(folder)
    if not (Path(student.path) / SETTINGS_FILE).is_file():
        raise ValueError(
            f"{student.path} is no checkpoint of kava train: there is nothing to export beyond "
            f"what it is"
        )
    model, tokenizer, settings = student.model, student.tokenizer, student.settings
    if has_lora(base_of(model)):
        merge_lora(base_of(model))
    facts = facts_of(student.path)
    models = [facts.config.get("model_name"), *facts.teachers]
    card = model_card(
        facts,
        name=name,
        licences={one: licence_of(one, ask_hub=ask_hub) for one in models if one is not None},
        dtype=str(base_of(model).dtype).removeprefix("torch."),
        command=command,
    )
    with lock_file(folder, "kava export"):
        check_target(folder, overwrite=overwrite)
        with new_folder(folder) as partial:
            with naming(folder / CARD):
                (partial / CARD).write_text(card, encoding="utf-8")
            if isinstance(model, LatentStudent):
                write_exported(partial, model, tokenizer, student.template, settings)
            else:
                set_ends(model, tokenizer)
                kept = {key: settings[key] for key in KEPT if key in settings}
                kept["config"] = recorded_values(settings, ["max_new_tokens"])
                save_student(partial, model, tokenizer, {**kept, EXPORTED: True})


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder in the way of an export.

    Raises:
        ValueError: a folder that is there, without `overwrite`, or with something else in it.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not _is_ours(folder):
        raise ValueError(
            f"--output_dir {folder} holds other files, which no export takes away; name another "
            f"folder"
        )
    if not overwrite:
        raise ValueError(
            f"--output_dir {folder} holds an exported student already: pass --overwrite to "
            f"replace it, or name another folder"
        )


def _is_ours(folder: Path) -> bool:
    if (folder / SIDE_SETTINGS).is_file():
        return True
    try:
        settings = read_json(folder / SETTINGS_FILE)
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and EXPORTED in settings
