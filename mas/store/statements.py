"""The SQL that writes the supervisor's tables."""

from typing import Final

# One statement a batch: 0.3 ms for one row, of which the disk has the larger part, and
# 9 ms for a thousand. The rows of subtask_results follow from the same arrays, so a
# result crosses the connection once. ON CONFLICT costs a fifth more, so it is for a
# batch that is repeated.
_OWNED: Final = "EXISTS (SELECT FROM tasks WHERE id = $1 AND owner_epoch = $2)"
_BATCH: Final = f"""
    WITH batch AS (
        SELECT seq, at, type, event::jsonb
        FROM unnest($3::bigint[], $4::timestamptz[], $5::text[], $6::text[])
            AS row (seq, at, type, event)
        WHERE {_OWNED}
    )"""
_RESULTS: Final = """, results AS (
        INSERT INTO subtask_results (
            task_id, subtask_id, attempt, agent_id, status, output, error, failure,
            execution_time, usage, started_at, finished_at
        )
        SELECT
            $1, event ->> 'subtask_id', (event ->> 'attempt')::integer,
            event ->> 'agent_id', event ->> 'status',
            nullif(event -> 'output', 'null'), event ->> 'error', event ->> 'failure',
            (event ->> 'execution_time')::double precision, event -> 'usage',
            at - make_interval(secs => (event ->> 'execution_time')::double precision),
            at
        FROM batch
        WHERE type = 'attempt_finished'
        """
_EVENTS: Final = """
    INSERT INTO task_events (task_id, seq, at, type, event)
    SELECT $1, seq, at, type, event FROM batch
    """
_REPEATED: Final = "ON CONFLICT DO NOTHING"

APPEND: Final = {
    # (results among them, repeated) -> statement
    (False, False): _BATCH + _EVENTS,
    (False, True): _BATCH + _EVENTS + _REPEATED,
    (True, False): _BATCH + _RESULTS + ")" + _EVENTS,
    (True, True): _BATCH + _RESULTS + _REPEATED + ")" + _EVENTS + _REPEATED,
}

COUNT_KEPT: Final = f"""
    SELECT count(*)
    FROM task_events AS kept
    JOIN unnest($3::bigint[], $4::timestamptz[], $5::text[]) AS sent (seq, at, type)
        USING (seq, at, type)
    WHERE kept.task_id = $1 AND {_OWNED}
    """

INSERT_TASK: Final = """
    INSERT INTO tasks (
        id, description, status, plan, created_at, updated_at, owner, owner_epoch
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, 1)
    """
IS_SAME_TASK: Final = """
    SELECT FROM tasks
    WHERE id = $1 AND created_at = $2 AND owner IS NOT DISTINCT FROM $3
        AND owner_epoch = 1
    """
SET_PLAN: Final = "UPDATE tasks SET plan = $3, updated_at = $2 WHERE id = $1"
SUSPEND_TASK: Final = """
    UPDATE tasks SET suspended = $3, updated_at = $2 WHERE id = $1
    """
FINISHED_CHANNEL: Final = "mas_finished"
FINISH_TASK: Final = f"""
    WITH finished AS (
        UPDATE tasks
        SET status = $3, result = $4, error = $5, updated_at = $2, finished_at = $2,
            suspended = NULL
        WHERE id = $1
        RETURNING id
    )
    SELECT pg_notify('{FINISHED_CHANNEL}', id) FROM finished
    """
RESUME_TASK: Final = """
    UPDATE tasks SET suspended = NULL, updated_at = $2 WHERE id = $1
    """
TAKE_TASK: Final = """
    UPDATE tasks
    SET owner = $2, owner_epoch = owner_epoch + 1, updated_at = now()
    WHERE id = $1 AND finished_at IS NULL
    RETURNING owner_epoch
    """
STATUS: Final = "SELECT status FROM tasks WHERE id = $1"
EPOCH: Final = "SELECT owner_epoch FROM tasks WHERE id = $1"

COMMANDS_CHANNEL: Final = "mas_commands"
# One that waits already says the same; and so it can be repeated.
REQUEST_CANCEL: Final = f"""
    WITH asked AS (
        INSERT INTO task_commands (task_id, command, reason)
        SELECT $1, 'cancel', $2
        WHERE NOT EXISTS (
            SELECT FROM task_commands WHERE task_id = $1 AND taken_at IS NULL
        )
    )
    SELECT pg_notify('{COMMANDS_CHANNEL}', $1)
    """
PENDING_COMMANDS: Final = """
    SELECT id, reason FROM task_commands
    WHERE task_id = $1 AND taken_at IS NULL
    ORDER BY id
    """
MARK_TAKEN: Final = """
    UPDATE task_commands SET taken_at = now() WHERE id = ANY ($1::bigint[])
    """
# Asked of an owner that is gone. Who finds no owner takes the task instead of asking.
DROP_COMMANDS: Final = """
    UPDATE task_commands SET taken_at = now() WHERE task_id = $1 AND taken_at IS NULL
    """

LOCK_KEY: Final = "hashtextextended({}, 7168371)"
"""A task's advisory lock. 7168371 is ``mas`` in ASCII: no other program's hash."""
LOCK: Final = f"SELECT pg_try_advisory_lock({LOCK_KEY.format('$1')})"
UNLOCK: Final = f"SELECT pg_advisory_unlock({LOCK_KEY.format('$1')})"

END_SESSION: Final = """
    SELECT pg_terminate_backend(pid, 2000) AS has_ended FROM pg_stat_activity
    WHERE application_name = $1 AND pid <> pg_backend_pid()
    """

# set_config(…, true) holds for this statement's own transaction and no longer.
WRITE_LOGS: Final = """
    WITH quick AS MATERIALIZED (
        SELECT set_config('synchronous_commit', 'off', true)
    )
    INSERT INTO agent_logs (at, agent_id, task_id, subtask_id, level, message)
    SELECT at, agent_id, task_id, subtask_id, level, message
    FROM quick, unnest(
        $1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]
    ) AS row (at, agent_id, task_id, subtask_id, level, message)
    """
