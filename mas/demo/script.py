"""The whole script: the planner's answer and a conversation for each subtask."""

from mas.demo import analysis, loading, reporting
from mas.demo.dialogue import NOTHING_USED, conversation
from mas.demo.plan import subtasks
from mas.testing import Conversation, Script, Turn, plan, planner

THINKING_S = 0.15
"""Before each answer; a real model takes longer."""

_DIALOGUES = {
    "inspect": loading.inspect,
    "load": loading.load,
    "profile": analysis.profile,
    "correlation": analysis.correlation,
    "outliers": analysis.outliers,
    "statistics": analysis.statistics,
    "chart": reporting.chart,
    "report": reporting.report,
}


def script(file_name: str) -> Script:
    """What scripted Claude plays for a table of this name."""
    planned = Turn([plan(subtasks(file_name))], usage=NOTHING_USED)
    conversations = [conversation(key, turns) for key, turns in _DIALOGUES.items()]
    return Script([Conversation(planner, [planned]), *conversations])
