-- One row a call of Claude's API: written when it is sent, again while it is answered,
-- and when it has ended. Costs are in US dollars.
CREATE TABLE model_calls (
    id                 text PRIMARY KEY,
    task_id            text NOT NULL,
    subtask_id         text,
    attempt            integer,
    agent_id           text NOT NULL,
    subagent           text,
    path               text NOT NULL,
    model              text NOT NULL,
    state              text NOT NULL CHECK (
        state IN ('open', 'complete', 'cut', 'refused', 'unanswered')
    ),
    http_status        integer,
    input_tokens       bigint NOT NULL,
    output_tokens      bigint NOT NULL,
    cache_read_tokens  bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    cost_usd           double precision NOT NULL,
    unpriced_tokens    bigint NOT NULL,
    estimated_tokens   bigint NOT NULL,
    started_at         timestamptz NOT NULL,
    held_s             double precision NOT NULL,
    first_byte_s       double precision,
    duration_s         double precision,
    error              text
)
-- A row is written two or three times: room for that on its own page, and no column
-- that changes in an index, spare the indexes.
WITH (fillfactor = 70);
CREATE INDEX model_calls_by_task ON model_calls (task_id, started_at);
CREATE INDEX model_calls_by_start ON model_calls (started_at);
