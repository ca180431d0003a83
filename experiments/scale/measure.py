"""Time, memory and disk against the number of prompts: ``python experiments/scale/measure.py``.

Each size is a training run of one epoch in a fresh process, its prompts from a file of as many lines. Writes scale.json,
figure.png and the tables of README.md beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SIZES = (1_000, 10_000, 100_000)
#: data.keep, and how many kernels oneDNN may keep where it isn't its default, 1024: a batch of another length takes others.
KEEPS = ("tokens", "states", "tokens, 20 kernels")
RUN = ["selection=words_eos", "feed=batch", "precision=bf16", "trainer.max_epochs=1", "trainer.progress=false"]
RUN += ["render=off", "evaluate=0"]


def measure(size: int, keep: str, folder: Path) -> dict[str, Any]:
    """Trains for an epoch on so many prompts.

    Args:
        keep: one of `KEEPS`.
        folder: for the prompts, the cache and the run.
    """
    from deproj.data.sources import GrammarPrompts

    prompts, here = folder / f"{size}.txt", folder / f"{size}-{keep.replace(', ', '-').replace(' ', '-')}"
    if not prompts.exists():
        with prompts.open("w", encoding="utf-8") as file:
            file.writelines(f"{text}\n" for text in itertools.islice(GrammarPrompts().training(1), size))
    kept, _, kernels = keep.partition(", ")
    data = [f"data.prompts={prompts}", f"data.size={size}", f"data.keep={kept}", f"data.cache={here / 'cache' / 'samples'}"]
    few = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": kernels.removesuffix(" kernels")} if kernels else {}
    command = [sys.executable, "-m", "deproj.train", *RUN, *data, f"hydra.run.dir={here / 'run'}"]
    process = subprocess.Popen(command, env=os.environ | few)
    _, status, usage = os.wait4(process.pid, 0)  # of this process alone, unlike RUSAGE_CHILDREN
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{size} prompts, {keep}: the run ended with {process.returncode}")
    result = json.loads((here / "run" / "result.json").read_text(encoding="utf-8"))
    caches = [path.parent for path in here.rglob("header.json") if json.loads(path.read_text(encoding="utf-8"))["rows"] == size]
    return {
        "prompts": size,
        "keep": keep,
        "samples_s": result["phases"]["samples"],
        "training_s": result["phases"]["training"],
        "peak_mib": usage.ru_maxrss / 1024,
        "cache_mb": sum(path.stat().st_size for path in caches[0].iterdir()) / 1e6,
        "machine": result["machine"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| kept | prompts | reading and caching, s | an epoch, s | peak memory, MiB | cache, MB |",
        "|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: (KEEPS.index(r["keep"]), r["prompts"])):
        numbers = f"{r['samples_s']:.1f} | {r['training_s']:.1f} | {r['peak_mib']:.0f} | {r['cache_mb']:,.1f}"
        lines.append(f"| {r['keep']} | {r['prompts']:,} | {numbers} |")
    return "\n".join(lines)


def on_paper(rows: list[dict[str, Any]], prompts: int = 10**7, gpus: int = 8) -> str:
    """An epoch at Stable Diffusion's size, from the rates of experiments/speed/bench.json and of these runs."""
    bench = json.loads((HERE.parent / "speed" / "bench.json").read_text(encoding="utf-8"))
    bench_rows = {row["name"]: row for row in bench["rows"]}
    product = {kind: 2 * 2048**3 / bench_rows[f"product 2048³ | {kind}"]["seconds"] for kind in ("32", "bf16")}
    texts = 1 + 0.6 * 2 * 20 / 77  # a sample's whole, and two parts of 20 places where it is mixed
    encode = bench_rows["encode real | 20 texts, random weights"]
    step = bench_rows["train real | eos_onward | recursive | bf16 | ours"]
    seconds = {"encoding (float32)": texts * encode["seconds"], "training (bfloat16)": step["seconds"] / 100}
    flops = {
        "encoding (float32)": texts * encode["seconds"] * encode["share"] * product["32"],
        "training (bfloat16)": step["seconds"] / 100 * step["share"] * product["bf16"],
    }
    last = max((r for r in rows if r["keep"] == "tokens"), key=lambda r: r["prompts"])
    rate = last["prompts"] / last["samples_s"]
    lines = ["| a sample | seconds on two cores, measured | 10⁹ operations |", "|---|---|---|"]
    lines += [f"| {name} | {seconds[name]:.3f} | {flops[name] / 1e9:.1f} |" for name in seconds]
    whole, work = sum(seconds.values()) * prompts, sum(flops.values()) * prompts
    lines += [
        "",
        f"- Reading, tokenizing and caching: {rate:,.0f} prompts/s measured, so {prompts / rate / 60:.0f} minutes once, by one "
        f"process; {prompts * last['cache_mb'] / last['prompts'] / 1e3:.1f} GB of token ids, where the states would be "
        f"{prompts * 77 * 768 * 2 / 1e12:.1f} TB.",
        f"- An epoch on two cores: {whole / 86400:.0f} days.",
        f"- An epoch is {work:.1e} operations. On {gpus} GPUs: "
        + ", ".join(f"{work / gpus / rate / 60:.0f} minutes at {rate / 1e12:.0f} TFLOP/s each" for rate in (20e12, 100e12))
        + " (assumed, not measured).",
        f"- The order of an epoch: {prompts * 10 / 1e6:.0f} MB in each process (8 bytes a prompt, and its length).",
    ]
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    time, memory, disk = figure.subplots(1, 3)
    for keep, colour in zip(KEEPS, ("#3366aa", "#dd7733", "#339966"), strict=True):
        found = sorted((r for r in rows if r["keep"] == keep), key=lambda r: r["prompts"])
        sizes = [r["prompts"] for r in found]
        style = {"color": colour, "marker": "o", "ms": 5, "label": f"data.keep={keep}"}
        time.loglog(sizes, [r["samples_s"] + r["training_s"] for r in found], **style)
        memory.semilogx(sizes, [r["peak_mib"] for r in found], **style)
        disk.loglog(sizes, [r["cache_mb"] for r in found], **style)
    largest = max(rows, key=lambda r: (r["keep"] == "tokens", r["prompts"]))
    ends = [min(r["prompts"] for r in rows), largest["prompts"]]
    each = (largest["samples_s"] + largest["training_s"]) / largest["prompts"]
    time.loglog(ends, [each * size for size in ends], color="#777777", ls=":", lw=1, label="proportional")
    memory.set_ylim(0, 1.25 * max(r["peak_mib"] for r in rows))
    for axis, title, unit in (
        (time, "Cache and one epoch", "seconds"), (memory, "Peak memory", "MiB"), (disk, "Cache on disk", "MB")
    ):  # fmt: skip
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("prompts")
        axis.set_ylabel(unit)
        axis.grid(alpha=0.3)
    time.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def fill(text: str, mark: str, content: str) -> str:
    """Puts a table between its marks."""
    start, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    before, rest = text.split(start)
    return before + start + content + "\n" + end + rest.split(end)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--keep", nargs="+", choices=KEEPS, default=KEEPS)
    parser.add_argument("--add", action="store_true", help="to what scale.json holds, in place of the same size")
    args = parser.parse_args()
    file, rows = HERE / "scale.json", []
    with tempfile.TemporaryDirectory() as folder:
        for size, keep in itertools.product(args.sizes, args.keep):
            rows.append(measure(size, keep, Path(folder)))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    if args.add:
        new = {(r["prompts"], r["keep"]) for r in rows}
        rows += [r for r in json.loads(file.read_text(encoding="utf-8")) if (r["prompts"], r["keep"]) not in new]
    file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    draw(rows, HERE / "figure.png")
    readme = HERE / "README.md"
    readme.write_text(
        fill(fill(readme.read_text(encoding="utf-8"), "measured", table(rows)), "on paper", on_paper(rows)), encoding="utf-8"
    )
    print(table(rows))


if __name__ == "__main__":
    main()
