"""A training under way: epoch after epoch, its state kept safe, its folder kept current.

Called by `jobs.train`, which has set everything up. Every process of a training runs this; only rank 0 has a
folder. The training state is written first, and all that follows from it (weights, history, plots) after it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from unetpp_cli.config import TrainConfig
from unetpp_cli.data.classes import ClassSet
from unetpp_cli.data.dataset import Example
from unetpp_cli.data.loading import Batch, TrainingBatches
from unetpp_cli.data.progression import Progression
from unetpp_cli.devices import autocast, memory_used
from unetpp_cli.errors import Stopped
from unetpp_cli.inference.evaluation import Evaluation, evaluate
from unetpp_cli.jobs.interrupt import Interruption
from unetpp_cli.jobs.learning.run_folder import RunFolder
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import assemble
from unetpp_cli.parallel import is_worker
from unetpp_cli.report.history import EpochRecord, HeadScore, record_from_json, record_to_json
from unetpp_cli.report.progress import TrainingDisplay
from unetpp_cli.training.loop import EpochSums, Step, Trainer, Wishes, train_epoch
from unetpp_cli.training.state import (
    Environment,
    State,
    restore_trainer,
    trainer_numbers,
    trainer_tensors,
    under,
)

SHARE_FOR_SAVING = 0.1
"""At most so much of the time goes into writing states after epochs; matters where these take a second."""


@dataclass(frozen=True)
class _Best:
    """The weights of the best epoch, by name, as they were then; and its record."""

    record: EpochRecord
    tensors: Mapping[str, Tensor]


@dataclass
class TrainingRun:
    """What `fit` needs, and where the training stands.

    Attributes:
        classes: of the data.
        val_size: images of the validation split, over all processes.
        pixels: labelled pixels per class of the training split, if counted.
        data: fingerprint of the data.
        terms: of weights that the training began with or learns from.
        folder: None in every process but rank 0.
        deadline: when the time limit ends it, as `time.perf_counter` counts.
        epoch: the epoch under way; sums: what it has come to.
        ended: `finished`, `early stop`, `interrupted`, `time limit`, or empty while it runs.
    """

    trainer: Trainer
    batches: TrainingBatches
    loader: DataLoader[Batch]
    val_loader: DataLoader[Example] | None
    val_size: int
    classes: ClassSet
    pixels: list[int] | None
    data: str
    folder: RunFolder | None
    terms: str = ""
    deadline: float = math.inf
    epoch: int = 1
    sums: EpochSums = field(init=False)
    records: list[EpochRecord] = field(default_factory=list)
    best: float = -math.inf
    best_epoch: int = 0
    spent: float = 0.0
    ended: str = ""
    _unwritten: _Best | None = None
    _began: float = field(default_factory=time.perf_counter)
    _saved: float = field(default_factory=time.perf_counter)
    _saving_took: float = 0.0

    def __post_init__(self) -> None:
        self.sums = EpochSums.empty(self.trainer.world)

    @property
    def config(self) -> TrainConfig:
        """The settings of the training."""
        return self.trainer.config

    @property
    def network(self) -> UNetPlusPlus:
        """The network that is validated and saved: the averaged one, if there is one."""
        average = self.trainer.average
        return average.network if average is not None else self.trainer.network

    def fit(self, display: TrainingDisplay) -> int:
        """Trains to the end, or until a signal, the time limit or impatience ends it; `ended` says which.

        Returns:
            The exit code: 128 + the signal that ended it, else 0.
        """
        config, world = self.config, self.trainer.world
        exit_code = 0
        with Interruption(forwarded=is_worker()) as interrupted, display:

            def wishes() -> Wishes:
                now = time.perf_counter()
                due = bool(config.save_minutes) and now - self._saved > 60 * config.save_minutes
                return Wishes(stop=bool(interrupted) or now > self.deadline, save=due)

            done = self.sums.samples // config.batch_size
            heads = self.trainer.network.head_depths
            display.start(config.epochs, self.batches.per_epoch, heads, epoch=self.epoch, done=done)
            while not self.ended and self.epoch <= config.epochs:
                if not self._one_epoch(display, wishes, lambda: bool(interrupted)):
                    exit_code = max(world.collect(interrupted.exit_code))
                    self.ended = "interrupted" if exit_code else "time limit"
                    self.save_state()
                    if self.folder is not None:  # the middle of an epoch: no score belongs to these weights
                        self.folder.weights(self.network, ["last"], self.trainer.step, None)
                        self.folder.record(self.records, is_over=True)
        return exit_code

    def _one_epoch(
        self, display: TrainingDisplay, wishes: Callable[[], Wishes], interrupted: Callable[[], bool]
    ) -> bool:
        """Trains, validates, records. False when somebody wished to stop before the epoch was recorded."""
        config, start, before = self.config, time.perf_counter(), self.sums.samples
        self.batches.epoch, self.batches.start = self.epoch, before

        def show(step: Step) -> None:
            memory = memory_used(self.trainer.device)
            number = -(-step.samples // config.batch_size)
            display.step(self.epoch, number, step.loss, step.lr, step.images_per_second, memory)

        goes_on = train_epoch(
            self.trainer,
            self.loader,
            self.sums,
            self.epoch,
            on_step=show,
            wishes=wishes,
            save=self.save_state,
        )
        images, trained, validation = self.sums.samples - before, time.perf_counter(), None
        if goes_on and self.val_loader is not None and self._validation_is_due():
            # A start that has nothing else to do finishes the validation: limits shorter than it get on, too.
            give_up = (lambda: wishes().stop) if images else interrupted
            try:
                validation = self._validate(self.val_loader, display.validating, give_up)
            except Stopped:
                goes_on = False
        end = time.perf_counter()
        if goes_on:
            record = self._record(validation, end - start)
            improved = record.miou > self.best
            if improved:
                self.best, self.best_epoch = record.miou, record.epoch
            self.records.append(record)
            self.epoch, self.sums = self.epoch + 1, EpochSums.empty(self.trainer.world)
            self.ended = self._why_over()
            self._keep(record, improved, validation)
            display.epoch_done(record, improved)
        if self.folder is not None:
            self.folder.receipt.update(
                step=self.trainer.step,
                epochs=int(goes_on),
                images=images,
                train=trained - start,
                validation=end - trained,
                writing=time.perf_counter() - end,
            )
        return goes_on

    def _why_over(self) -> str:
        """Why there is no epoch to come, or the empty string."""
        past = self.epoch - 1
        if past >= self.config.epochs:
            return "finished"
        # Judged where there is a new score, and never by those of a network that has only seen small samples.
        judged = self.records and self.records[-1].val and past > self._small_until()
        waited = past - max(self.best_epoch, self._small_until()) if self.best_epoch and judged else 0
        return "early stop" if self.config.patience and waited >= self.config.patience else ""

    def _small_until(self) -> int:
        """The last epoch at less than full size."""
        return Progression.parse(self.config.progressive, self.config.epochs).full - 1

    def _validation_is_due(self) -> bool:
        return self.epoch % self.config.val_every == 0 or self.epoch == self.config.epochs

    def _validate(
        self, loader: DataLoader[Example], show: Callable[[int, int], None], stop: Callable[[], bool]
    ) -> Evaluation:
        """The scores of the network that would be saved now."""
        config, world, done = self.config, self.trainer.world, 0
        network = self.network.eval()
        world.spread_buffers(network)

        def advance(count: int) -> None:
            nonlocal done
            done = min(done + count * world.size, self.val_size)
            show(done, self.val_size)

        def heads(x: Tensor) -> list[Tensor]:
            with autocast(self.trainer.device, self.trainer.precision):
                return network.heads(x)

        return evaluate(
            heads,
            network.head_depths,
            loader,
            self.classes,
            config.mean,
            config.std,
            self.trainer.device,
            with_losses=True,
            on_images=advance,
            world=world,
            stop=stop,
        )

    def _record(self, validation: Evaluation | None, took: float) -> EpochRecord:
        sums, depths = self.sums, self.trainer.network.head_depths
        pixels = sums.to_json(self.trainer.world)
        val: dict[int, HeadScore] = {}
        if validation is not None:
            found = {depth: tally.scores(self.classes) for depth, tally in validation.heads.items()}
            val = {
                depth: HeadScore(
                    validation.losses[depth],
                    scores.pixel_accuracy,
                    scores.miou,
                    tuple(float(value) for value in scores.iou),
                )
                for depth, scores in found.items()
            }
        return EpochRecord(
            epoch=self.epoch,
            lr=sums.lr,
            train_loss=sums.loss / sums.steps,
            train_accuracy=pixels["hits"] / max(1, pixels["labelled"]),
            train_heads={depth: loss / sums.steps for depth, loss in zip(depths, sums.heads, strict=True)},
            val=val,
            seconds=took,
            images_per_second=sums.samples / sums.seconds if sums.seconds else 0.0,
            steps=self.trainer.step,
        )

    def _keep(self, record: EpochRecord, improved: bool, validation: Evaluation | None) -> None:
        """The state and the weights, unless an epoch is so short that writing them would take its time."""
        if improved and self.folder is not None:
            copies = {name: value.clone() for name, value in self.network.state_dict().items()}
            self._unwritten = _Best(record, copies)
        pause = time.perf_counter() - self._saved
        waited = pause * SHARE_FOR_SAVING >= self._saving_took
        (due,) = self.trainer.world.any([bool(self.ended) or waited or self._is_numbered(record)])
        if due:
            self.save_state()
            self._write_last(record)
        if self.folder is None:
            return
        scores = None
        if validation is not None:
            scores = validation.heads[max(validation.heads)].scores(self.classes)
        self.folder.record(self.records, scores, is_over=bool(self.ended))
        if self.val_loader is not None and (record.epoch == 1 or self.ended):
            trainer = self.trainer
            self.folder.samples(self.network, trainer.device, trainer.precision, record.epoch)

    def _is_numbered(self, record: EpochRecord) -> bool:
        every = self.config.save_every
        return bool(every) and record.epoch % every == 0

    def _write_last(self, record: EpochRecord) -> None:
        """The weights at the end of the epoch of `record`, which they still have."""
        if self.folder is not None:
            numbered = [f"epoch-{record.epoch:04d}"] if self._is_numbered(record) else []
            self.folder.weights(self.network, [*numbered, "last"], record.steps, record)

    def _write_best(self) -> None:
        """The best weights, once a state holds them: whatever happens, they are not lost."""
        if self._unwritten is not None and self.folder is not None:
            best, self._unwritten = self._unwritten, None
            network = assemble(self.folder.header.architecture, best.tensors)
            self.folder.weights(network, ["best"], best.record.steps, best.record)

    def publish(self) -> None:
        """Writes all that follows from the state, after a resumption: a kill may have come in between."""
        if self.folder is None:
            return
        if self.records and self.sums.samples == 0:
            record = self.records[-1]
            if record.epoch == self.best_epoch:
                self._unwritten = _Best(record, self.network.state_dict())
            self._write_last(record)
        self._write_best()
        self.folder.record(self.records, is_over=True)

    def save_state(self) -> None:
        """Writes the state, and best weights that were waiting for it; all processes must come along."""
        start, world = time.perf_counter(), self.trainer.world
        sums = self.sums.to_json(world)
        if not world.is_main:  # what was counted is rank 0's now
            self.sums.hits.zero_()
            self.sums.labelled.zero_()
        else:
            self.sums.hits.fill_(sums["hits"])
            self.sums.labelled.fill_(sums["labelled"])
        world.from_main(lambda: self.folder.state(self._state(sums)) if self.folder else None)
        self._write_best()
        self._saved = time.perf_counter()
        self._saving_took = self._saved - start

    def _state(self, sums: dict[str, Any]) -> State:
        trainer = self.trainer
        tensors = trainer_tensors(trainer)
        # Best weights of this very moment are those of the network: `publish` finds them there.
        if self._unwritten is not None and (self.best_epoch < self.epoch - 1 or self.sums.samples):
            tensors |= {f"best.{name}": value for name, value in self._unwritten.tensors.items()}
        return State(
            epoch=self.epoch,
            samples=self.sums.samples,
            step=trainer.step,
            sums=sums,
            records=[record_to_json(record) for record in self.records],
            best=self.best if self.best_epoch else None,
            best_epoch=self.best_epoch,
            pixels=self.pixels,
            data=self.data,
            terms=self.terms,
            teacher=trainer.teacher.hash if trainer.teacher else "",
            environment=Environment.here(trainer.device, trainer.precision, trainer.world.size),
            seconds=self.spent + time.perf_counter() - self._began,
            numbers=trainer_numbers(trainer),
            tensors=tensors,
        )

    def restore(self, state: State) -> None:
        """Goes on where `state` was written."""
        restore_trainer(self.trainer, state)
        self.epoch = state.epoch
        self.sums = EpochSums.from_json(dict(state.sums), self.trainer.world)
        self.records = [record_from_json(record) for record in state.records]
        self.best = -math.inf if state.best is None else state.best
        self.best_epoch, self.spent = state.best_epoch, state.seconds
        if best := under("best.", state.tensors):
            (record,) = (record for record in self.records if record.epoch == self.best_epoch)
            self._unwritten = _Best(record, best)
        self.ended = self._why_over() if self.sums.samples == 0 else ""
