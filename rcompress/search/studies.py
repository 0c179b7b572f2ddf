"""Studies of Optuna (Akiba et al. 2019): where they are kept, that they are ours, and their trials as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rcompress.artifacts.files import require_file
from rcompress.errors import RcompressError
from rcompress.search.ranges import Range, Ranges

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

PrunerName = Literal["median", "hyperband", "none"]
IDENTITY = "rcompress"
JOURNAL_SUFFIXES = (".journal", ".log")
HEARTBEAT_SECONDS = 30  # a trial whose worker has been silent for four of them counts as failed
EPOCHS_COLUMN = "validation_top1_percent"


@dataclass(frozen=True)
class StudyPlace:
    """A study's name, and where its trials are kept: an Optuna URL, an SQLite or a journal file."""

    storage: str
    name: str


@contextmanager
def open_study(
    place: StudyPlace,
    pruner: PrunerName = "median",
    epochs: int = 1,
    identity: Mapping[str, Any] | None = None,
) -> Iterator[Study]:
    """Open a study, or begin it; at the end its connections are closed.

    Args:
        place: which, and where; several processes and machines may share it.
        pruner: what stops bad trials: ``median`` (worse than half of the others after as many epochs),
            ``hyperband`` (Li et al. 2018), ``none``.
        epochs: the longest trial, for Hyperband.
        identity: primitives that say what is tuned; None to take the study as it is.

    Raises:
        RcompressError: Optuna is not installed, the storage cannot be reached, or the study tunes something else.
    """
    optuna = require_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    storage = None
    try:
        with _unwarned():
            storage = _storage(place.storage)
        study: Study = optuna.create_study(
            storage=storage,
            study_name=place.name,
            direction="maximize",
            load_if_exists=True,
            pruner=_pruner(pruner, epochs),
        )
    except (optuna.exceptions.OptunaError, SQLAlchemyError, ImportError, ValueError, OSError) as error:
        _close(storage)
        raise _unreachable(place, error) from None
    try:
        if identity is not None:
            _claim(study, place, json.loads(json.dumps(identity)))
        yield study
    finally:
        _close(storage)


def require_optuna() -> Any:
    """The package, quiet.

    Raises:
        RcompressError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise RcompressError(
            "tune", "the package optuna is not installed", "pip install 'rcompress[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def trials_csv(study: Study) -> bytes:
    """Every trial as a line: number, state, value, epochs' accuracies, one ``params_NAME`` each."""
    trials = study.get_trials(deepcopy=False)
    names = sorted({name for trial in trials for name in trial.params})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["number", "state", "value", EPOCHS_COLUMN, *(f"params_{name}" for name in names)])
    for trial in trials:
        epochs = " ".join(str(value) for _, value in sorted(trial.intermediate_values.items()))
        value = "" if trial.values is None else trial.values[0]
        values = [trial.params.get(name, "") for name in names]
        writer.writerow([trial.number, trial.state.name, value, epochs, *values])
    return buffer.getvalue().encode()


def add_trials(study: Study, path: Path, ranges: Ranges) -> int:
    """Fill an empty study from a CSV (`trials_csv`'s, or of Optuna's ``trials_dataframe``); how many were taken.

    Trials that neither finished nor were pruned are left out.

    Raises:
        RcompressError: the study has trials, or a line cannot be read or lies outside of the ranges.
    """
    if study.get_trials(deepcopy=False):
        raise RcompressError("--from-trials", "the study has trials already", "name a new one with --study")
    found = list(_read_trials(path, ranges))
    study.add_trials(found)
    return len(found)


def _read_trials(path: Path, ranges: Ranges) -> Iterator[FrozenTrial]:
    from optuna.trial import TrialState, create_trial

    try:
        rows = list(csv.DictReader(io.StringIO(require_file(path).read_text(encoding="utf-8"))))
    except (UnicodeDecodeError, csv.Error):
        raise RcompressError(path, "is no CSV", "give the trials of a study") from None
    distributions = {name: found.distribution() for name, found in ranges.items()}
    for line, row in enumerate(rows, start=2):
        try:
            if row["state"] not in ("COMPLETE", "PRUNED"):
                continue
            epochs = (float(value) for value in (row.get(EPOCHS_COLUMN) or "").split())
            yield create_trial(
                state=TrialState[row["state"]],
                value=_finite(row["value"]) if row["value"] or row["state"] == "COMPLETE" else None,
                params={name: _value(row[f"params_{name}"], found) for name, found in ranges.items()},
                distributions=distributions,
                intermediate_values=dict(enumerate(epochs, start=1)),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise RcompressError(
                path, f"line {line} is no trial of these ranges ({error})", "mend it, or give its --ranges"
            ) from None


def _value(text: str, found: Range) -> str | int | float:
    if found.choices:
        return {str(choice): choice for choice in found.choices}.get(text, text)
    return int(float(text)) if found.whole else float(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def _claim(study: Study, place: StudyPlace, identity: dict[str, Any]) -> None:
    known = study.user_attrs.get(IDENTITY)
    if known is None:
        study.set_user_attr(IDENTITY, identity)
    elif known != identity:
        different = sorted(name for name in identity.keys() | known if identity.get(name) != known.get(name))
        raise RcompressError(
            _without_password(place.storage),
            f"its study {place.name} was begun with another {', '.join(different)}",
            "use the same options, or name a new one with --study",
        )


def _storage(text: str) -> BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if Path(text).suffix in JOURNAL_SUFFIXES and "://" not in text:
        return JournalStorage(JournalFileBackend(text))
    url = text if "://" in text else f"sqlite:///{text}"
    return RDBStorage(url, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=4 * HEARTBEAT_SECONDS)


def _close(storage: BaseStorage | None) -> None:
    from optuna.storages import RDBStorage

    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def _pruner(name: PrunerName, epochs: int) -> BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if name not in get_args(PrunerName):
        raise RcompressError("--pruner", f"unknown pruner {name!r}", f"use {', '.join(get_args(PrunerName))}")
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    return MedianPruner(n_startup_trials=4, n_warmup_steps=1) if name == "median" else NopPruner()


def _unreachable(place: StudyPlace, error: Exception) -> RcompressError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return RcompressError(
        _without_password(place.storage),
        f"cannot be opened as a storage of Optuna ({_without_password(reason)})",
        "give a file (.db, .journal) or a URL such as postgresql://user@host/database",
    )


def _without_password(text: str) -> str:
    """``scheme://user:secret@host`` without the secret."""
    scheme, separator, rest = text.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{host}" if at else text


@contextmanager
def _unwarned() -> Iterator[None]:
    """Optuna calls its heartbeats experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
