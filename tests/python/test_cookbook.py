"""The cookbook: the blocks of each recipe are run in a store of their own, and what it shows is what comes out."""

import re

import pytest
from conftest import REPO
from test_readme import blocks, check, run_sql

TEXT = (REPO / "docs" / "cookbook.md").read_text()
RECIPES = {recipe.split("\n", 1)[0]: recipe for recipe in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name, tmp_path):
    recipe = blocks(RECIPES[name])
    assert recipe, "a recipe without anything to run"
    outputs = run_sql([source for _, source, _, _ in recipe], tmp_path)
    for (language, source, expected, unordered), output in zip(recipe, outputs, strict=True):
        print(f"{source}\n{output}")
        assert language == "sql" and expected is not None, f"the cookbook does not show\n{output}"
        check(expected, unordered, output)


def test_all_that_is_promised_is_there():
    assert len(RECIPES) >= 9
