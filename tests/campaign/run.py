"""The campaign: hostile inputs of every kind against the readers and the commands, with counts.

python tests/campaign/run.py                               # 300 inputs of every kind, about half an hour on two cores
python tests/campaign/run.py --kind ".nqx" --n 1000 --seed 7
python tests/campaign/run.py --kind ".nqx" --seed 7 --replay 123
python tests/campaign/run.py --list

An input is refused (one line that names the file; exit code 1 or 2), accepted (finite numbers), or a failure: another
exception, a traceback, a crash, more than 10 s or 2 GB, NaN as a result,
    or acceptance of what makes no sense. Exit code
1 if there is any failure; those are kept in ``--failures``, to be looked at and replayed by seed and index.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    """Run the campaign and print its counts."""
    parser = argparse.ArgumentParser(description="hostile inputs against readers and commands")
    parser.add_argument("--kind", action="append", help="this kind only; may be repeated")
    parser.add_argument("--n", type=int, default=300, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=int, help="only the input with this index")
    parser.add_argument(
        "--failures", type=Path, default=Path("campaign_failures"), help="folder for inputs that failed"
    )
    parser.add_argument("--json", type=Path, help="also write counts and failures to this file")
    parser.add_argument("--readers-only", action="store_true", help="no commands after the readers: ten times as fast")
    parser.add_argument("--jobs", type=int, default=2, help="kinds at the same time")
    parser.add_argument("--list", action="store_true", help="list the kinds and stop")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Duplicate name")  # an archive with a name twice is one of the inputs

    from campaign.good_files import make_good_files
    from campaign.hostile_kinds import BY_NAME, KINDS
    from campaign.hostile_runs import HEADER, groups, run_kind

    if options.list:
        print("\n".join(BY_NAME))
        return 0
    unknown = sorted(set(options.kind or ()) - set(BY_NAME))
    if unknown:
        parser.error(f"no kind is called {unknown[0]!r}; there are {', '.join(BY_NAME)}")
    kinds = [BY_NAME[name] for name in options.kind] if options.kind else KINDS
    tallies = []
    with tempfile.TemporaryDirectory(prefix="campaign_good_") as scratch, ThreadPoolExecutor(options.jobs) as pool:
        good = Path(scratch) / "good"
        make_good_files(good)
        choice = {"only": options.replay, "commands": not options.readers_only}
        run = functools.partial(
            run_kind, n=options.n, seed=options.seed, good=good, failures=options.failures, **choice
        )
        print(HEADER, flush=True)
        for tally in pool.map(run, kinds):
            print(tally.line(), flush=True)
            for text, count, first in groups(tally.failures):
                print(
                    f"    {count:4d} x {text}\n           first: {first['index']} {first['what'][:150]!r}", flush=True
                )
            tallies.append(tally)
            if options.json is not None:
                options.json.write_text(json.dumps([tally.to_json() for tally in tallies], indent=1))
    failures = sum(len(tally.failures) for tally in tallies)
    print(f"{sum(tally.inputs for tally in tallies)} inputs of {len(tallies)} kinds, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
