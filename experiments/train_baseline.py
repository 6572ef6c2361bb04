"""Train one arm of the plan `baselines` by name: `python experiments/train_baseline.py kv`.

Further flags are those of `kava study run`, such as --seeds 0 or --output_dir.
"""

import sys

from kava.cli import run
from kava.commands.study import main
from kava.study.plan_file import load_plan

PLAN = "baselines"


def train_baseline(argv: list[str]) -> int:
    plan = load_plan(PLAN, check_settings=False)
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: train_baseline.py ARM [flags of kava study run]\n\narms:")
        for arm in plan.arms:
            print(f"  {arm.name:<14}{arm.what}")
        return 0 if argv else 2
    name, *flags = argv
    return main(["run", PLAN, "--arms", plan.arm(name).name, *flags])


if __name__ == "__main__":
    sys.exit(run(train_baseline, sys.argv[1:]))
