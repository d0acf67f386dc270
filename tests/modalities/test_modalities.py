"""Each modality: tokens know their place in the input; what is learned from training rows survives JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from graphfusion.data import Sample
from graphfusion.errors import CellError, ConfigError
from graphfusion.modalities import MODALITIES, modalities_of, modality_from_dict, modality_to_dict, prepare
from graphfusion.modalities.audio import FLOOR, AudioModality
from graphfusion.modalities.features import FeaturesModality
from graphfusion.modalities.image import ImageModality
from graphfusion.modalities.tabular import UNSEEN, TabularModality
from graphfusion.modalities.text import TextModality
from tests.conftest import SCHEMA, make_rows, tokenize

ROOT = Path()
TEXTS = [{"t": f"the quick brown fox number {i} jumps over thirteen lazy dogs"} for i in range(20)]


@pytest.fixture(scope="module")
def text() -> TextModality:
    return TextModality("t", max_tokens=16, vocab_size=300).fit(TEXTS, ROOT)


def test_every_modality_survives_json_and_gives_the_same_tokens() -> None:
    modalities, samples = tokenize(make_rows(4))
    elsewhere = {"video", "pretrained_text", "pretrained_image"}  # test_video.py, encoders/test_pretrained.py
    assert {m.node_type.kind for m in modalities.values()} == set(MODALITIES) - elsewhere
    again = {n: modality_from_dict(json.loads(json.dumps(modality_to_dict(m)))) for n, m in modalities.items()}
    assert again == modalities
    for i, row in enumerate(make_rows(4)):
        for name, modality in again.items():
            made = modality.tokens({c: row[c] for c in SCHEMA.columns_of(name)}, ROOT)
            np.testing.assert_array_equal(made.values, samples[i].tokens[name].values)
            made.check(modality.node_type, name)


def test_text_spans_lead_back_to_the_characters(text: TextModality) -> None:
    sentence = "The QUICK brown fox, number 7!"
    tokens = text.tokens({"t": sentence}, ROOT)
    pieces = [sentence[int(a) : int(b)] for a, b in tokens.span]
    assert "".join(pieces).replace(" ", "") == sentence.replace(" ", "")
    words = tokens.attributes["entity"].tolist()
    assert {"the", "quick", "brown", "fox"} <= set(words)
    assert all(piece.strip().lower() in word for piece, word in zip(pieces, words, strict=True))
    assert text.decode(tokens.values.tolist()).strip() == sentence.lower()


@pytest.mark.parametrize("odd", ["日本語 😀", "\ud800 lone", "a\0b", "العربية", "x" * 10_000, "é" * 5])
def test_text_takes_anything(text: TextModality, odd: str) -> None:
    tokens = text.tokens({"t": odd}, ROOT)
    assert 0 < len(tokens) <= 16
    assert tokens.values.max() < text.size
    assert (tokens.span <= len(odd)).all()


@pytest.mark.parametrize(
    "long", ["The QUICK brown fox " * 5_000, "x" * 50_000, " " * 20_000 + "seven lazy dogs " * 2_000, "日本語" * 9_000]
)
def test_a_long_text_is_read_no_further_than_needed(text: TextModality, long: str) -> None:
    whole = Tokenizer.from_str(text.vocabulary).encode(long)
    tokens = text.tokens({"t": long}, ROOT)
    assert tokens.values.tolist() == whole.ids[:16]
    assert tokens.span.tolist() == [list(map(float, span)) for span in whole.offsets[:16]]
    assert tokens.cut == f"{len(long):,} characters, of which the first max_tokens=16 tokens are read"


@pytest.mark.parametrize("blank", ["", "  ", "\n\t"])
def test_blank_text_has_no_tokens(text: TextModality, blank: str) -> None:
    assert len(text.tokens({"t": blank}, ROOT)) == 0


def test_vocabulary_is_deterministic(text: TextModality) -> None:
    assert TextModality("t", max_tokens=16, vocab_size=300).fit(TEXTS, ROOT).vocabulary == text.vocabulary
    assert text.size <= 300


def test_image_patches_are_the_pixels_of_their_boxes() -> None:
    pixels = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
    modality = ImageModality("i", size=16, patch=4).fit([{"i": pixels}], ROOT)
    tokens = modality.tokens({"i": pixels}, ROOT)
    assert tokens.values.shape == (16, 3, 4, 4)
    for values, (row, column), (left, top, right, bottom) in zip(
        tokens.values, tokens.position, tokens.span, strict=True
    ):
        assert (left, top, right, bottom) == (4 * column, 4 * row, 4 * column + 4, 4 * row + 4)
        box = pixels[int(top) : int(bottom), int(left) : int(right)].transpose(2, 0, 1)
        raw = values * np.array(modality.std)[:, None, None] + np.array(modality.mean)[:, None, None]
        np.testing.assert_allclose(raw, box, atol=1e-5)


def test_image_boxes_are_in_pixels_of_the_original() -> None:
    tokens = ImageModality("i", size=16, patch=8, mean=(0.0,) * 3, std=(1.0,) * 3).tokens(
        {"i": np.zeros((40, 100, 3))}, ROOT
    )
    assert tokens.span.tolist() == [[0, 0, 50, 20], [50, 0, 100, 20], [0, 20, 50, 40], [50, 20, 100, 40]]


def test_log_mel_of_a_tone_peaks_in_its_band_and_knows_its_time() -> None:
    modality = AudioModality("a", frames_per_token=2)
    time = np.arange(8_000) / 16_000
    wave = np.where(time < 0.25, 0, np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    tokens = modality.tokens({"a": wave}, ROOT)
    mel = modality._mel.numpy()
    band = mel[round(1000 / (16_000 / 2) * (len(mel) - 1))].argmax()
    loud = tokens.values.mean(axis=2)
    for i, (start, end) in enumerate(tokens.span):
        if end < 0.23:
            np.testing.assert_allclose(loud[i], np.log(FLOOR), atol=1e-4)
        if start > 0.27 and end < 0.46:
            assert loud[i].argmax() == band
    assert tokens.span[0, 0] == 0
    assert tokens.span[-1, 1] == pytest.approx(0.5)
    np.testing.assert_allclose(tokens.span[1:, 0], tokens.span[:-1, 1])


def test_log_mel_equals_the_spectrogram_of_transformers() -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram

    wave = np.random.default_rng(0).normal(0, 0.1, 400 + 160 * 9).astype(np.float32)
    modality = AudioModality("a", frames_per_token=1)
    ours = modality.tokens({"a": wave}, ROOT).values[:, :, 0].T
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)) / np.sqrt(400)
    filters = mel_filter_bank(257, 64, 0.0, 8000.0, 16_000)
    theirs = spectrogram(
        wave, window, 400, 160, 512, power=2.0, center=False, mel_filters=filters, mel_floor=FLOOR, log_mel="log"
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 401, 16_000])
def test_audio_of_any_length(samples: int) -> None:
    tokens = AudioModality("a").tokens({"a": np.zeros(samples, np.float32)}, ROOT)
    frames = 0 if not samples else 1 + max(0, -(-(samples - 400) // 160))
    assert len(tokens) == -(-frames // 4)


def test_tabular_tokens() -> None:
    rows: list[dict[str, Any]] = [{"n": 1.0, "c": "x"}, {"n": 3.0, "c": "y"}, {"n": None, "c": "x"}]
    modality = TabularModality({"n": "number", "c": "category"}).fit(rows, ROOT)
    assert modality.tokens({"n": 3.0, "c": "y"}, ROOT).values.tolist() == [[0, 1], [1, 2]]
    assert modality.tokens({"c": "never seen"}, ROOT).values.tolist() == [[1, UNSEEN]]
    assert modality.size == 3
    for bad in ("many", float("inf")):
        with pytest.raises(CellError, match="number"):
            modality.tokens({"n": bad}, ROOT)


def test_categories_and_scales_do_not_depend_on_how_a_cell_was_read() -> None:
    modality = TabularModality({"c": "category", "k": "number"}).fit(
        [{"c": 1, "k": 0.1}, {"c": "true", "k": 0.1}], ROOT
    )
    for same in (1, 1.0, "1", " 1 "):
        assert modality.tokens({"c": same}, ROOT).values[0, 1] == 1
    assert modality.tokens({"c": True}, ROOT).values[0, 1] == 2
    assert modality.tokens({"k": 0.2}, ROOT).values[0, 1] == pytest.approx(0.1, abs=1e-6)  # a constant has no scale
    with pytest.raises(CellError, match="deviations"):
        modality.tokens({"k": 1e300}, ROOT)


def test_audio_spans_ascend_at_odd_rates() -> None:
    for rate in (11_025, 22_050, 16_000):
        modality = AudioModality("a", sample_rate=rate, array_rate=rate)
        tokens = modality.tokens({"a": np.zeros(30 * rate, np.float32)}, ROOT)
        assert (tokens.span[:, 1] > tokens.span[:, 0]).all()
        assert tokens.span[-1, 1] == pytest.approx(30)


def test_features_in_every_form() -> None:
    modality = FeaturesModality("f").fit([{"f": None}, {"f": np.zeros((2, 3))}], ROOT)
    assert not modality.timed
    assert modality.width == 3
    assert modality.tokens({"f": [1.0, 2.0, 3.0]}, ROOT).values.shape == (1, 3)
    assert len(modality.tokens({"f": np.zeros((0, 3))}, ROOT)) == 0
    timed = modality.fit([{"f": {"values": np.ones((1, 3)), "seconds": [[0, 1]], "speaker": [1]}}], ROOT)
    full = timed.tokens({"f": {"values": np.ones((2, 3)), "seconds": [[0, 1], [1, 3]], "speaker": [4, 5]}}, ROOT)
    assert full.span.tolist() == [[0, 1], [1, 3]]
    assert full.attributes["speaker"].tolist() == [4, 5]


def test_features_are_standardised_with_the_training_rows() -> None:
    rng = np.random.default_rng(0)
    cells = [rng.normal([5e4, 0.0, -3.0], [1e-1, 1e-3, 50.0], (n, 3)).astype(np.float32) for n in (1, 4, 0, 7)]
    cells = [np.concatenate([c, np.full((len(c), 1), 7.3, np.float32)], 1) for c in cells]
    modality = FeaturesModality("f").fit(
        [{"f": c} for c in cells] + [{"f": [np.nan] * 4}, {"f": [1.0]}, {"f": None}], ROOT
    )
    every = np.concatenate(cells).astype(np.float64)
    scale = [*every.std(0)[:3], 1.0]  # the last column never changes
    found = np.concatenate([modality.tokens({"f": c}, ROOT).values for c in cells])
    np.testing.assert_allclose(found, (every - every.mean(0)) / scale, rtol=1e-3, atol=1e-4)
    again = modality_from_dict(json.loads(json.dumps(modality_to_dict(modality))))
    np.testing.assert_array_equal(
        again.tokens({"f": cells[1]}, ROOT).values, modality.tokens({"f": cells[1]}, ROOT).values
    )
    plain = FeaturesModality("f", standardize=False).fit([{"f": cells[1]}], ROOT)
    np.testing.assert_array_equal(plain.tokens({"f": cells[3]}, ROOT).values, cells[3])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (np.zeros((2, 4)), "width 3, got 4"), (np.zeros((2, 2, 2)), r"\(n, width\)"), (np.full(3, np.nan), "finite"), ("abc", "str"),
        ({"values": np.zeros((2, 3)), "speaker": [1]}, "expected 2 entries"),
        ({"values": np.zeros((2, 3)), "seconds": [0, 1]}, r"\(2, 2\)"),
        ({"values": np.zeros((1, 3)), "seconds": [[np.nan, 1]]}, "finite"), ({"values": np.zeros((1, 3)), "seconds": [[2, 1]]}, "start"),
        ({"values": np.zeros((1, 3))}, "expected 'seconds'"),
    ],
)  # fmt: skip
def test_bad_features_are_named(cell: Any, message: str) -> None:
    asked = ("speaker",) if isinstance(cell, dict) and "speaker" in cell else ()
    with pytest.raises(CellError, match=message):
        FeaturesModality("f", width=3, timed=isinstance(cell, dict) and "speaker" not in cell, attributes=asked).tokens(
            {"f": cell}, ROOT
        )


def test_seen_is_ok_plus_skipped_plus_repaired() -> None:
    modalities = {n: m for n, m in tokenize(make_rows(4))[0].items() if n in ("photo", "clip")}
    rows = make_rows(6)
    rows[1]["photo"], rows[3]["photo"], rows[3]["clip"], rows[5]["photo"] = b"broken", "../out.png", np.zeros(9), None
    samples = [Sample(i, row) for i, row in enumerate(rows)]
    columns = {"photo": ("photo",), "clip": ("clip",)}
    found, report = prepare(samples, modalities, columns, ROOT, "missing")
    assert (report.seen, report.ok, report.skipped, report.repaired) == (6, 4, 0, 2)
    assert [sorted(s.tokens) for s in found] == [
        ["clip", "photo"],
        ["clip"],
        ["clip", "photo"],
        [],
        ["clip", "photo"],
        ["clip"],
    ]
    found, report = prepare(samples, modalities, columns, ROOT, "skip")
    assert (report.seen, report.ok, report.skipped, report.repaired) == (6, 4, 2, 0)
    assert [s.id for s in found] == [0, 2, 4, 5]
    assert "row 1, column 'photo'" in str(report)
    with pytest.raises(CellError, match="row 1, column 'photo': not a readable image"):
        prepare(samples, modalities, columns, ROOT, "error")
    with pytest.raises(ConfigError, match="missing"):
        prepare(samples, modalities, columns, ROOT, "mising")


def test_modalities_follow_the_schema() -> None:
    assert list(modalities_of(SCHEMA)) == list(SCHEMA.node_types)


def test_image_augmentation_is_a_shift() -> None:
    pixels = np.random.default_rng(0).random((20, 20, 1)).astype(np.float32)
    modality = ImageModality("i", size=20, patch=5, channels=1, mean=(0.0,), std=(1.0,))
    tokens = modality.tokens({"i": pixels}, ROOT)
    shifts = set()
    for seed in range(40):
        moved = modality.augment(tokens, 1.0, np.random.default_rng(seed))
        picture = moved.values.reshape(4, 4, 5, 5).transpose(0, 2, 1, 3).reshape(20, 20)
        fits = [
            (y, x)
            for y in range(-2, 3)
            for x in range(-2, 3)
            if np.allclose(picture, pixels[(np.arange(20) + y).clip(0, 19)][:, (np.arange(20) + x).clip(0, 19), 0])
        ]
        assert len(fits) == 1
        shifts.update(fits)
        np.testing.assert_array_equal(moved.position, tokens.position)
    assert len(shifts) > 10


def test_audio_augmentation_moves_and_masks() -> None:
    modality = AudioModality("a", bands=20, frames_per_token=4)
    tokens = modality.tokens({"a": np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)}, ROOT)
    frames = tokens.values.transpose(1, 0, 2).reshape(20, -1)
    moved_by, masked = set(), 0
    for seed in range(40):
        out = modality.augment(tokens, 1.0, np.random.default_rng(seed)).values.transpose(1, 0, 2).reshape(20, -1)
        count = frames.shape[1]
        kept = out != 0
        found = [
            s
            for s in range(-4, 5)
            if np.allclose(out[kept], frames[:, (np.arange(count) + s).clip(0, count - 1)][kept])
        ]
        assert found
        moved_by.update(found)
        bands, times = (~kept).all(axis=1).sum(), (~kept).all(axis=0).sum()
        assert bands <= 3
        assert times <= round(0.15 * count)
        masked += int(bands + times)
    assert len(moved_by) > 4
    assert masked > 0


def test_augmentation_keeps_the_rest_as_it_is() -> None:
    modalities, samples = tokenize(make_rows(3))
    for name in ("caption", "clip", "table"):
        assert (
            modalities[name].augment(samples[0].tokens[name], 1.0, np.random.default_rng(0)) is samples[0].tokens[name]
        )
    for name, modality in modalities.items():
        one, two = (modality.augment(samples[1].tokens[name], 1.0, np.random.default_rng(3)) for _ in range(2))
        np.testing.assert_array_equal(one.values, two.values)
        assert len(one) == len(samples[1].tokens[name])
