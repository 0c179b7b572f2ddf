"""Run benchmarks by name, all by default."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tests.benchmarks import calibration, cli, inference, retraining, rounding, training
from tests.benchmarks.common import describe_machine

BENCHMARKS: dict[str, Callable[[bool], None]] = {
    "cli": cli.run,
    "training": training.run,
    "inference": inference.run,
    "rounding": rounding.run,
    "retraining": retraining.run,
    "calibration": calibration.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--smoke", action="store_true", help="least work: shows that all runs, measures nothing"
    )
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark called {', '.join(sorted(unknown))}")
    print(describe_machine(chosen.smoke), flush=True)
    for name in chosen.names or BENCHMARKS:
        BENCHMARKS[name](chosen.smoke)


if __name__ == "__main__":
    main()
