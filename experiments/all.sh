#!/usr/bin/env bash
# Makes anew all that the experiments' pages show: ./experiments/all.sh
#
# Two cores take some seven hours. It can be stopped at any time, and the same command goes on: what was measured in today's
# world isn't measured again, and a run that was stopped goes on from its last epoch. The verdicts in the pages' words are a
# person's: read the tables, then the pages.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

"$python" experiments/jobs.py --weights
"$python" experiments/tables.py
"$python" experiments/claims/claims.py > experiments/claims/table.md
"$python" experiments/combining/measure.py sweeps
"$python" experiments/images_in/measure.py sweeps/ignored_states/eos_onward-batch-*
"$python" experiments/noise/measure.py
"$python" experiments/ship.py

report() {  # an experiment, and what is reported on: its figures and its sheet are kept beside its page
    local experiment=$1
    shift
    "$python" -m deproj.report "$@" --out "report/$experiment"
}
report ignored_states sweeps/ignored_states
report recursive_input sweeps/ignored_states sweeps/recursive_input --against "eos_onward, recursive"
report composition sweeps/recursive_input sweeps/composition --against "eos_onward, recursive"
report baselines sweeps/baselines sweeps/recursive_input sweeps/ignored_states --against "eos_onward, recursive"

"$python" -m deproj.train experiment=first hydra.run.dir=runs/first
cp runs/first/sheets/best.png experiments/first/sheet.png
