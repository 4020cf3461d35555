"""What columns are good for, and which are chosen."""

from typing import Any

import pytest

from mas.demo.roles import best_group, measures, role, strongest_pair


def of(type_: str, filled: int, distinct: int, extent: int | None = None) -> str:
    profile = {"filled": filled, "distinct": distinct, "extent": extent}
    return role({"type": type_}, profile)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (of("text", 0, 0), "empty"),
        (of("text", 10, 1), "constant"),
        (of("text", 10, 3), "category"),
        (of("text", 10, 10), "identifier"),
        (of("text", 100, 60), "text"),
        (of("boolean", 10, 2), "category"),
        (of("date", 10, 5), "time"),
        (of("bigint", 344, 3, 3), "category"),
        (of("bigint", 30, 3, 3), "measure"),
        (of("bigint", 100, 100, 100), "identifier"),
        (of("bigint", 100, 100, 5000), "measure"),
        (of("bigint", 3, 3, 3), "measure"),
        (of("bigint", 1, 1, 1), "measure"),
        (of("double precision", 100, 100), "measure"),
    ],
)
def test_a_column_has_the_role_that_its_values_suggest(
    found: str, expected: str
) -> None:
    assert found == expected


def test_numbered_rows_are_known_when_only_some_are_taken() -> None:
    profile = {"filled": 100, "distinct": 100, "extent": 991}
    assert role({"type": "bigint"}, profile, step=10) == "identifier"
    assert role({"type": "bigint"}, profile, step=1) == "measure"


def column(
    name: str, type_: str, role: str, filled: int = 10, distinct: int = 3
) -> Any:
    profile = {"role": role, "filled": filled, "distinct": distinct}
    return {"name": name, "type": type_}, (name, profile)


def chosen(*columns: Any) -> str | None:
    described = [each for each, _ in columns]
    return best_group(described, dict(profile for _, profile in columns))


def test_the_group_is_the_category_that_is_filled_most() -> None:
    sparse = column("sparse", "text", "category", filled=5)
    full = column("full", "text", "category")
    coded = column("coded", "bigint", "category")
    many = column("many", "text", "category", distinct=40)
    assert chosen(sparse, coded, many, full) == "full"
    assert chosen(coded, sparse) == "coded"
    assert chosen(many, column("x", "bigint", "measure")) is None


def test_measures_keep_the_order_of_the_file_and_are_not_too_many() -> None:
    columns = [column(f"m{at}", "bigint", "measure") for at in range(20)]
    names = measures([it for it, _ in columns], dict(it for _, it in columns))
    assert names == [f"m{at}" for at in range(8)]


def test_the_strongest_pair_is_one_of_measures() -> None:
    pairs = [{"a": "id", "b": "x"}, {"a": "x", "b": "y"}]
    assert strongest_pair(pairs, ["x", "y"]) == ["x", "y"]
    assert strongest_pair(pairs, ["x"]) is None
