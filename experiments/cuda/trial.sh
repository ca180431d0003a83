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
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
OUT=${OUT:-$here/out}
mkdir -p "$OUT" || exit 2
OUT=$(cd "$OUT" && pwd)
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ -x "$root/.venv/bin/python" ] && PYTHON=$root/.venv/bin/python
fi
work=$(mktemp -d)
mkdir -p "$work/logs" "$work/results"
cd "$root" || exit 2
export OUT PYTHON TRIAL_WORK=$work PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 WANDB_MODE=offline HF_HUB_OFFLINE=1
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
rm -f "$OUT"/{summary.json,logs.tar.gz,sheet.png,pictures.png,profiles.txt}

running=
leave() {
  [ -n "$running" ] && kill -TERM "$running" 2>/dev/null
  "$PYTHON" "$here/record.py" stopped
  exit 143
}
trap 'rm -rf "$work"' EXIT
trap leave TERM INT

TRIAL_SCALE=$("$PYTHON" "$here/record.py" begin) || exit 2
export TRIAL_SCALE
case $TRIAL_SCALE in
  card) parts="tests:75 works:110 fast:150 full:130 two:60 interrupted:70 whole_loop:120" total=${TRIAL_SECONDS:-540} ;;
  cpu) parts="tests:60 works:150 fast:100 full:120 two:90 interrupted:120 whole_loop:100" total=${TRIAL_SECONDS:-360} ;;
  *) parts="tests:60 works:120 fast:60 full:120 two:90 interrupted:120 whole_loop:10" total=${TRIAL_SECONDS:-300} ;;
esac

slower=${TRIAL_SLOWER:-1}
total=$((total * slower))
# small sizes, and other work beside them: threads would only wait for one another
[ "$TRIAL_SCALE" = card ] || export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

failed=0
for part in $parts; do
  name=${part%%:*} limit=$((${part##*:} * slower)) log=$work/logs/$name.log
  shorter=TRIAL_LIMIT_$name
  limit=${!shorter:-$limit}
  left=$((total - SECONDS - 5))
  if [ "$left" -lt 10 ]; then
    "$PYTHON" "$here/record.py" part "$name" none 0 "$limit" "$log"
    continue
  fi
  [ "$left" -lt "$limit" ] && limit=$left
  replaced=TRIAL_PART_$name
  command=${!replaced:-"\"$PYTHON\" \"$here/$name.py\""}
  "$PYTHON" "$here/record.py" running "$name"
  start=$SECONDS
  TRIAL_RESULT=$work/results/$name.json timeout -k 5 "$limit" bash -c "$command" >"$log" 2>&1 &
  running=$!
  wait "$running"
  code=$?
  running=
  "$PYTHON" "$here/record.py" part "$name" "$code" $((SECONDS - start)) "$limit" "$log" || failed=1
  tail -c 1000000 "$log" >"$log.tail" && mv "$log.tail" "$log"
  tar -C "$work" -czf "$OUT/logs.tmp" logs results && mv "$OUT/logs.tmp" "$OUT/logs.tar.gz"
done
"$PYTHON" "$here/record.py" end "$SECONDS"
exit $failed
