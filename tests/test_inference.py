"""Scores against a count pixel by pixel; the predictor against its definition, step by step."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetpp_cli.data.classes import CAMVID11, CAMVID33, VOID, ClassSet, palette
from unetpp_cli.data.dataset import Example, chw
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.errors import UserError
from unetpp_cli.inference.counting import Tally
from unetpp_cli.inference.evaluation import Evaluation, evaluate
from unetpp_cli.inference.logits import disagreement, entropy
from unetpp_cli.inference.metrics import Scores
from unetpp_cli.inference.predictor import _STRIP, Predictor
from unetpp_cli.inference.tiles import Tiling
from unetpp_cli.network.header import Header
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import Model, architecture_of

CPU = torch.device("cpu")
THREE = ClassSet("three", ("a", "b", "c"), palette(3))


def model(
    classes: ClassSet = THREE, geometry: str = "native", channels: int = 3, depth: int = 2, width: int = 4
) -> Model:
    torch.manual_seed(1)
    network = UNetPlusPlus(len(classes), channels, width=width, depth=depth)
    network.train()(torch.randn(4, channels, 32, 32))  # BatchNorm statistics other than 0 and 1
    header = Header(
        architecture=architecture_of(network),
        classes=classes,
        mean=(0.5,) * channels,
        std=(0.2,) * channels,
        geometry=Geometry.parse(geometry),
    )
    return Model(network=network.eval(), header=header, path=Path("m.safetensors"), hash="0" * 64)


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2, VOID]), st.integers(0, 2)), min_size=1, max_size=80),
)
@settings(deadline=None)
def test_scores_follow_their_definitions(pixels: list[tuple[int, int]]) -> None:
    matrix = np.zeros((3, 3), dtype=np.int64)
    for truth, prediction in pixels:
        if truth != VOID:
            matrix[truth, prediction] += 1
    scores = Scores(matrix, THREE)
    labelled = [(t, p) for t, p in pixels if t != VOID]
    ious = []
    for k in range(3):
        there = [pixel for pixel in labelled if pixel[0] == k]
        either = [pixel for pixel in labelled if k in pixel]
        hit = sum(pixel == (k, k) for pixel in labelled)
        if there:
            ious.append(hit / len(either))
            assert scores.iou[k] == pytest.approx(hit / len(either))
            assert scores.accuracy[k] == pytest.approx(hit / len(there))
            assert scores.dice[k] == pytest.approx(2 * scores.iou[k] / (1 + scores.iou[k]))
        else:
            assert np.isnan(scores.iou[k])
    if labelled:
        assert scores.miou == pytest.approx(np.mean(ious))
        assert scores.pixel_accuracy == pytest.approx(sum(t == p for t, p in labelled) / len(labelled))
        assert 0 <= scores.frequency_weighted_iou <= 1
    else:
        assert np.isnan(scores.miou)
        assert np.isnan(scores.pixel_accuracy)


def test_void_classes_are_never_scored() -> None:
    matrix = np.full((33, 33), 5, dtype=np.int64)
    scores = Scores(matrix, CAMVID33)
    assert np.isnan(scores.iou[[30, 32]]).all()
    assert not np.isnan(np.delete(scores.iou, [30, 32])).any()


def test_evaluation_counts_every_labelled_pixel_at_native_size() -> None:
    """Images of two sizes in one batch, masks larger than the images, void, heads and ensemble."""
    one = model()
    rng = np.random.default_rng(3)
    examples = []
    for index, (height, width) in enumerate([(20, 28), (20, 28), (17, 19)]):
        mask = rng.integers(0, 3, (2 * height, 2 * width), dtype=np.uint8)
        mask[:5] = VOID
        examples.append(Example(index, chw(picture(height, width, seed=index)), torch.from_numpy(mask)))
    header = one.header
    seen: list[int] = []
    result = evaluate(
        one.network.heads,
        one.network.head_depths,
        [examples[:2], examples[2:]],
        THREE,
        header.mean,
        header.std,
        CPU,
        with_ensemble=True,
        with_losses=True,
        on_images=seen.append,
    )
    assert seen == [2, 1]
    expected = {1: np.zeros((3, 3)), 2: np.zeros((3, 3)), None: np.zeros((3, 3))}
    loss, count = {1: 0.0, 2: 0.0}, 0
    for example in examples:
        height, width = example.mask.shape
        x = (example.image[None].float() / 255 - 0.5) / 0.2
        with torch.no_grad():
            logits = {
                depth: torch.nn.functional.interpolate(
                    one.network(x, depth), size=(height, width), mode="bilinear", align_corners=False
                )[0]
                for depth in (1, 2)
            }
        probabilities = (logits[1].softmax(0) + logits[2].softmax(0)) / 2
        truth = example.mask.numpy()
        for key, score in ((1, logits[1]), (2, logits[2]), (None, probabilities)):
            prediction = score.argmax(0).numpy()
            np.add.at(expected[key], (truth[truth != VOID], prediction[truth != VOID]), 1)
        for depth in (1, 2):
            picked = logits[depth].log_softmax(0).numpy()
            rows, columns = np.nonzero(truth != VOID)
            loss[depth] -= picked[truth[rows, columns], rows, columns].sum()
        count += int((truth != VOID).sum())
    assert result.ensemble is not None
    for key, tally in [(1, result.heads[1]), (2, result.heads[2]), (None, result.ensemble)]:
        assert np.abs(tally.confusion - expected[key]).sum() <= 4, "but for ties in the last bit"
        assert tally.confusion.sum() == count
        assert not tally.images, "no image was to be looked at by itself"
        assert tally.boundary is None
    assert result.losses[2] == pytest.approx(loss[2] / count, rel=1e-4)
    assert result.losses[1] == pytest.approx(loss[1] / count, rel=1e-4)


@pytest.mark.parametrize(
    ("geometry", "size", "seen"),
    [
        ("native", (21, 34), (21, 34)),
        ("stretch 32x16", (21, 34), (16, 32)),
        ("fit 16", (40, 60), (16, 24)),
        ("fit 32", (20, 16), (40, 32)),
    ],
)
def test_the_geometry_decides_what_the_network_sees(
    geometry: str, size: tuple[int, int], seen: tuple[int, int]
) -> None:
    one = model(geometry=geometry)
    shapes = []
    one.network.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    mask = Predictor(one).mask(picture(*size))
    assert shapes == [(1, 3, *seen)]
    assert mask.shape == size
    assert mask.dtype == np.uint8


def test_size_overrides_the_header() -> None:
    one = model(geometry="fit 16")
    image = picture(24, 40)
    assert not np.array_equal(
        Predictor(one).scores(image), Predictor(one, size=Geometry("native")).scores(image)
    )


def test_depth_and_ensemble() -> None:
    one = model()
    image = picture(24, 40)
    x = (chw(image)[None].float() / 255 - 0.5) / 0.2
    with torch.no_grad():
        first, second = (one.network(x, depth)[0] for depth in (1, 2))
    torch.testing.assert_close(Predictor(one, depth=1).scores(image), first)
    torch.testing.assert_close(Predictor(one).scores(image), second)
    torch.testing.assert_close(
        Predictor(one, use_ensemble=True).scores(image), (first.softmax(0) + second.softmax(0)) / 2
    )
    torch.testing.assert_close(
        Predictor(one, depth=1, use_ensemble=True).scores(image), first.softmax(0), msg="heads above are out"
    )
    with pytest.raises(UserError, match=r"no head at that depth. It has 1, 2"):
        Predictor(one, depth=3)


def expected_scores(one: Model, image: np.ndarray, depth: int) -> torch.Tensor:
    """Logits at the image's size, step by step: (K, H, W)."""
    x = (chw(one.header.geometry.image(image))[None].float() / 255 - 0.5) / 0.2
    with torch.no_grad():
        logits = one.network(x, depth)
    return torch.nn.functional.interpolate(logits, size=image.shape[:2], mode="bilinear")[0]


def assert_same_mask(mask: np.ndarray, scores: torch.Tensor) -> None:
    """But for near-ties, where the last bit decides."""
    first, second = scores.topk(2, 0).values
    clear = (first - second > 1e-4).numpy()
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(mask[clear], scores.argmax(0).numpy()[clear])


def test_a_batch_of_several_sizes_that_the_network_sees_alike() -> None:
    one = model(geometry="stretch 32x24")
    images = [picture(21, 34, seed=1), picture(21, 34, seed=2), picture(40, 20, seed=3)]
    shapes = []
    one.network.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    predictions = Predictor(one).predict(images)
    assert shapes == [(3, 3, 24, 32)]
    for image, prediction in zip(images, predictions, strict=True):
        assert prediction.mask.shape == image.shape[:2]
        assert_same_mask(prediction.mask, expected_scores(one, image, 2))
        assert prediction.entropy is None
        assert prediction.disagreement is None
    assert Predictor(one).predict([]) == []


def test_what_makes_no_batch_is_refused() -> None:
    one = model()
    with pytest.raises(ValueError, match="no batch"):
        Predictor(one).predict([picture(20, 20), picture(20, 24)])
    predictor = Predictor(one, tiling=Tiling(64))
    assert predictor.is_tiled(100, 40)
    assert not predictor.is_tiled(64, 64)
    with pytest.raises(ValueError, match="no batch"):
        predictor.predict([picture(100, 40), picture(100, 40)])
    assert len(predictor.predict([picture(64, 64), picture(64, 64)])) == 2


@pytest.mark.parametrize("use_ensemble", [False, True])
def test_probabilities_and_doubts_follow_their_definitions(use_ensemble: bool) -> None:
    one = model(geometry="stretch 32x24")
    images = [picture(30, 44, seed=1), picture(30, 44, seed=2)]
    strips: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def collect(number: int, first: int, strip: np.ndarray) -> None:
        assert first == sum(len(one) for one in strips[number]), "top to bottom"
        assert strip.dtype == np.float16
        strips[number].append(strip)

    predictor = Predictor(one, use_ensemble=use_ensemble)
    predictions = predictor.predict(images, uncertainty=True, on_probabilities=collect)
    for number, image in enumerate(images):
        heads = np.stack([expected_scores(one, image, d).double().softmax(0).numpy() for d in (1, 2)])
        mean = heads.mean(0)
        answer = mean if use_ensemble else heads[1]

        def entropy(p: np.ndarray) -> np.ndarray:
            return -(p * np.log(p)).sum(-3)

        doubt, apart = predictions[number].entropy, predictions[number].disagreement
        assert doubt is not None
        assert apart is not None
        assert doubt.dtype == apart.dtype == np.uint8
        assert np.abs(doubt - 255 * entropy(answer) / np.log(3)).max() <= 0.51
        spread = (entropy(mean) - entropy(heads).mean(0)) / np.log(2)  # of two heads at most log 2
        assert np.abs(apart - 255 * spread).max() <= 0.51
        assert apart.max() > 0
        given = np.concatenate(strips[number])
        assert given.shape == (30, 44, 3)
        assert np.abs(given - answer.transpose(1, 2, 0)).max() < 1e-3
        assert_same_mask(predictions[number].mask, torch.from_numpy(answer))


def test_extremes_of_doubt() -> None:
    """Two heads, each sure of another class, disagree as much as can be; uniform ones are all doubt."""
    sure = torch.tensor([100.0, 0.0, 0.0]).view(1, 3, 1, 1)
    other = torch.tensor([0.0, 100.0, 0.0]).view(1, 3, 1, 1)
    uniform = torch.zeros(1, 3, 1, 1)
    assert float(disagreement([sure, other])) == pytest.approx(1)
    assert float(disagreement([uniform, uniform])) == pytest.approx(0, abs=1e-6)
    assert float(entropy(uniform.softmax(1))) == pytest.approx(1)
    assert float(entropy(sure.softmax(1))) == pytest.approx(0)
    assert float(entropy(torch.ones(1, 1, 1, 1))) == 0, "one class, no doubt"


def test_one_head_has_nobody_to_disagree_with() -> None:
    prediction = Predictor(model(), depth=1).predict([picture(20, 24)], uncertainty=True)[0]
    assert prediction.entropy is not None
    assert prediction.disagreement is None


def test_doubts_cost_nothing_when_nobody_asks() -> None:
    one = model()
    calls = []
    one.network.head["1"].register_forward_hook(lambda *_: calls.append(1))
    Predictor(one).predict([picture(20, 24)])
    assert calls == []
    Predictor(one).predict([picture(20, 24)], uncertainty=True)
    assert calls == [1]


@pytest.mark.parametrize("geometry", ["native", "fit 160"])
def test_tiles_and_strips_give_the_same_as_the_whole(geometry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = model(geometry=geometry)
    image = picture(231, 190)
    whole = Predictor(one).predict([image], uncertainty=True)[0]
    strips: list[np.ndarray] = []
    predictor = Predictor(one, tiling=Tiling(80))
    assert predictor.is_tiled(231, 190)
    monkeypatch.setitem(_STRIP, "cpu", 5 * 190 * 3)  # five rows at once
    tiled = predictor.predict(
        [image], uncertainty=True, on_probabilities=lambda number, first, strip: strips.append(strip)
    )[0]
    scores = expected_scores(one, image, 2)
    assert_same_mask(tiled.mask, scores)
    assert max(len(strip) for strip in strips) == 5
    assert np.abs(np.concatenate(strips) - scores.softmax(0).permute(1, 2, 0).numpy()).max() < 1e-3
    for ours, theirs in ((tiled.entropy, whole.entropy), (tiled.disagreement, whole.disagreement)):
        assert ours is not None
        assert theirs is not None
        assert np.abs(ours.astype(int) - theirs).max() <= 1, "rounded alike but for the last bit"
    torch.testing.assert_close(predictor.scores(image), scores, rtol=1e-4, atol=1e-4)


def test_a_tile_that_is_too_small_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"--tile 56 is too small: at depth 2 .* Use --tile 60"):
        Predictor(model(), tiling=Tiling(56))
    Predictor(model(), depth=1, tiling=Tiling(56))


def test_tiles_come_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 20 MB left a small image goes through whole and a larger one in tiles, with the same mask."""
    monkeypatch.setattr("unetpp_cli.inference.predictor.memory_left", lambda device: 20_000_000)
    one = model()
    predictor, image = Predictor(one), picture(300, 200)
    assert not predictor.is_tiled(100, 100)
    assert predictor.is_tiled(300, 200)
    assert not Predictor(one, tile_automatically=False).is_tiled(300, 200)
    shapes = []
    one.network.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    assert_same_mask(predictor.mask(image), expected_scores(one, image, 2))
    assert len(shapes) > 2
    shapes.clear()
    predictor.predict([picture(100, 100)] * 4)
    assert [shape[0] for shape in shapes] == [3, 1], "as many at once as memory allows"


def test_test_time_augmentation_reaches_the_mask() -> None:
    one = model()
    image = picture(40, 56)
    x = (chw(image)[None].float() / 255 - 0.5) / 0.2
    with torch.no_grad():
        ways = one.network(x).softmax(1) + one.network(x.flip(3)).flip(3).softmax(1)
    assert_same_mask(Predictor(one, tta=("flip",)).mask(image), ways[0])


def test_threads_may_share_a_predictor() -> None:
    predictor = Predictor(model(), tiling=Tiling(80))
    images = [picture(60 + 20 * index, 90, seed=index) for index in range(6)]
    alone = [predictor.mask(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for ours, theirs in zip(pool.map(predictor.mask, images), alone, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_arrays_that_cannot_be_written_and_views_that_run_backwards() -> None:
    predictor, image = Predictor(model()), picture(20, 24)
    frozen, backwards = image.copy(), np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (frozen, backwards):
            np.testing.assert_array_equal(predictor.mask(same), predictor.mask(image))


MEASURE = """
import resource, sys
import numpy as np, torch
from test_inference import model
from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.inference.tiles import Tiling
torch.set_num_threads(1)
predictor = Predictor(model(CAMVID11, depth=4, width=8), tiling=Tiling(512))
image = np.random.default_rng(0).integers(0, 256, (int(sys.argv[1]), 1000, 3), dtype=np.uint8)
mask = predictor.mask(image)
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - image.nbytes - mask.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted in other units elsewhere")
def test_memory_does_not_grow_with_height() -> None:
    """Above the picture and its mask, 6,000 rows take what 2,000 take."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent)])
    # glibc then maps and unmaps all but small tensors: no holes in its heap, which come and go by chance.
    environment = {**os.environ, "PYTHONPATH": paths, "MALLOC_MMAP_THRESHOLD_": str(1 << 18)}
    both = [
        subprocess.Popen([sys.executable, "-c", MEASURE, height], env=environment, stdout=subprocess.PIPE)
        for height in ("2000", "6000")
    ]
    peaks = [int(process.communicate()[0]) for process in both]
    assert abs(peaks[1] - peaks[0]) < 0.1 * peaks[0], peaks


def test_grey_images() -> None:
    one = model(channels=1)
    assert Predictor(one).mask(picture(17, 23, channels=1)).shape == (17, 23)


def test_halving_by_area_is_the_mean_of_four() -> None:
    image = picture(20, 32)
    blocks = image.reshape(10, 2, 16, 2, 3).astype(float).mean((1, 3))
    difference = np.abs(Geometry.parse("fit 10").image(image) - blocks)
    assert difference.max() <= 1, "rounded once per axis"


def test_resized_masks_keep_their_values() -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 7, VOID], dtype=np.uint8), (40, 60))
    for text in ("fit 13", "97x31"):
        assert set(np.unique(Geometry.parse(text).mask(mask))) == {0, 7, VOID}


def test_colours_of_a_palette_differ() -> None:
    assert len(set(palette(255))) == 255
    assert len(set(CAMVID11.colors)) == 11


def test_evaluation_counts_blocks_images_and_boundaries_apart() -> None:
    """Images in another order than their indices and of two sizes: each lands in its block, for every row."""
    one = model()
    rng = np.random.default_rng(4)
    sizes = {0: (20, 28), 1: (17, 19), 2: (20, 28), 3: (20, 28)}
    examples = {
        index: Example(
            index,
            chw(picture(*size, seed=index)),
            torch.from_numpy(rng.integers(0, 3, size, dtype=np.uint8)),
        )
        for index, size in sizes.items()
    }
    blocks = [1, 0, 0, 1]

    def evaluated(batches: list[list[int]], blocks: list[int]) -> Evaluation:
        return evaluate(
            one.network.heads,
            one.network.head_depths,
            [[examples[index] for index in batch] for batch in batches],
            THREE,
            one.header.mean,
            one.header.std,
            CPU,
            with_ensemble=True,
            blocks=blocks,
            boundary=True,
        )

    def rows(result: Evaluation) -> list[Tally]:
        assert result.ensemble is not None
        return [*result.heads.values(), result.ensemble]

    alone = [rows(evaluated([[index]], [0] * 4)) for index in range(4)]
    for row, tally in enumerate(rows(evaluated([[3, 1, 0], [2]], blocks))):
        each = [alone[index][row] for index in range(4)]
        np.testing.assert_array_equal(tally.confusion, sum(one.confusion for one in each))
        np.testing.assert_array_equal(tally.blocks[0], each[1].blocks[0] + each[2].blocks[0])
        np.testing.assert_array_equal(tally.blocks[1], each[0].blocks[0] + each[3].blocks[0])
        expected = {index: one.scores(THREE).miou for index, one in enumerate(each)}
        assert tally.images == pytest.approx(expected)
        assert tally.boundary == pytest.approx(np.mean([one.boundary for one in each], axis=0))
    assert not np.array_equal(alone[0][0].boundary, alone[0][1].boundary), "the heads differ"
