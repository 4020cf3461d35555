-- The tables of mas. They live in the connection's default schema.

CREATE TABLE tasks (
    id          text PRIMARY KEY,
    description text NOT NULL,
    status      text NOT NULL CHECK (
        status IN ('pending', 'in_progress', 'completed', 'failed', 'cancelled')
    ),
    plan        jsonb,
    result      jsonb,
    error       text,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    finished_at timestamptz,
    owner       text,
    owner_epoch bigint NOT NULL
);
CREATE INDEX tasks_by_status ON tasks (status);
CREATE INDEX tasks_by_creation ON tasks (created_at);

-- The journal. No foreign keys here and below: each commit checks the task's
-- owner_epoch, so the task is there, and a key check a row would double the cost.
CREATE TABLE task_events (
    task_id text NOT NULL,
    seq     bigint NOT NULL,
    at      timestamptz NOT NULL,
    type    text NOT NULL,
    event   jsonb NOT NULL,
    PRIMARY KEY (task_id, seq)
);

-- One row an attempt that ended. The unique key also finds a task's results; id is
-- for reading in order of arrival and needs no index of its own.
CREATE TABLE subtask_results (
    id             bigserial NOT NULL,
    task_id        text NOT NULL,
    subtask_id     text NOT NULL,
    attempt        integer NOT NULL,
    agent_id       text NOT NULL,
    status         text NOT NULL CHECK (
        status IN ('pending', 'in_progress', 'completed', 'failed', 'cancelled')
    ),
    output         jsonb,
    error          text,
    failure        text,
    execution_time double precision,
    usage          jsonb,
    started_at     timestamptz NOT NULL,
    finished_at    timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (task_id, subtask_id, attempt)
);

CREATE TABLE agent_logs (
    id         bigserial PRIMARY KEY,
    at         timestamptz NOT NULL,
    agent_id   text NOT NULL,
    task_id    text,
    subtask_id text,
    level      text NOT NULL,
    message    text NOT NULL
);
CREATE INDEX agent_logs_by_task ON agent_logs (task_id, at);
CREATE INDEX agent_logs_by_agent ON agent_logs (agent_id, at);
CREATE INDEX agent_logs_by_time ON agent_logs (at);
