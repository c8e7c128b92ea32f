"""Print the mean and standard deviation over the seeds of finished runs of train.py, one column per loss.

If other settings differ between the runs, the columns are split by these settings, and name them.

python examples/summarize.py RUN_FOLDER [RUN_FOLDER ...]
"""

import argparse
import json
import sys
from collections import defaultdict
from math import nan
from pathlib import Path

import numpy as np
from report import NAMES

# Runs that differ in these settings only are repetitions of one experiment. The loss has its own columns.
NOT_COMPARED = {"loss", "seed", "device", "num_workers", "tensorboard", "feature_cache"}


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output folder of a finished run of train.py")
    folders = parser.parse_args(argv).runs
    try:
        runs = [json.loads((run / "metrics.json").read_text()) for run in folders]
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}; give output folders of finished runs of train.py")
    names = sorted({name for run in runs for name in run["settings"]} - NOT_COMPARED)
    names = [name for name in names if len({str(run["settings"].get(name)) for run in runs}) > 1]
    before, trained = defaultdict(list), defaultdict(list)
    for run in runs:
        settings = run["settings"]
        differing = "".join(f", {name} {settings.get(name)}" for name in names)
        before[f"before training{differing}"].append(run["before"])
        trained[f"{settings['loss']}{differing}"].append(run["best"])
        if "joined" in run:
            trained[f"{settings['loss']}, joined {run['joined']['feature_weight']}{differing}"].append(run["joined"])
    results = {**before, **trained}
    table = "\n".join(
        [
            f"| test split, percent | {' | '.join(f'{name} (n = {len(runs)})' for name, runs in results.items())} |",
            f"|{'---|' * (len(results) + 1)}",
            *(
                f"| {title} | {' | '.join(cell(runs, name) for runs in results.values())} |"
                for name, title in NAMES.items()
                if all(name in run for runs in results.values() for run in runs)  # an older run may lack a metric
            ),
        ]
    )
    print(table)
    return table


def cell(runs: list[dict], name: str) -> str:
    values = [nan if run[name] is None else 100 * run[name] for run in runs]  # JSON has null for NaN
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


if __name__ == "__main__":
    main()
