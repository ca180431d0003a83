"""The W&B dashboard of a project as code: ``python experiments/dashboard.py ENTITY/PROJECT`` saves it there as a view.

Runs that were trained with ``logger=wandb logger.project=PROJECT`` stand side by side: the six benchmark prompts by epoch and
setting, learning curves, and the measures as bars, columns and a table. Needs ``pip install 'deproj[dashboard]'`` and a key
(``wandb login``). Nothing that is there is changed: each call saves a view of its own.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from deproj.process.errors import UserError, run_command

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws

#: Measures of the bars, with what is good.
MEASURES = {
    "conditioning_error": "0: as the true states",
    "fidelity": "more is better",
    "clip_score": "more is better; where there is no reader",
    "noise": "1: as the true states",
    "likeness": "1: as the true states",
}


def build(entity: str, project: str, name: str = "Deprojectors") -> ws.Workspace:
    """The dashboard of a project.

    Args:
        entity: a user or team of W&B.
        name: of the view.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    from deproj.selection import SELECTIONS
    from deproj.texts.benchmark import COMPOSED, PROMPTS, SINGLE
    from deproj.training.dashboards import picture_name

    step = "trainer/global_step"

    def pictures(section: str, prompt: str) -> wr.MediaBrowser:
        """A prompt's pictures: a row a run, a column an epoch."""
        title = prompt if section == "pictures" else f"{prompt} (true states)"
        key = f"{section}/{picture_name(prompt)}"
        return wr.MediaBrowser(title=title, media_keys=[key], mode="grid", grid_x_axis="step", grid_y_axis="run")

    def curve(title: str, metric: str) -> wr.LinePlot:
        return wr.LinePlot(title=title, x=step, y=[metric], log_y=True, max_runs_to_show=30)

    def bars(measure: str, note: str) -> wr.BarPlot:
        keys = [wr.SummaryMetric(f"{kind}/{measure}") for kind in ("single", "composed")]
        return wr.BarPlot(title=f"{measure.replace('_', ' ')} ({note})", metrics=keys, max_runs_to_show=30)

    sheets = wr.MediaBrowser(
        title="The six prompts: true states above, the run below", media_keys=["benchmark"], num_columns=1,
        mode="gallery", gallery_axis="run",
    )  # fmt: skip
    sections = {
        "Sheets": [sheets],
        "Single prompts, by epoch and setting": [pictures("pictures", prompt) for prompt in SINGLE],
        "Composed prompts, by epoch and setting": [pictures("pictures", prompt) for prompt in COMPOSED],
        "Learning curves, a panel for each selection or objective, whose losses can be compared": [
            curve(f"{part} loss, {name}", f"loss_of_{name}/{key}")
            for part, key in (("held-out free-running", "val"), ("training", "train"))
            for name in (*SELECTIONS, "conditioning", "attention")
        ],
        "Measures of the finished runs": [bars(measure, note) for measure, note in MEASURES.items()],
        "Evaluations": [wr.WeavePanelSummaryTable(table_name="evaluation")],
        "True states": [pictures("true_states", prompt) for prompt in PROMPTS],
    }
    columns = ["summary:best/epoch", "summary:best/val/loss"]
    columns += [f"summary:run/{name}" for name in ("seconds", "samples_per_second", "parameters")]
    columns += [f"config:{key}" for key in ("choices.value.selection", "choices.value.feed", "choices.value.model", "seed.value")]
    columns += [f"summary:{kind}/{measure}" for measure in ("conditioning_error", "fidelity") for kind in ("single", "composed")]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            ws.Section(name=title, panels=panels, is_open=True, layout_settings=ws.SectionLayoutSettings(min(len(panels), 3), 2))
            for title, panels in sections.items()
        ],
        settings=ws.WorkspaceSettings(x_axis=step, max_runs=30),
        runset_settings=ws.RunsetSettings(pinned_columns=["run:displayName", *columns]),
    )


def save(target: str, name: str) -> None:
    """Saves the dashboard for ENTITY/PROJECT.

    Raises:
        UserError: for another form of target, a missing extra, no key, or where the server refuses or doesn't answer.
    """
    entity, _, project = target.partition("/")
    if not entity or not project or "/" in project:
        raise UserError(f"name where it goes as ENTITY/PROJECT, as in the address of the project on W&B; got {target!r}.")
    import wandb

    try:
        workspace = build(entity, project, name)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'deproj[dashboard]'.") from None
    try:
        if not wandb.login(prompt=False, verify=True):
            raise UserError("there is no W&B key; log in first: wandb login.")
        workspace.save()
    except (wandb.Error, OSError) as error:
        raise UserError(f"W&B did not take the dashboard: {str(error).splitlines()[0]}") from None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", metavar="ENTITY/PROJECT")
    parser.add_argument("--name", default="Deprojectors", help="of the view")
    arguments = parser.parse_args()
    return run_command(lambda: save(arguments.target, arguments.name))


if __name__ == "__main__":
    sys.exit(main())
