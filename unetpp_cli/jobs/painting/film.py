"""`unetpp predict` for a film: which film becomes what. `video` does the work, in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unetpp_cli.data.images import is_picture
from unetpp_cli.devices import choose_devices, device_name
from unetpp_cli.errors import Stopped, UserError, listed
from unetpp_cli.jobs.afar import local
from unetpp_cli.jobs.interrupt import Interruption
from unetpp_cli.jobs.painting.outputs import Look, parse_formats
from unetpp_cli.jobs.painting.request import PredictRequest, look_of, predictor_of
from unetpp_cli.jobs.painting.video import FORMATS, OUTPUTS, Film, is_video, paint_film
from unetpp_cli.memory import is_out_of_memory
from unetpp_cli.parallel import is_worker
from unetpp_cli.remote import is_url
from unetpp_cli.report import console


def predict_film(request: PredictRequest) -> int:
    """A single film, by a single process."""
    film = _film(request)
    if request.skip_existing and Path(film.output).is_file():
        console.say(f"{film.output} exists already.")
        return 0
    devices = choose_devices(request.gpus)
    if len(devices) > 1:
        console.warn(f"A film is painted by one process: on {device_name(devices[0])}.")
    predictor = predictor_of(request, devices[0])
    with Interruption() as interruption:
        try:
            return paint_film(film, predictor, lambda: bool(interruption))
        except Stopped:
            left = "the masks so far are there" if film.is_folder else "no film was written"
            console.say(f"Interrupted: {left}.")
            return interruption.exit_code
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"{film.source}: out of memory.", "Use a smaller --size, or --tile 512."
            ) from error


def _film(request: PredictRequest) -> Film:
    """What is to be made of which film; refuses what makes no sense for one."""
    named = request.inputs[0]
    if len(request.inputs) > 1:
        raise UserError(
            f"{listed(request.inputs)}: a film is painted by itself.", "Give one film, or images only."
        )
    if is_worker():
        raise UserError(f"{named}: a film is painted by one process.", "Start it without torchrun.")
    output = (
        request.output or f"{Path(named).with_suffix('') if not is_url(named) else Path(named).stem}_mask.mp4"
    )
    suffix = Path(output).suffix.lower()
    if is_picture(output) or (is_video(output) and suffix not in OUTPUTS):
        raise UserError(
            f"-o {output}: a film becomes a film ({', '.join(OUTPUTS)}) or a folder of masks.",
            "Write -o masks.mp4 or -o masks/.",
        )
    plain = Look(parse_formats(request.formats))
    look = look_of(replace(request, formats="color" if request.formats == "palette" else request.formats))
    film = Film(local(named), output, look, request.every or 1)
    if film.is_folder and (request.formats != "palette" or replace(look, formats=plain.formats) != plain):
        raise UserError(
            f"-o {output} is a folder, which gets palette PNGs: nothing shows --format or its like.",
            "Leave them out, or write -o masks.mp4.",
        )
    if len(look.formats) > 1 or look.formats[0] not in FORMATS:
        raise UserError(
            f"--format {request.formats}: a film shows one of {', '.join(FORMATS)}.",
            "Name one; for masks of class indices give a folder: -o masks/.",
        )
    unread = {
        "--confidence": request.confidence,
        "--strict": request.strict,
        "--batch-size": request.batch_size,
        "--skip-existing": request.skip_existing and film.is_folder,
    }
    if named_options := [option for option, wanted in unread.items() if wanted]:
        raise UserError(f"{' and '.join(named_options)}: not for films.", "Leave it out.")
    if Path(output).exists() and Path(film.source).exists() and Path(output).samefile(film.source):
        raise UserError(f"-o {output} is the film itself.", "Choose another name.")
    return film
