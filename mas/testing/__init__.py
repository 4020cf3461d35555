'''Scripted Claude: the Messages API on loopback, playing a script.

The real Claude CLI, the Agent SDK and the ``anthropic`` client talk to it as to the
real one, with no key and no tokens. A script is a list of conversations; each says
whose requests it answers, and with which turns:

>>> from anthropic import Anthropic
>>> from mas.testing import Conversation, Fault, ScriptedClaude, text, tool_use
>>> script = [
...     Conversation(
...         "count the lines",
...         [
...             [text("I count."), tool_use("Bash", command="wc -l < names.txt")],
...             lambda request: f"There are {request.last_tool_result}.",
...         ],
...     ),
...     Conversation("be unlucky", [Fault.status(529), "At last."]),
... ]

A turn is a list of content blocks, a ``Turn`` that sets more, a str for text alone, or
a function that makes one of these from the ``Request``. Leaving the ``with`` ends the
server and every stream that is still open:

>>> def ask(claude, *messages):
...     """Return the blocks of the answer; the user speaks first, then by turns."""
...     roles = ["user", "assistant"] * len(messages)
...     with Anthropic(base_url=claude.url, api_key="any", max_retries=5) as client:
...         return client.messages.create(
...             model="claude-sonnet-5-5",
...             max_tokens=1000,
...             messages=[
...                 {"role": role, "content": content}
...                 for role, content in zip(roles, messages)
...             ],
...         ).content
>>> with ScriptedClaude(script) as claude:
...     said, called = ask(claude, "Please count the lines.")
...     result = {"type": "tool_result", "tool_use_id": called.id, "content": "7"}
...     (answer,) = ask(claude, "Please count the lines.", [said, called], [result])
>>> called.input
{'command': 'wc -l < names.txt'}
>>> answer.text
'There are 7.'

Which turn is played is read from the request: as many as the history has answers. So a
client that asks again, and a session resumed in another process, hear the same again.
Only faults are counted. They come before the turn that follows them in the list:

>>> with ScriptedClaude(script) as claude:
...     (answer,) = ask(claude, "Now be unlucky.")
>>> answer.text, [request.status for request in claude.requests]
('At last.', [529, 200])

What no conversation matches, and what comes after the last turn, is answered with 400.
End a test with ``assert claude.errors == []``, and a script too short is noticed:

>>> claude.errors
[]

For the Claude CLI, pass ``claude.environment``, and a CLAUDE_CONFIG_DIR that is the
test's own, so that it finds no settings of yours::

    options = ClaudeAgentOptions(
        cwd=folder,
        env=claude.environment | {"CLAUDE_CONFIG_DIR": str(folder / "config")},
        setting_sources=[],
        tools=["Bash", "Write"],
        allowed_tools=["Bash"],
        permission_mode="acceptEdits",
    )

``Conversation(planner, [[plan([...])]])`` answers the planner of mas; put it first.
Subagents are conversations of their own, matched by the prompt that started them.
'''

from mas.testing.request import Request
from mas.testing.script import Conversation, Script, ScriptError, planner
from mas.testing.server import ScriptedClaude
from mas.testing.turns import Block, Fault, Turn, TurnLike, plan, text, tool_use
from mas.testing.upstream import ScriptedUpstream

__all__ = [
    "Block",
    "Conversation",
    "Fault",
    "Request",
    "Script",
    "ScriptError",
    "ScriptedClaude",
    "ScriptedUpstream",
    "Turn",
    "TurnLike",
    "plan",
    "planner",
    "text",
    "tool_use",
]
