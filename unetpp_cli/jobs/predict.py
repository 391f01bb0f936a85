"""`unetpp predict`: images in, palette PNGs of class indices out."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.images import decode_image, is_picture
from unetpp_cli.devices import choose_device, device_name, resolve_precision, set_arithmetic
from unetpp_cli.errors import UserError, listed
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.jobs.runs import find_model
from unetpp_cli.masks import overlay, save_mask, save_picture, values_in, with_legend
from unetpp_cli.network.weights import load_model
from unetpp_cli.report import console
from unetpp_cli.report.progress import track
from unetpp_cli.version import __version__

MASK_ENDING = "_mask"
OVERLAY_ENDING = "_overlay"


@dataclass(frozen=True)
class PredictRequest:
    """The options of `unetpp predict`."""

    inputs: Sequence[str]
    output: str | None = None
    model: str | None = None
    depth: int | None = None
    use_ensemble: bool = False
    size: str | None = None
    overlay: bool = False
    legend: bool = False
    gpus: str = ""
    precision: str = "fp32"


@dataclass(frozen=True)
class Work:
    """One image, where its mask goes, and where its overlay goes if one is wanted."""

    image: Path
    mask: Path
    overlay: Path | None


def predict(request: PredictRequest) -> int:
    """Writes a mask for every image; a broken image is named, skipped and counted.

    Returns:
        The exit code: 0 when every image got its mask, 1 when some did not.

    Raises:
        UserError: nothing to do, masks that would overwrite each other or an image, no such model or depth.
    """
    works = plan(request)
    device = choose_device(request.gpus)
    precision = resolve_precision(request.precision, device)
    set_arithmetic(device, precision, deterministic=False, training=False)
    path, why = find_model(request.model)
    predictor = Predictor(
        load_model(path, device),
        device,
        precision=precision,
        depth=request.depth,
        use_ensemble=request.use_ensemble,
        size=Geometry.parse(request.size) if request.size else None,
    )
    heads = [depth for depth in predictor.network.head_depths if depth <= predictor.depth]
    depth = f"ensemble of {', '.join(map(str, heads))}" if request.use_ensemble else str(predictor.depth)
    console.say(f"Model: {path}" + ("" if why == request.model else f" ({why})"))
    console.say(f"Depth {depth}, {predictor.geometry}, on {device_name(device)} in {precision}")
    text = {
        "Software": f"unetpp {__version__}",
        "Model": predictor.hash,
        "Depth": depth,
        "Precision": precision,
        "Geometry": str(predictor.geometry),
    }

    failed: list[str] = []
    with track(len(works), "Predicting") as advance:
        for work in works:
            try:
                image = decode_image(work.image, predictor.channels)
            except UserError as error:
                failed.append(str(work.image))
                console.error(error.problem, error.cure)
            else:
                mask = predictor.mask(image)
                save_mask(work.mask, mask, predictor.header.classes, text)
                if work.overlay is not None:
                    _save_overlay(work.overlay, image, mask, predictor, request.legend)
            advance(1)
    _report(works, failed)
    return 1 if failed else 0


def plan(request: PredictRequest) -> list[Work]:
    """Which image goes where, in the order given, folders in the order of their names.

    Raises:
        UserError: an input is not there or no image, two masks would be the same file, or a mask would
            replace an image.
    """
    found: list[tuple[Path, Path]] = []  # the image, and its path below the folder that was named
    for text in request.inputs:
        found += _images(text)
    if not found:
        raise UserError(
            "There is no image to predict.", "Name images, folders or globs such as 'drive/*.png'."
        )
    single = request.output is not None and Path(request.output).suffix.lower() == ".png"
    if single and len(found) > 1:
        raise UserError(
            f"-o {request.output} is one file, but there are {len(found)} images.",
            "Give a folder: -o masks/",
        )
    if request.output and not single and is_picture(request.output):
        raise UserError(f"-o {request.output}: masks are PNG files.", "Give a name that ends in .png.")
    works = []
    for image, below in found:
        if request.output is None:
            mask = image.with_name(f"{image.stem}{MASK_ENDING}.png")
        elif single:
            mask = Path(request.output)
        else:
            mask = Path(request.output) / below.with_suffix(".png")
        wanted = request.overlay or request.legend
        stem = mask.stem.removesuffix(MASK_ENDING)
        works.append(Work(image, mask, mask.with_name(f"{stem}{OVERLAY_ENDING}.png") if wanted else None))
    _refuse_collisions(works)
    return works


def _images(text: str) -> list[tuple[Path, Path]]:
    """The images that one argument means: a file, a folder (with all below it), or a glob."""
    path = Path(text)
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if is_picture(file.name) and file.is_file())
        names = {(file.parent, file.stem) for file in inside}
        images = [
            file for file in inside if not file.name.startswith(".") and not _is_our_output(file, names)
        ]
        if not images:
            raise UserError(f"The folder {path} holds no image.", "Give a folder of PNG or JPEG files.")
        return [(file, file.relative_to(path)) for file in images]
    if path.exists():
        return [(path, Path(path.name))]
    if matches := sorted(glob.glob(text, recursive=True)):  # noqa: PTH207 - absolute patterns too
        files = [Path(match) for match in matches if Path(match).is_file()]
        return [(file, Path(file.name)) for file in files]
    raise UserError(f"There is no image {text}.", "Check the path; quote a glob: 'drive/*.png'.")


def _is_our_output(file: Path, names: set[tuple[Path, str]]) -> bool:
    """Whether an earlier predict wrote this file beside its image, so that it is no input of the next one."""
    return any(
        file.stem.endswith(ending) and (file.parent, file.stem.removesuffix(ending)) in names
        for ending in (MASK_ENDING, OVERLAY_ENDING)
    )


def _refuse_collisions(works: Sequence[Work]) -> None:
    sources = {work.image.resolve() for work in works}
    owners: dict[Path, Path] = {}
    for work in works:
        for target in (work.mask, work.overlay):
            if target is None:
                continue
            place = target.resolve()
            if place in sources:
                raise UserError(
                    f"The mask of {work.image} would replace the image {target}.", "Choose another -o."
                )
            if place in owners:
                raise UserError(
                    f"{owners[place]} and {work.image} would both write {target}.",
                    "Predict them into different folders.",
                )
            owners[place] = work.image


def _save_overlay(
    path: Path, image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], predictor: Predictor, legend: bool
) -> None:
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    picture = overlay(rgb, mask, predictor.header.classes)
    if legend:
        picture = with_legend(picture, predictor.header.classes, values_in(mask))
    save_picture(path, picture)


def _report(works: Sequence[Work], failed: Sequence[str]) -> None:
    done = len(works) - len(failed)
    if len(works) == 1 and done:
        beside = f" and {works[0].overlay}" if works[0].overlay else ""
        console.say(f"{works[0].image} -> {works[0].mask}{beside}")
    elif done:
        folders = sorted({str(work.mask.parent) for work in works})
        console.say(f"{done} masks in {listed(folders)}")
    if failed:
        console.warn(f"{len(failed)} of {len(works)} images could not be read: {listed(failed)}")
