"""What the demo asks for, and the plan that the scripted planner answers with. Pure."""

from typing import Any


def task(file_name: str) -> str:
    """The task, in the words of a user, and what a reader of the record must know."""
    return (
        f"Demonstration with a scripted model: say what is in {file_name}. Load it "
        "into PostgreSQL, describe its columns, find what stands out, draw it, and "
        "write a report."
    )


def subtasks(file_name: str) -> list[dict[str, Any]]:
    """The plan: a chain, a diamond in it, and branches that run at the same time."""
    return [
        {
            "key": "inspect",
            "description": f"Say which file {file_name} is: size, lines and SHA-256.",
            "priority": 4,
            "estimated_duration": 3,
        },
        {
            "key": "load",
            "description": f"Read context/inputs/{file_name}, find the types of its "
            "columns and load its rows into a table in PostgreSQL. Hand over the name "
            "of the table and the columns, and the rows as rows.csv.",
            "required_capabilities": ["file_processing", "database_operations"],
            "priority": 9,
            "estimated_duration": 8,
        },
        {
            "key": "profile",
            "description": "Count for each column of the table what is filled, missing "
            "and distinct; share which column to group by and which to measure.",
            "required_capabilities": ["database_operations"],
            "dependencies": ["load"],
            "priority": 8,
            "estimated_duration": 4,
        },
        {
            "key": "correlation",
            "description": "Correlate the numeric columns with each other in Python, "
            "and share the strongest pairs.",
            "required_capabilities": ["data_analysis", "code_generation"],
            "dependencies": ["load"],
            "priority": 7,
            "estimated_duration": 4,
        },
        {
            "key": "outliers",
            "description": "Count by SQL the values of each numeric column that lie "
            "far outside its quartiles.",
            "required_capabilities": ["data_analysis", "database_operations"],
            "dependencies": ["load"],
            "estimated_duration": 3,
        },
        {
            "key": "statistics",
            "description": "By SQL, the mean, spread and quartiles of each numeric "
            "column, and the means by the shared group.",
            "required_capabilities": ["data_analysis", "database_operations"],
            "dependencies": ["load", "profile"],
            "priority": 7,
            "estimated_duration": 4,
        },
        {
            "key": "chart",
            "description": "Draw the shared group and measures and the strongest pair, "
            "as SVG.",
            "required_capabilities": ["code_generation"],
            "dependencies": ["load", "profile", "correlation"],
            "estimated_duration": 5,
        },
        {
            "key": "report",
            "description": "Write a report of all results, with the pictures, as "
            "Markdown and HTML; check that what was computed twice agrees.",
            "required_capabilities": ["data_analysis", "code_generation"],
            "dependencies": [
                *("inspect", "load", "profile", "correlation"),
                *("outliers", "statistics", "chart"),
            ],
            "estimated_duration": 6,
        },
    ]
