#!/usr/bin/env bash
# Makes anew what the experiments' pages show: ./experiments/all.sh
#
# Two cores take some seventeen hours. It can be stopped at any time, and the same command goes on: what was measured in today's
# world isn't measured again, and a run that was stopped goes on from its last epoch. Tables of runs, the claims, figures and sheets
# are written beside their pages. What combining, images_in and noise print stands in report/*.txt, and goes into their pages by
# hand, as the verdicts do: they are a person's.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
"$python" -c 'import skimage, pywt' 2> /dev/null || {
    echo "experiments/noise needs two packages more: $python -m pip install scikit-image PyWavelets" >&2
    exit 1
}
mkdir -p report

"$python" experiments/jobs.py --weights
"$python" experiments/tables.py
"$python" experiments/claims.py
"$python" experiments/past.py
"$python" experiments/search.py
"$python" experiments/combining/measure.py sweeps | tee report/combining.txt
"$python" experiments/images_in/measure.py best --count 200 | tee report/images_in.txt
"$python" experiments/noise/measure.py | tee report/noise.txt
for name in best small; do
    "$python" -m deproj.train "experiment=$name"
    mkdir -p "experiments/best/runs/$name-0"
    cp "runs/$name/"{config.yaml,evaluation.json,metrics.csv,result.json} "experiments/best/runs/$name-0/"
done
"$python" experiments/ship.py

report() {  # an experiment, then what is reported on
    local experiment=$1
    shift
    "$python" -m deproj.report "$@" --out "report/$experiment"
}
report ignored_states sweeps/ignored_states
cp report/ignored_states/sheet-1.png experiments/ignored_states/sheet.png
cp report/ignored_states/where-in-the-sequence-the-error-is.svg experiments/ignored_states/error-by-place.svg
report recursive_input sweeps/ignored_states sweeps/recursive_input --against "eos_onward, recursive"
cp report/recursive_input/sheet-1.png experiments/recursive_input/sheet.png
cp report/recursive_input/learning-curves.svg experiments/recursive_input/
report composition sweeps/recursive_input sweeps/composition --against "eos_onward, recursive"
cp report/composition/sheet-1.png experiments/composition/sheet.png
report best experiments/best/runs/best-0 --seeds 0
cp report/best/learning-curves.svg experiments/best/
report baselines sweeps/baselines sweeps/recursive_input sweeps/ignored_states --against "eos_onward, recursive"
cp report/baselines/fidelity-against-noise.svg experiments/baselines/

"$python" -m deproj.train experiment=first hydra.run.dir=runs/first
cp runs/first/sheets/best.png experiments/first/sheet.png
