#!/usr/bin/env bash
# Fetches what a machine without a network lacks, whose image holds Python 3.12, torch with CUDA, lightning, transformers,
# accelerate, requests, matplotlib and pytest with its timeout and xdist: bash experiments/cuda/wheels.sh [FOLDER]
# FOLDER is a new one; by default it is experiments/cuda/wheels, made anew.
#
# Every wheel is pure Python, so that one set does for any Python and processor. Nothing here replaces torch, numpy or a package
# of nvidia's: what the wheels need beyond one another is the image's. wandb stays behind: only logger=wandb wants it.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
PYTHON=${PYTHON:-$([ -x "$root/.venv/bin/python" ] && echo "$root/.venv/bin/python" || echo python3)}
folder=${1:-$here/wheels}
[ -n "${1:-}" ] || rm -rf "$folder"
[ ! -e "$folder" ] || { echo "error: $folder is there already; name a new folder." >&2; exit 1; }
"$PYTHON" -m pip wheel --quiet --no-deps --constraint "$root/requirements.lock" --wheel-dir "$folder" \
  hydra-core omegaconf antlr4-python3-runtime diffusers importlib-metadata zipp
for wheel in "$folder"/*.whl; do
  case $wheel in *-none-any.whl) ;; *) echo "error: $wheel is for one kind of machine only." >&2; exit 1 ;; esac
done
du -sh "$folder"
