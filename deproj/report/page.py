"""The page of a report: one HTML file that needs no network."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

from deproj.draw.sheets import TRUE_STATES
from deproj.measure.compare import signed
from deproj.measure.results import ORDER, LeftOut, Setting
from deproj.measure.rows import Row, shown_measures
from deproj.report.figures import Drawn
from deproj.runs.records import KINDS, MEASURES, told
from deproj.texts.benchmark import PROMPTS, SINGLE

__all__ = ["page"]

STYLE = """
:root { color-scheme: light; --line: #ddd; background: #fff; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 0 auto; padding: 1rem; max-width: 76rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
p, li { overflow-wrap: anywhere; }
/* a shadow at the side on which there is more */
.wide { overflow-x: auto;
  background: linear-gradient(90deg, #fff 40%, #fff0) 0 0, linear-gradient(270deg, #fff 40%, #fff0) 100% 0,
  linear-gradient(90deg, #0003, #0000) 0 0, linear-gradient(270deg, #0003, #0000) 100% 0; background-repeat: no-repeat;
  background-size: 3rem 100%, 3rem 100%, 1rem 100%, 1rem 100%; background-attachment: local, local, scroll, scroll; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td small, th small { color: #666; display: block; font-weight: 400; white-space: nowrap; }
th[scope=row] { position: sticky; left: 0; background: #fff; font-weight: 600; min-width: 7rem; }
td.best { background: #e6f3e6; } tr.baseline th, tr.baseline td { color: #555; }
.pictures td { border: 0; padding: 2px; }
.pictures th { border: 0; font-weight: 400; font-size: .8rem; max-width: 7.5rem; padding: 2px; }
.pictures th { vertical-align: bottom; }
.pictures th[scope=row] { vertical-align: middle; padding-right: .6rem; max-width: none; }
.pictures img { display: block; width: 7rem; height: 7rem; image-rendering: pixelated; background: #eee; cursor: zoom-in; }
.pictures th[colspan] { font-weight: 600; }
.gap { padding-left: 1rem !important; }
dialog { border: 0; padding: 1rem; border-radius: .3rem; max-width: 96vw; } dialog::backdrop { background: #000a; }
dialog img { display: block; width: min(80vw, 80vh, 32rem); image-rendering: pixelated; cursor: zoom-out; }
button { font: inherit; padding: .2rem .7rem; border: 1px solid #999; background: #fff; border-radius: .3rem; cursor: pointer; }
button[aria-pressed=true] { background: #234; color: #fff; }
.figure svg { width: 100%; min-width: 41rem; height: auto; } svg text { font-family: system-ui, sans-serif !important; }
.key { display: flex; flex-wrap: wrap; gap: 0 1.5rem; padding: 0; list-style: none; font-size: .85rem; }
.key li { display: flex; align-items: center; gap: .5rem; } .key svg { flex: none; max-height: 1rem; }
code { font-size: .8rem; overflow-wrap: anywhere; } .note { color: #555; font-size: .9rem; }
td code { display: block; min-width: 16rem; } .versions { min-width: 16rem; }
.runs td small { white-space: normal; }
.pictures img:focus-visible { outline: 3px solid #06c; }
"""

ARROWS = {True: " ↑", False: " ↓", None: ""}

SCRIPT = """
for (const button of document.querySelectorAll('button[data-seed]')) button.onclick = () => {
  for (const other of document.querySelectorAll('button[data-seed]'))
    other.setAttribute('aria-pressed', other.dataset.seed === button.dataset.seed);
  for (const image of document.querySelectorAll('.pictures img'))
    image.src = image.src.replace(/-\\d+-(\\d+)\\.png$/, `-${button.dataset.seed}-$1.png`);
};
const dialog = document.querySelector('dialog'), images = [...document.querySelectorAll('.pictures img')];
let shown = 0;
function show(number) {
  shown = (number + images.length) % images.length;
  dialog.querySelector('img').src = images[shown].src;
  dialog.querySelector('p').textContent = images[shown].alt;
}
images.forEach((image, number) => {
  image.onclick = () => { show(number); dialog.showModal(); };
  image.onkeydown = event => {
    if (event.key !== 'Enter') return;
    event.preventDefault();  // which would press the dialog's button
    image.onclick();
  };
});
if (dialog) {
  dialog.onclick = () => { dialog.close(); images[shown].focus(); };
  dialog.onkeydown = event => show(shown + ((event.key === 'ArrowRight') - (event.key === 'ArrowLeft')));
}
"""


def page(
    found: list[Setting],
    left_out: list[LeftOut],
    rows: list[Row],
    against: Setting,
    drawn: list[str],
    seeds: int,
    figures: Mapping[str, Drawn],
    command: str,
    said: list[str],
    copies: Mapping[Path, str],
) -> str:
    """The whole page; `figures` are by title, `said` is the verdict, and `copies` are those of `copy_settings`."""
    e = html.escape
    prompts = found[0].first.evaluation.prompts
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>Deprojectors compared</title><style>{STYLE}</style>",
        "<h1>Deprojectors compared</h1>",
        f"<p class=note>{len(found)} setting{'s' * (len(found) != 1)}, "
        f"of {counted(found)}, measured free-running on the same "
        f"{len(prompts)} held-out prompts, as plain text (single) and with their parts' embeddings added "
        "(composed), from the same seeds.</p>",
    ]
    if said:
        parts += ["<h2>Verdict</h2>", *(f"<p>{e(one)}</p>" for one in said)]
    if drawn:
        parts += ["<h2>Pictures</h2>", picture_section(found, drawn, seeds)]
    elif seeds:
        parts += ["<p class=note>There are no pictures: of these settings the measures are here, and no model.</p>"]
    parts += [
        "<h2>Measures</h2>",
        "<p class=note>Value and 95 % interval: a bootstrap over prompts and Student's t over training seeds (prompts alone "
        "where there are fewer than three seeds). ↑ more is better, ↓ less is. Shaded: the best of its column, where "
        "its paired differences to all others leave out 0. * a region "
        "that the selection doesn't train. Fidelity: share of the asked attributes found. Conditioning error: 0 drives the "
        "U-Net as the true states do, 1 as an empty prompt. Noise: 1 is right, as in the true states' pictures. Two colours: "
        "share of pictures of one person whose hair or eyes are of two. Likeness: SSIM to the true states' picture. mse: mean "
        "squared error of the states of the words, of EOS and of the padding.</p>",
    ]
    for kind in KINDS:
        parts += [f"<h3>{kind.capitalize()} prompts</h3>", measure_table(rows, kind)]
    if len(found) > 1:
        parts += [
            f"<h2>Differences to “{e(against.label)}”</h2>",
            "<p class=note>Paired by training seed and prompt; in bold those whose 95 % interval leaves out 0.</p>",
        ]
        for kind in KINDS:
            parts += [f"<h3>{kind.capitalize()} prompts</h3>", difference_table(rows, kind, against.label)]
    for title, figure in figures.items():
        parts += [f"<h2>{title}</h2>", key_of(figure), f"<div class='wide figure'>{figure.panels}</div>"]
    if left_out:
        listed = "".join(f"<li><code>{e(folder.as_posix())}</code>: {e(reason)}</li>" for folder, reason in left_out)
        parts += ["<h2>Not in the tables</h2>", f"<ul>{listed}</ul>"]
    parts += ["<h2>How it was made</h2>", f"<p><code>{e(command)}</code></p>", runs_table(found, copies)]
    return "\n".join([*parts, f"<script>{SCRIPT}</script>", "</html>"])


def key_of(figure: Drawn) -> str:
    """A figure's legend as text, which stays in sight where its panels scroll."""
    return f"<ul class=key>{''.join(f'<li>{sign}<span>{html.escape(label)}</span></li>' for label, sign in figure.key)}</ul>"


def counted(found: list[Setting]) -> str:
    """How many runs, baselines and models there are; one that is measured in two ways is one."""
    results = [result for setting in found for result in setting.results]
    counts = {kind: len({result.run.path for result in results if result.kind == kind}) for kind in ("run", "baseline", "model")}
    told = [f"{count} {kind}{'s' * (count != 1)}" for kind, count in counts.items() if count]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)


def picture_section(found: list[Setting], drawn: list[str], seeds: int) -> str:
    """Buttons for the seeds and a table: the article's figures where their settings are there, then all."""
    e, columns = html.escape, PROMPTS
    feeds = ("batch", "recursive")
    figures = {
        "Which states (the article's figure 1, batch-fed)": [f"{selection}, batch" for selection in ORDER],
        "Fed with what (the article's figure 2)": ["all, batch", "eos_onward, batch", "eos_onward, recursive"],
        "All settings and feeds": [f"{selection}, {feed}" for selection in ORDER for feed in feeds],
    }
    labels = {setting.name: setting.label for setting in reversed(found)}  # of several the first, which differs least
    shown = {title: [labels[n] for n in names] for title, names in figures.items() if all(labels.get(n) in drawn for n in names)}
    if len(drawn) - 1 > max([len(rows) for rows in shown.values()], default=0):
        shown["All settings"] = drawn[1:]
    buttons = "".join(f"<button data-seed={k} aria-pressed={str(k == 0).lower()}>seed {k + 1}</button> " for k in range(seeds))
    head = "".join(f"<th{' class=gap' if k == len(SINGLE) else ''}>{e(text)}</th>" for k, text in enumerate(columns))
    kinds = (
        f"<th colspan={len(SINGLE)}>single prompts</th><th class=gap colspan={len(columns) - len(SINGLE)}>composed prompts</th>"
    )
    parts = [f"<p>Drawn from the same noise in each column: {buttons}</p>"]
    for title, rows in shown.items():
        lines = []
        for label in [TRUE_STATES, *rows]:
            row = drawn.index(label)
            cells = "".join(
                f"<td{' class=gap' if k == len(SINGLE) else ''}>"
                f"<img src='pictures/{row}-0-{k}.png' alt='{e(label)}: {e(text)}' tabindex=0 loading=lazy></td>"
                for k, text in enumerate(columns)
            )
            lines.append(f"<tr><th scope=row>{e(label)}</th>{cells}</tr>")
        parts.append(
            f"<h3>{e(title)}</h3><div class=wide><table class=pictures><tr><th></th>{kinds}</tr><tr><th></th>{head}</tr>"
            f"{''.join(lines)}</table></div>"
        )
    return "".join([*parts, "<dialog><img alt=''><p></p><button>close</button></dialog>"])


def measure_table(rows: list[Row], kind: str) -> str:
    measures = shown_measures(rows)
    head = "".join(f"<th>{told(m)}{ARROWS[MEASURES[m]]}</th>" for m in measures)
    lines = []
    for row in rows:
        if row.prompts != kind:
            continue
        cells = []
        for m in measures:
            value = row.values.get(m)
            if value is None:
                cells.append("<td>–</td>")
                continue
            mark, best = "*" if m in row.untrained else "", " class=best" if m in row.best else ""
            cells.append(f"<td{best}>{value.value:.3f}{mark}<small>{value.low:.3f} to {value.high:.3f}</small></td>")
        lines.append(line_of(row, "".join(cells)))
    return f"<div class=wide><table><tr><th></th>{head}</tr>{''.join(lines)}</table></div>"


def line_of(row: Row, cells: str) -> str:
    count = f"<small>{row.seeds} seed{'s' * (row.seeds > 1)}</small>" if row.trained_here else ""
    kind = " class=baseline" if row.baseline else ""
    return f"<tr{kind}><th scope=row>{html.escape(row.setting)}{count}</th>{cells}</tr>"


def difference_table(rows: list[Row], kind: str, against: str) -> str:
    measures = [m for m in shown_measures(rows) if not m.startswith("mse_")]
    lines = []
    for row in rows:
        if row.prompts != kind or row.setting == against:
            continue
        cells = []
        for m in measures:
            value = row.differences.get(m)
            if value is None:
                cells.append("<td>–</td>")
                continue
            text = signed(value.value)
            bold = f"<b>{text}</b>" if value.low > 0 or value.high < 0 else text
            cells.append(f"<td>{bold}<small>{signed(value.low)} to {signed(value.high)}</small></td>")
        lines.append(line_of(row, "".join(cells)))
    head = "".join(f"<th>{told(m)}</th>" for m in measures)
    return f"<div class=wide><table><tr><th></th>{head}</tr>{''.join(lines)}</table></div>"


def runs_table(found: list[Setting], copies: Mapping[Path, str]) -> str:
    e, lines = html.escape, []
    for setting in found:
        for result in setting.results:
            link = copies[result.file]
            machine = {} if result.ended is None else result.ended.machine
            made = ", ".join(f"{k} {v}" for k, v in machine.items()) or "not recorded"
            took = "" if result.ended is None else f"{result.ended.seconds:.0f}\u00a0s"
            seed = "" if result.seed is None else result.seed
            also = f"<small>with it: {e(', '.join(setting.unsaid))}</small>" if setting.unsaid else ""
            lines.append(
                f"<tr><th scope=row><a href='{e(link)}'>{e(setting.label)}</a></th><td>{seed}</td>"
                f"<td><code>{e(result.command)}</code>{also}</td><td>{took or '–'}</td><td class=versions>{e(made)}</td></tr>"
            )
    return (
        "<div class=wide><table class=runs><tr><th></th><th>seed</th><th>command</th><th>took</th>"
        f"<th>versions and hardware</th></tr>{''.join(lines)}</table></div>"
    )
