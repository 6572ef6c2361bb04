"""Push a folder to the Hugging Face hub, in one commit, after everything that can be checked."""

from __future__ import annotations

from pathlib import Path

_OFFLINE = "the hub cannot be reached"
_OLD = (
    *("kava_latent.*", "kava.json", "model*.safetensors*", "generation_config.json"),
    *("chat_template.jinja", "tokenizer*"),
)
"""Files of an earlier export: they go where the new one has none of their name."""


def check_push(repository: str) -> None:
    """Refuse a push that cannot be done, before anything is written.

    Args:
        repository: user/name.

    Raises:
        ValueError: a name of another form, no token, or one that the hub does not take.
        OSError: the hub cannot be reached.

    Example:
        >>> check_push("me/my-student")
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
        fits = repository.count("/") == 1
    except HFValidationError:
        fits = False
    if not fits:
        raise ValueError(f"--push {repository}: name the repository as user/name")
    if constants.HF_HUB_OFFLINE:
        raise OSError(
            f"--push {repository}: {_OFFLINE} with HF_HUB_OFFLINE set; unset it, or leave --push "
            f"out"
        )
    if get_token() is None:
        raise ValueError(
            f"--push {repository} needs a token of the hub: log in with hf auth login, or set "
            f"HF_TOKEN"
        )
    try:
        HfApi().whoami()
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise ValueError(
                f"--push {repository}: the hub does not take this token; log in again with hf "
                f"auth login"
            ) from error
        raise OSError(f"--push {repository}: {_OFFLINE} ({_line(error)})") from error
    except Exception as error:  # no network, no name server, a proxy, …
        raise OSError(f"--push {repository}: {_OFFLINE} ({_line(error)})") from error


def push(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Push all files of a folder, as one commit.

    Args:
        folder: the folder.
        repository: user/name; made if it is not there.
        private: whether one that is made is private.

    Returns:
        the address of the repository.

    Raises:
        OSError: the hub refused it, or cannot be reached; the folder is there.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add the student")
    except Exception as error:  # no right to write there, no network, …
        raise OSError(
            f"--push {repository}: not pushed ({_line(error)}); {folder} is written whole: push "
            f"again with --overwrite, or with hf upload {repository} {folder}"
        ) from error
    return f"{hub.endpoint}/{repository}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
