"""What is known of a session from its transcript, however that was left."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from mas.agent.transcript import Transcript
from mas.model import Usage

ID = str(uuid.uuid4())
SONNET = {
    "inputTokens": 100,
    "outputTokens": 20,
    "cacheReadInputTokens": 3,
    "cacheCreationInputTokens": 4,
    "costUSD": 0.4,
}
HAIKU = {"inputTokens": 1, "outputTokens": 2, "costUSD": 0.1}


@pytest.fixture
def transcript(tmp_path: Path) -> Transcript:
    (tmp_path / "projects" / "-shared-7f0c-count").mkdir(parents=True)
    return Transcript(str(tmp_path), ID)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "projects" / "-shared-7f0c-count" / f"{ID}.jsonl"


def cost_state(**fields: Any) -> str:
    """A line as the CLI writes it when it leaves."""
    state = {"type": "cost-state", "sessionId": ID, "totalCostUSD": 0.5}
    state |= {"modelUsage": {"sonnet": SONNET, "haiku": HAIKU}} | fields
    return json.dumps(state, separators=(",", ":")) + "\n"


def test_a_session_without_a_transcript_has_not_begun(
    transcript: Transcript, path: Path
) -> None:
    assert not transcript.exists()
    assert transcript.usage() == Usage()
    path.with_name(f"{uuid.uuid4()}.jsonl").touch()
    assert not transcript.exists()
    path.touch()
    assert transcript.exists()
    assert transcript.usage() == Usage()


def test_no_session_has_begun_where_there_is_no_folder(tmp_path: Path) -> None:
    assert not Transcript(str(tmp_path / "nowhere"), ID).exists()


def test_the_last_account_counts_and_what_is_damaged_is_passed_over(
    transcript: Transcript, path: Path
) -> None:
    lines = [
        cost_state(modelUsage={}, totalCostUSD=0.1),
        '{"type":"user","message":{"content":"\\"type\\":\\"cost-state\\""}}\n',
        cost_state(),
        cost_state(modelUsage=None),
        cost_state(modelUsage={"sonnet": {"inputTokens": "many"}}),
        cost_state()[:-40],
    ]
    path.write_text("".join(lines))
    assert transcript.usage() == Usage(
        input_tokens=101,
        output_tokens=22,
        cache_read_tokens=3,
        cache_write_tokens=4,
        cost_usd=0.5,
    )


def test_what_is_set_aside_frees_the_id_and_is_kept(
    transcript: Transcript, path: Path
) -> None:
    for text in ("first", "second"):
        path.write_text(text)
        transcript.set_aside()
        assert not transcript.exists()
    kept = sorted(it for it in path.parent.iterdir())
    assert [it.read_text() for it in kept] == ["first", "second"]


def test_what_is_no_file_is_not_waited_for(transcript: Transcript, path: Path) -> None:
    os.mkfifo(path)
    assert transcript.exists()
    assert transcript.usage() == Usage()
    transcript.set_aside()
    assert not transcript.exists()
