"""mas: a task, split into a DAG of subtasks, run by five Claude agents at once."""

__version__ = "0.1.0"
