"""README.md says what is true."""

from __future__ import annotations

import re

import pytest

from rcompress.cli.commands import COMMANDS
from tests.reference import PARTS, README, current, help_of


@pytest.mark.parametrize("part", PARTS)
def test_generated_parts_are_current(part):
    assert current(part) == PARTS[part]().strip(), "run: make reference"


def test_every_command_has_help_an_example_and_helped_options():
    for name in COMMANDS:
        text = help_of(name)
        assert f"rcompress {name}" in text
        assert "Example: rcompress" in text, name


def test_images_of_the_readme_exist():
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text()):
        assert (README.parent / target).is_file(), target
