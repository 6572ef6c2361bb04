"""Write the report of a study: one self-contained HTML file, and the same as Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava.files.locks import lock_file
from kava.files.write import replace_folder
from kava.format import counted
from kava.report import words
from kava.report.judgement import Judgement
from kava.report.logs import StudyLogs, load_study
from kava.report.sections import Section, sections_of
from kava.report.verdicts import judge

if TYPE_CHECKING:
    from jinja2 import Environment

REPORT_FOLDER = "report"
PAGE = "index.html"
MARKDOWN = "report.md"
TEMPLATES = Path(__file__).parent / "templates"
PICTURES = "pictures"

STATES = {
    "found": "A difference was found",
    "doubtful": "A difference, but in doubt",
    "none": "No gain was found",
    "open": "No verdict",
}
"""State of a judgement → text above the verdict."""

SIGNS = {"better": "▲", "worse": "▼", "no better": "=", "undecided": "?"}
"""Verdict → a sign, so that it does not depend on colour only."""


def write_report(folder: str | Path, output: str | Path | None = None) -> Path:
    """Make the page of a study, only from the logs of its runs.

    Args:
        folder: of the study.
        output: a folder for the report; an existing report is replaced. None: `report` in the
            study's folder.

    Returns:
        The path of the page. Next to it are report.md and, in pictures/, every picture as PNG and
        SVG.

    Raises:
        ValueError: a missing, truncated or edited log, or an output folder with other content; the
            message names it.
        OSError: the report cannot be written; no part of it is left.

    Example:
        >>> write_report("outputs/study/flat_vs_structured")
        PosixPath('outputs/study/flat_vs_structured/report/index.html')
    """
    folder = Path(folder)
    output = folder / REPORT_FOLDER if output is None else Path(output)
    _check_output(output)
    with lock_file(output, "kava study report"):
        replace_folder(output, _files(load_study(folder)))
    return output / PAGE


def _files(study: StudyLogs) -> dict[str, str | bytes]:
    """The files of the report: name within its folder → content."""
    judgement = judge(study)
    sections = sections_of(study, judgement)
    files: dict[str, str | bytes] = {
        PAGE: render_html(study, judgement, sections),
        MARKDOWN: render_markdown(study, judgement, sections),
    }
    for picture in (picture for section in sections for picture in section.pictures):
        files[f"{PICTURES}/{picture.name}.png"] = picture.png
        files[f"{PICTURES}/{picture.name}.svg"] = picture.svg
    return files


def _check_output(output: Path) -> None:
    if output.is_dir() and any(output.iterdir()) and not (output / PAGE).is_file():
        raise ValueError(f"{output} holds something other than a report; name another folder")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; name a folder for the report")


def render_html(study: StudyLogs, judgement: Judgement, sections: list[Section]) -> str:
    """The HTML page as text."""
    return (
        html_environment()
        .get_template("report.html.j2")
        .render(**_values(study, judgement, sections))
    )


def render_markdown(study: StudyLogs, judgement: Judgement, sections: list[Section]) -> str:
    """The same numbers as Markdown, for a paper's appendix."""
    environment = _environment(autoescape=False)
    environment.filters["cell"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    text = environment.get_template("report.md.j2").render(**_values(study, judgement, sections))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def html_environment(*folders: Path) -> Environment:
    """The Jinja environment of the page templates; other folders are searched first.

    Its filter `named` turns names between backticks into code, and keeps % on the number's line.
    """
    from markupsafe import Markup, escape

    def named(text: object) -> Markup:
        safe = str(escape(str(text))).replace(" %", "\u00a0%")
        return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", safe))

    environment = _environment(*folders, autoescape=True)
    environment.filters["named"] = named
    return environment


def _environment(*folders: Path, autoescape: bool) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _values(study: StudyLogs, judgement: Judgement, sections: list[Section]) -> dict[str, Any]:
    return {
        "study": study,
        "plan": study.plan,
        "judgement": judgement,
        "state": STATES[judgement.state],
        "signs": SIGNS,
        "missing": words.missing_sentence(study.unfinished),
        "sections": sections,
        "pictures": PICTURES,
        "num_seeds": counted(len(study.plan.seeds), "seed"),
        "num_items": counted(len(study.ids), "item"),
    }
