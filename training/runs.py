"""`labelspace train`'s work: one run, or several of different seeds inside one folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from index.errors import InputError
from training.allocator import keep_freed_memory
from training.config import Config
from training.dataset import Dataset
from training.distributed import World, joined
from training.published import Published, kept_published
from training.run import CONFIG, check_corpus_unchanged, start_run
from training.trainer import Trainer
from training.warm_start import Earlier, earlier_runs


@dataclass(frozen=True, slots=True)
class RunOptions:
    """resume: go on with what is there. init: a run to start from; its tower n is where the new run's tower n begins.

    seeds: towers to train; None: one, or as many as the run has that is resumed or started from. time_limit: seconds of
    training for all towers together. tensorboard: whether to write curves for it. against: a bundle whose label vectors
    stay as they are; what is resumed knows its own.
    """

    resume: bool = False
    init: Path | None = None
    seeds: int | None = None
    time_limit: float | None = None
    tensorboard: bool = False
    against: Published | None = None


def train_runs(run: Path, corpus: Path, dataset: Dataset, config: Config, options: RunOptions) -> tuple[int, float]:
    """Train or go on with the run; returns epochs of the last tower, and seconds of training of all.

    Several seeds are several runs, `run`/seed-0 and so on, one after another; each can be exported alone, and together
    they are exported as one model. Started by torchrun, this is one of the processes that train them together. Raises
    InputError when a run is there and was not to be resumed, or is another's, or cannot be started from.
    """
    if options.resume and options.init is not None:
        raise InputError("--init: starts a new run, and --resume goes on with one that is there; give one of them")
    if options.resume and options.against is not None:
        raise InputError("--against: starts a new run; --resume goes on against what the run was started with")
    keep_freed_memory()
    with joined() as world:
        return _train_runs(run, corpus, dataset, config, options, world)


def _train_runs(
    run: Path, corpus: Path, dataset: Dataset, config: Config, options: RunOptions, world: World
) -> tuple[int, float]:
    there = [path for path in run.glob("seed-*") if (path / CONFIG).is_file()]
    begins = [] if options.init is None else earlier_runs(options.init)
    count = options.seeds or (len(there) if options.resume and there else max(1, len(begins)))
    if begins and count > len(begins):
        raise InputError(f"{options.init}: has {len(begins)} of the {count} towers to start from; give --seeds fewer")
    if count > 1 and config.compatible.bundle:
        raise InputError(f"--seeds {count}: one query tower meets the published label vectors; leave it out")
    if (run / CONFIG).is_file() and count > 1:
        raise InputError(f"{run}: holds a run of one seed; choose another folder with --out for --seeds {count}")
    if there and (not options.resume or count < len(there)):
        raise InputError(
            f"{run}: holds runs of {len(there)} seeds; go on with --resume and --seeds {len(there)} or more"
        )
    single = count == 1 and not there
    seconds, epochs = 0.0, 0
    for place in range(count):
        folder = run if single else run / f"seed-{place}"
        seeded = replace(config, training=replace(config.training, seed=config.training.seed + place))
        limit = None if options.time_limit is None else options.time_limit / count
        resumed = options.resume and (folder / CONFIG).is_file()
        published = kept_published(folder, seeded) if resumed else options.against
        trainer = Trainer(dataset, seeded, time_limit=limit, world=world, published=published)
        starts = world.first or (folder / CONFIG).exists()  # where a run is there, all say so
        if resumed or (options.resume and single):
            check_corpus_unchanged(folder, dataset)  # says, too, that there is no run
        if begins:
            trainer.begin_from(Earlier.open(begins[place], seeded))
        world.wait()  # all have looked at what is there before the first of them changes it
        if resumed:
            trainer.resume(folder)
        elif starts:
            start_run(folder, corpus, dataset, seeded, begins[place] if begins else None, published)
        trainer.train(folder, tensorboard=options.tensorboard)
        seconds, epochs = seconds + trainer.position.seconds, trainer.position.epoch
    return epochs, seconds
