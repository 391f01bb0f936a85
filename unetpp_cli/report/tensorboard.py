"""The records of a training, and its sample sheet, as TensorBoard shows them. Called by the training job.

Needs the package `tensorboard`, which comes with the extra of that name; imported when a TensorBoard is made.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from types import TracebackType

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.errors import UserError
from unetpp_cli.masks import RGB
from unetpp_cli.report.history import EpochRecord

FOLDER = "tensorboard"


class TensorBoard:
    """Writes event files into the folder `tensorboard` of a run; a context manager.

    All points stand at the number of optimiser steps. TensorBoard puts the name of the machine into the names
    of its files.

    Args:
        folder: the run's folder.
        classes: what the class scores of the records mean.
        step: the optimiser step at which the training goes on, None for a new one. What was written beyond
            it is hidden, since those steps are about to be taken again.

    Raises:
        UserError: the package is missing.
    """

    def __init__(self, folder: str | os.PathLike[str], classes: ClassSet, step: int | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "TensorBoard is not installed.", "Install it: pip install 'unetpp[tensorboard]'"
            ) from error
        self._classes = classes
        purge = None if step is None else step + 1
        self._writer = SummaryWriter(str(Path(folder) / FOLDER), purge_step=purge)

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def epoch(self, record: EpochRecord) -> None:
        """Adds a finished epoch: losses and scores of every head, class IoUs of the deepest, rate and speed.

        What is not finite is left out.
        """
        scalars = {
            "train_loss/minimised": record.train_loss,
            "train_accuracy": record.train_accuracy,
            "learning_rate": record.lr,
            "images_per_second": record.images_per_second,
            "epoch": record.epoch,
        }
        scalars |= {f"train_loss/L{depth}": loss for depth, loss in record.train_heads.items()}
        for depth, score in record.val.items():
            scalars[f"val_loss/L{depth}"] = score.loss
            scalars[f"val_accuracy/L{depth}"] = score.accuracy
            scalars[f"val_miou/L{depth}"] = score.miou
        deepest = record.val[max(record.val)].iou if record.val else ()
        for index, iou in enumerate(deepest):
            # TensorBoard takes no other signs in a tag, and a slash would open a group.
            name = re.sub(r"[^-\w.]", "_", self._classes.names[index])
            scalars[f"class_iou/{name}"] = iou
        for tag, value in scalars.items():
            if math.isfinite(value):
                self._writer.add_scalar(tag, float(value), record.steps)
        self._writer.flush()

    def picture(self, name: str, picture: RGB, step: int) -> None:
        """Adds a picture, (H, W, 3) uint8, such as the sample sheet."""
        self._writer.add_image(name, picture, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left and closes the files."""
        self._writer.close()
