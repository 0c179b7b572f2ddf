"""artifacts/reference/tables.csv and the commands that it names."""

from __future__ import annotations

import shutil
import subprocess

import polars as pl
import pytest

from tests.published_tables import FIGURES, TABLES, write_tables
from tests.reference import ROOT

COMMANDS = sorted(
    {command for path in FIGURES for command in pl.read_csv(path)["command"] if command.startswith("make ")}
)


def test_the_table_is_current(tmp_path):
    write_tables(tmp_path / "tables.csv")
    assert TABLES.read_bytes() == (tmp_path / "tables.csv").read_bytes(), "run: make reference"


def test_every_published_row_is_measured_or_says_by_which_command_it_is():
    rows = pl.read_csv(TABLES, infer_schema_length=None).filter(pl.col("published_id").is_not_null())
    expected = [identity for path in FIGURES for identity in pl.read_csv(path)["published_id"]]
    assert set(rows["published_id"]) == set(expected)
    assert len(set(expected)) == 93
    assert rows["command"].null_count() == 0
    measured = rows.filter(pl.col("artifact").is_not_null())
    assert measured["sha256"].null_count() == 0


@pytest.mark.skipif(shutil.which("make") is None, reason="needs GNU Make")
@pytest.mark.parametrize("command", COMMANDS)
def test_make_has_rules_for_the_commands(command, tmp_path):
    nothing_yet = ("-n", f"WORK={tmp_path}", f"RESULTS={tmp_path}")
    dry = subprocess.run(
        [*command.split(), *nothing_yet], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert dry.returncode == 0, dry.stderr
    assert "rcompress train" in dry.stdout
