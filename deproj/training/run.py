"""One run in stages: settings, place, parts, training, end. The one place where settings become objects."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deproj.data.settings import DataSettings
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.process.interruption import Interruption
from deproj.process.progress import SILENT, Progress
from deproj.process.quiet import quiet_libraries
from deproj.runs.folder import RunFolder
from deproj.training.clock import Clock
from deproj.training.same_captions import check_captions, note_captions, tell_of_changed_captions, tell_of_strange_words
from deproj.training.settings import RunSettings

if TYPE_CHECKING:
    from deproj.process.ranks import Rank

__all__ = ["run"]


def run(
    config: dict[str, Any], path: Path, interruption: Interruption, rank: Rank | None = None, progress: Progress = SILENT
) -> float:
    """Trains, draws, measures and exports one deprojector.

    Args:
        config: resolved settings, as in ``config.yaml``.
        path: folder of the run; an interrupted run in it goes on.
        interruption: whose signals stop the training with a checkpoint.
        rank: which of the run's processes this is, where another one has started it. All but rank zero train only.
        progress: what is told how far the run is, unless trainer.progress=false.

    Returns:
        The least held-out free-running loss.
    """
    folder = RunFolder(path)
    chosen, data = RunSettings.of(config), DataSettings.of(config)
    if done := folder.finished(chosen.trainer.max_epochs):
        print(f"{path} is done (held-out loss {done.val_loss:.4f}); nothing to do.")
        tell_of_changed_captions(data, folder)
        return done.val_loss
    clock = Clock()
    progress = progress if chosen.trainer.progress else SILENT
    with progress.phase("loading"):
        quiet_libraries()  # some of them say something while they are imported
        # torch, Lightning, transformers and diffusers take seconds to import: a mistake in the settings is told before.
        from deproj.process.ranks import others
        from deproj.training.checkpoints import Behind
        from deproj.training.finish import finish, tell
        from deproj.training.parts import Parts, Pictures, measured_prompts
        from deproj.training.place import Place
        from deproj.training.trainer import Training, seed_everything

        quiet_libraries()  # Lightning sets its loggers' levels when it is imported
        source = data.source()
        seed_everything(chosen.seed)
        place = Place.of(chosen, data.batch_size, rank)
        before = Behind.of(folder.last_checkpoint)
        parts = Parts.of(config, chosen, place, data, source, before)
        prompts: list[str] = []
        if place.first:
            check_captions(parts.data.source, folder, before.steps)
            tell_of_strange_words(parts.data.source, StableDiffusion(chosen.sd), parts.encoder.inversions)
            prompts = measured_prompts(parts.data.source, chosen.evaluate)
        clock.lap("loading")
        parts.data.setup(progress=progress)
        clock.lap("samples")
        pictures = Pictures.of(config, chosen, place, data, parts.encoder, prompts, folder, progress)
        if place.first:
            folder.begin(config)
            note_captions(parts.data.source, folder)
        training = Training.of(config, chosen, place, parts, pictures, before, folder, interruption, progress)
    with training.dashboards_closed():
        if not before.done(chosen.trainer.max_epochs):
            with progress.phase("training"), others(place.rank, partial(run, config, path)):
                training.fit(parts, folder, before)
        behind = Behind.of(folder.last_checkpoint)
        if not place.first:
            return behind.best
        clock.lap("training", apart=pictures.seconds)
        clock.phases["pictures"] = round(pictures.seconds, 1)
        clock.add(before.phases)
        with progress.phase("exporting"):
            result = finish(parts, pictures, place, training, behind, folder, clock)
    tell(result, folder, pictures)
    return result.val_loss
