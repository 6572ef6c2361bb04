"""The report of a study: its logs, read strictly, and the conclusions that they support.

Nothing here loads torch.
"""

from kava.report.judgement import Judgement
from kava.report.logs import StudyLogs, load_study
from kava.report.page import write_report
from kava.report.verdicts import judge

__all__ = ["Judgement", "StudyLogs", "judge", "load_study", "write_report"]
