"""`unetpp convert`: the article's `.pth` -> a weights file that says everything about itself."""

from __future__ import annotations

from pathlib import Path

from unetpp_cli.data.classes import BUILT_IN, ClassSet, Color, palette
from unetpp_cli.errors import UserError, nearest
from unetpp_cli.network.blog import load_blog
from unetpp_cli.network.header import file_hash
from unetpp_cli.network.weights import derived_from, save_model
from unetpp_cli.report import console


def convert(
    pth: Path, *, output: Path | None = None, classes: str | None = None, overwrite: bool = False
) -> Path:
    """Writes the network of `pth` to `output` (the same name, ending in .safetensors, by default).

    Args:
        pth: a state dict of the article's network.
        output: the file to write; what was converted from this very `pth` is replaced.
        classes: a built-in class set, or a text file of names (see `read_names`). Never guessed.
        overwrite: replace `output` whatever it is.

    Returns:
        The file that was written.

    Raises:
        UserError: `pth` or `classes` cannot be used, or `output` may not be written.
    """
    target = output or pth.with_suffix(".safetensors")
    if target.suffix != ".safetensors":
        raise UserError(f"Weights are safetensors only: -o {target}.", "End its name with .safetensors.")
    network, header = load_blog(pth, None if classes is None else _class_set(classes))
    if target.exists() and not overwrite and not derived_from(target, file_hash(pth)):
        raise UserError(
            f"{target} exists, and was not converted from {pth}.", "Choose another -o, or --overwrite."
        )
    save_model(target, network, header)

    a = header.architecture
    heads = f"head{'s' if len(a.heads) > 1 else ''} {', '.join(map(str, a.heads))}"
    console.say(
        f"UNet++ of width {a.width} and depth {a.depth}, {heads}, {a.num_classes} classes, {header.geometry}"
    )
    if untrained := header.origin.get("untrained_heads"):
        console.say(f"Left out, because never trained: head {', '.join(map(str, untrained))}")
    if classes is None:
        console.say(
            "A .pth does not name its classes: they are class_0, class_1, ... Name them with --classes."
        )
    console.say(f"Wrote {target}")
    return target


def read_names(path: Path) -> ClassSet:
    """Reads one class a line: its name, or its name and its colour, as in `Road 128 64 128`.

    Empty lines and lines that start with # do not count. Either every line has a colour or none has.

    Raises:
        UserError: the file cannot be read, or a line is not of that form.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"Cannot read the class names {path}: {error}.", "Give a text file, one name a line."
        ) from error
    names: list[str] = []
    colors: list[Color] = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        numbers = [int(word) for word in words[-3:] if word.isdecimal()] if len(words) > 3 else []
        if len(numbers) == 3:
            if max(numbers) > 255:
                raise UserError(
                    f"{path}, line {number}: a colour is three numbers 0..255.", f"Found: {line.strip()}"
                )
            colors.append((numbers[0], numbers[1], numbers[2]))
            words = words[:-3]
        names.append(" ".join(words))
        if colors and len(colors) != len(names):
            raise UserError(
                f"{path}, line {number}: {names[-1]} and some others have no colour.",
                "Give one to all or to none.",
            )
    if not names:
        raise UserError(f"{path} names no class.", "Write one name a line.")
    return ClassSet("custom", tuple(names), tuple(colors) or palette(len(names)))


def _class_set(classes: str) -> ClassSet:
    """A built-in class set by name, else the one in a text file."""
    if classes in BUILT_IN:
        return BUILT_IN[classes]
    if Path(classes).exists():
        return read_names(Path(classes))
    raise UserError(
        f"--classes {classes} is neither a built-in class set nor a file.{nearest(classes, BUILT_IN)}",
        f"Built in are {', '.join(BUILT_IN)}; a file has one name a line.",
    )
