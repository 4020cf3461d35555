-- Why a task's last run stopped by itself; NULL where it did not, or where it goes on.
ALTER TABLE tasks ADD COLUMN suspended text;

-- What other processes ask of a task's owner. Whoever takes a task marks what was asked
-- of its former owners as taken.
CREATE TABLE task_commands (
    id         bigserial PRIMARY KEY,
    task_id    text NOT NULL,
    command    text NOT NULL CHECK (command IN ('cancel')),
    reason     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    taken_at   timestamptz
);
CREATE INDEX task_commands_pending ON task_commands (task_id) WHERE taken_at IS NULL;
