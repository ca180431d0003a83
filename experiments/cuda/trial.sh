#!/usr/bin/env bash
# Proves on a CUDA card, in nine minutes at most, that deproj works on it and how fast; on a CPU it rehearses itself.
#   experiments/cuda/trial.sh            everything, into $OUT (experiments/cuda/out by default)
#   experiments/cuda/trial.sh --short    the shortest form of every part, as the tests run it
set -u
here=$(cd "$(dirname "$0")" && pwd)
export OUT=${OUT:-$here/out} PYTHONUNBUFFERED=1
export PYTHONPATH=$here/../..${PYTHONPATH:+:$PYTHONPATH}
exec "${PYTHON:-python3}" "$here/trial.py" "$@"
