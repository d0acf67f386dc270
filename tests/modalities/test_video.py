"""Videos as nodes: patches that know frame, place and seconds; relations in space and time; a model that learns from them."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphfusion import FusionPredictor
from graphfusion.data.media.video import read_video
from graphfusion.encoders import ENCODERS, PatchConvEncoder, make_encoder
from graphfusion.errors import MediaError, SchemaError
from graphfusion.graph_builder import GRAPHS, GraphBuilder, graph_preset
from graphfusion.graph_builder.relations import AlignedInTime, GridNeighbourhood
from graphfusion.modalities import modality_from_dict, modality_to_dict
from graphfusion.modalities.audio import AudioModality
from graphfusion.modalities.tokens import Tokens
from graphfusion.modalities.video import VideoModality
from graphfusion.schema import Class, Schema, Video
from graphfusion.selftest.video import make_video

ROOT = Path()


def noise(frames: int, seed: int = 0) -> bytes:
    """A lossless video of 10 frames a second, each of 4 x 4 random squares of 8 pixels."""
    squares = np.random.default_rng(seed).integers(0, 256, (frames, 4, 4, 3), dtype=np.uint8)
    return make_video("matroska", "ffv1", frames=frames, picture=lambda i: squares[i].repeat(8, 0).repeat(8, 1))


ROWS: list[dict[str, Any]] = [{"v": noise(n, n)} for n in (4, 1, 7)]


@pytest.fixture(scope="module")
def modality() -> VideoModality:
    return VideoModality("v", size=16, patch=8, frames_per_second=5.0).fit(ROWS, ROOT)


def test_patches_are_the_pixels_of_their_places(modality: VideoModality) -> None:
    tokens = modality.tokens(ROWS[2], ROOT)
    tokens.check(modality.node_type, "v")
    clip = read_video(ROWS[2]["v"], ROOT, 16, 3, 5.0, 30.0)
    assert tokens.position.tolist() == [list(p) for p in product(range(4), range(2), range(2))]
    for values, (frame, row, column), span in zip(tokens.values, tokens.position, tokens.span, strict=True):
        box = clip.pictures[frame, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        raw = values * np.array(modality.std)[:, None, None] + np.array(modality.mean)[:, None, None]
        np.testing.assert_allclose(raw * 255, box, atol=1e-3)
        np.testing.assert_allclose(span, [0.2 * frame, min(0.2 * frame + 0.2, 0.7)], atol=1e-9)


def test_values_are_standardised_with_the_training_rows(modality: VideoModality) -> None:
    values = np.concatenate([modality.tokens(row, ROOT).values for row in ROWS])
    np.testing.assert_allclose(values.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(values.std((0, 2, 3)), 1, atol=1e-5)
    bad: list[dict[str, Any]] = [{"v": None}, {"v": b"no video"}]
    assert modality.fit([*bad, *ROWS, {}], ROOT) == modality
    assert modality.fit(bad, ROOT).std == (1.0, 1.0, 1.0)


def test_it_survives_json(modality: VideoModality) -> None:
    again = modality_from_dict(json.loads(json.dumps(modality_to_dict(modality))))
    assert again == modality
    np.testing.assert_array_equal(again.tokens(ROWS[0], ROOT).values, modality.tokens(ROWS[0], ROOT).values)
    schema = Schema({"v": Video(size=16, max_seconds=2.5)}, {"y": Class()})
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_what_is_cut_is_told(modality: VideoModality) -> None:
    short = VideoModality("v", size=16, frames_per_second=5.0, max_seconds=0.3).fit(ROWS, ROOT)
    assert short.tokens(ROWS[2], ROOT).cut == "the first max_seconds=0.3 s are read"
    assert not modality.tokens(ROWS[2], ROOT).cut


def test_all_frames_are_moved_alike() -> None:
    still = noise(1, 5)
    modality = VideoModality("v", size=16, patch=8, frames_per_second=10.0).fit([{"v": still}], ROOT)
    one = modality.tokens({"v": still}, ROOT)
    several = Tokens(np.tile(one.values, (3, 1, 1, 1)), np.tile(one.position, (3, 1)), np.tile(one.span, (3, 1)))
    moved = modality.augment(several, 2.0, np.random.default_rng(2))
    frames = moved.values.reshape(3, 4, 3, 8, 8)
    assert not np.allclose(frames[0], one.values)
    np.testing.assert_array_equal(frames, frames[:1].repeat(3, 0))
    np.testing.assert_array_equal(moved.position, several.position)
    same = modality.augment(one, 0.0, np.random.default_rng(1))
    np.testing.assert_array_equal(same.values, one.values)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 30}, "Video.size: expected a multiple"), ({"channels": 2}, "Video.channels"), ({"max_seconds": 0}, "max_seconds"), ({"frames_per_second": -1}, "frames_per")],
)  # fmt: skip
def test_bad_declarations_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Video(**options)


@pytest.mark.parametrize(("corners", "radius"), [(False, 1), (True, 1), (False, 2)])
def test_grid_in_space_and_time_by_brute_force(modality: VideoModality, corners: bool, radius: int) -> None:
    builder = GraphBuilder({"v": modality.node_type}, [GridNeighbourhood("v", radius, corners)])
    tokens = [modality.tokens(row, ROOT) for row in ROWS]
    batch = builder.build([{"v": t} for t in tokens])
    found = set(map(tuple, batch.edge_index(("v", "grid", "v")).T.tolist()))
    expected, first = set(), 0
    for t in tokens:
        for i, j in product(range(len(t)), repeat=2):
            apart = np.abs(t.position[i] - t.position[j])
            if i != j and (apart.max() if corners else apart.sum()) <= radius:
                expected.add((first + i, first + j))
        first += len(t)
    assert found == expected


def test_presets_know_videos(modality: VideoModality) -> None:
    sound = AudioModality("a")
    layouts = {"v": modality.node_type, "a": sound.node_type}
    tokens = {"v": modality.tokens(ROWS[2], ROOT), "a": sound.tokens({"a": np.zeros(8000, np.float32)}, ROOT)}
    assert GridNeighbourhood("v", corners=False) in graph_preset("within", layouts)
    assert {AlignedInTime("v", "a"), AlignedInTime("a", "v")} <= set(graph_preset("temporal", layouts))
    for name in GRAPHS:
        GraphBuilder(layouts, graph_preset(name, layouts), hubs=1).build([tokens, {}, {"a": tokens["a"]}])
    batch = GraphBuilder(layouts, graph_preset("temporal", layouts), hubs=1).build([tokens])
    source, target = batch.edge_index(("a", "aligned", "v"))
    spans = {n: batch.nodes[n].span for n in layouts}
    overlap = (spans["a"][:, None, 0] < spans["v"][None, :, 1] - 1e-9) & (
        spans["v"][None, :, 0] < spans["a"][:, None, 1] - 1e-9
    )
    assert set(zip(source.tolist(), target.tolist(), strict=True)) == set(map(tuple, overlap.nonzero().tolist()))


def test_convolution_sees_each_frame_by_itself(modality: VideoModality) -> None:
    builder = GraphBuilder({"v": modality.node_type}, [])
    tokens = modality.tokens(ROWS[2], ROOT)
    torch.manual_seed(0)
    encoder = PatchConvEncoder(12, modality.node_type.shape)
    whole = encoder(builder.build([{"v": modality.tokens(ROWS[0], ROOT)}, {"v": tokens}]).nodes["v"])[-len(tokens) :]
    for i in range(4):
        mine = tokens.position[:, 0] == i
        frame = Tokens(tokens.values[mine], tokens.position[mine], tokens.span[mine])
        alone = encoder(builder.build([{"v": frame}]).nodes["v"])
        torch.testing.assert_close(whole[torch.from_numpy(mine)], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("choice", ENCODERS["video"])
def test_encoders_do_not_see_the_other_samples(modality: VideoModality, choice: str) -> None:
    builder = GraphBuilder({"v": modality.node_type}, [])
    rows = [{"v": modality.tokens(row, ROOT)} for row in ROWS]
    encoder = make_encoder(modality, 12, {"video": choice})
    batch = builder.build(rows).nodes["v"]
    out = encoder(batch)
    assert encoder(builder.build([{}]).nodes["v"]).shape == (0, 12)
    for i, row in enumerate(rows):
        alone = encoder(builder.build([row]).nodes["v"])
        torch.testing.assert_close(out[batch.ptr[i] : batch.ptr[i + 1]], alone, rtol=0, atol=1e-5)


def fading(i: int, brighter: bool) -> bytes:
    """Four frames of the same four greys, the brightest first or last: the two classes differ in their order only."""
    levels = np.sort(np.random.default_rng(i).integers(0, 256, 4, dtype=np.uint8))
    return make_video(
        "mp4", frames=4, picture=lambda frame: np.full((32, 32, 3), levels[frame if brighter else 3 - frame])
    )


def test_a_predictor_learns_from_videos(tmp_path: Path) -> None:
    rows = []
    for i in range(60):
        (tmp_path / f"{i}.mp4").write_bytes(fading(i, brighter=i % 2 == 0))
        rows.append({"film": f"{i}.mp4", "fades": "in" if i % 2 == 0 else "out"})
    columns = {"film": Video(size=8, patch=8, channels=1, frames_per_second=10.0)}
    settings: dict[str, Any] = {
        "dim": 16,
        "heads": 2,
        "layers": 1,
        "epochs": 20,
        "lr": 1e-2,
        "batch_size": 16,
        "augment": 0.0,
    }
    predictor = FusionPredictor("fades", columns=columns, **settings)
    predictor.fit(rows[:48], valid=None, media_root=tmp_path, quiet=True)
    predictor.save(tmp_path / "saved")
    found = FusionPredictor.load(tmp_path / "saved").predict(rows[48:], media_root=tmp_path)
    right = sum(answer == row["fades"] for answer, row in zip(found, rows[48:], strict=True))
    assert right >= 10


def test_a_bad_video_is_named_by_row(tmp_path: Path) -> None:
    rows = [{"film": noise(2, i), "y": "ab"[i % 2]} for i in range(4)] + [{"film": b"none", "y": "a"}]
    predictor = FusionPredictor("y", columns={"film": Video(size=16)}, epochs=1, dim=8, heads=2)
    with pytest.raises(MediaError, match="row 4, column 'film': not a video"):
        predictor.fit(rows, valid=None, quiet=True)
    predictor.fit(rows, valid=None, quiet=True, on_error="missing")
    assert predictor.report is not None
    assert (predictor.report.ok, predictor.report.repaired) == (4, 1)
