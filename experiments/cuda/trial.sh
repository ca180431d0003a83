#!/usr/bin/env bash
# Shows on a card what this project does there: bash experiments/cuda/trial.sh
#
# OUT             folder of the results (experiments/cuda/out); at most 8 files
# PYTHON          the interpreter (.venv/bin/python where there is one, else python3)
# TRIAL_SCALE     card, cpu or shortest; by default card where there is CUDA, else cpu
# TRIAL_SECONDS   for everything (card 540, cpu 360, shortest 300)
# TRIAL_SLOWER    by what every limit is multiplied, on a machine that does other things too (1)
# TRIAL_PART_x    a command in place of part x, and TRIAL_LIMIT_x its limit in seconds, for tests
#
# Every part has a limit of its own, and one that fails doesn't stop the next. The exit code is 1 where a part failed.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ -x "$root/.venv/bin/python" ] && PYTHON=$root/.venv/bin/python
fi
exec "$PYTHON" "$here/trial.py"
