"""README.md says what is true."""

from __future__ import annotations

import re
import shutil

import pytest
import torch

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


def test_the_script_of_the_readme_runs(trained, tmp_path, monkeypatch, capsys):
    script = re.search(r"<!-- script: begin -->\n\n```python\n(.*?)```", README.read_text(), re.S)
    shutil.copy(trained, tmp_path / "r20.pth")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(script[1], "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert re.search(r"parameters 27\d,\d+ -> \d+,\d+", said)
    assert float(re.search(r"top-1 ([\d.]+) %", said)[1]) > 80
    assert (tmp_path / "r20-own-int8.xml").is_file()
