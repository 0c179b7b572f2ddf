"""README.md says what is true."""

from __future__ import annotations

import re

from rcompress.cli.commands import COMMANDS
from tests.reference import README, current, help_of, reference


def test_command_reference_is_current():
    assert current() == reference(), "run: make reference"


def test_every_command_has_help_an_example_and_helped_options():
    for name in COMMANDS:
        text = help_of(name)
        assert f"rcompress {name}" in text
        assert "Example: rcompress" in text, name


def test_images_of_the_readme_exist():
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text()):
        assert (README.parent / target).is_file(), target
