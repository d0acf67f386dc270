"""The README's Python and commands are run as they stand; its table is that of the results, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.nn import GATConv, HeteroConv

import graphfusion
from graphfusion import cli
from tests.conftest import WORDS, png, wav

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block_with(what: str) -> str:
    """The one block of Python that has this in it."""
    (found,) = (block for block in BLOCKS if what in block)
    return found


def test_the_pieces_alone() -> None:
    space: dict[str, object] = {}
    exec(block_with("GraphBuilder("), space)
    assert space["fused"].unified.shape == (2, 16)  # type: ignore[attr-defined]


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CSVs like the one in the README in the working directory: paths, empty cells, three files."""
    rng = np.random.default_rng(0)
    lines = ["caption,photo,sound,price,label"]
    for i in range(40):
        (tmp_path / f"{i}.png").write_bytes(png(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)))
        (tmp_path / f"{i}.wav").write_bytes(wav(rng.normal(0, 0.1, 3000), 16_000))
        caption = " ".join(rng.choice(WORDS, 5))
        lines.append(f"{caption},{i}.png,{f'{i}.wav' if i % 3 else ''},{i / 2 if i % 4 else ''},{'ab'[i % 2]}")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    for name in ("new", "test"):
        shutil.copy(tmp_path / "train.csv", tmp_path / f"{name}.csv")
    monkeypatch.chdir(tmp_path)


def test_your_own_table(tables: None) -> None:
    space: dict[str, object] = {}
    exec(block_with(".load(").replace('preset="fast"', 'preset="fast", epochs=1, dim=16'), space)
    assert len(space["p"].predict("new.csv")) == 40  # type: ignore[attr-defined]


SMALL = "epochs=1, dim=16, heads=2"


def test_weights_of_tokens(tables: None, capsys: pytest.CaptureFixture[str]) -> None:
    code = block_with("token_weights").replace('FusionPredictor("label"', f'FusionPredictor("label", {SMALL}')
    space = {"graphfusion": graphfusion, "FusionPredictor": graphfusion.FusionPredictor}
    exec(code, space)
    caption = Path("new.csv").read_text().splitlines()[1].partition(",")[0]
    found = re.findall(r"\('(\w+)', ([\d.e-]+)\)", capsys.readouterr().out.splitlines()[-1])
    assert [word for word, _ in found] == caption.split()
    assert sum(float(weight) for _, weight in found) == pytest.approx(1.0, abs=1e-5)


def test_a_comparison(tables: None, capsys: pytest.CaptureFixture[str]) -> None:
    code = block_with("matched_feedforward").replace('FusionPredictor("label"', f'FusionPredictor("label", {SMALL}')
    exec(
        code.replace("range(3)", "range(2)"),
        {"graphfusion": graphfusion, "FusionPredictor": graphfusion.FusionPredictor},
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["gated", "0"], ["gated", "1"], ["graph", "0"], ["graph", "1"]]
    assert all(0 <= float(line.split()[2]) <= 1 for line in lines)


def test_the_same_without_python(tables: None, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [shlex.split(line, comments=True) for line in README.splitlines() if line.startswith("graphfusion ")]
    assert [c[1] for c in commands] == ["fit", "predict", "evaluate", "doctor"]
    for command in commands:
        small = " ".join(command[1:]).replace("epochs=40", "epochs=1 dim=16").split()
        assert cli.main(small) == 0
    assert len(Path("answers.csv").read_text().splitlines()) == 41
    assert "attention backend" in capsys.readouterr().out


def test_the_settings_as_a_file(tables: None) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    Path("run.yaml").write_text(text.replace("epochs: 40", "epochs: 1").replace("dim: 64", "dim: 16"))
    assert cli.main(["fit", "train.csv", "--config", "run.yaml", "--out", "runs/b", "--quiet"]) == 0
    fitted = graphfusion.FusionPredictor.load("runs/b")
    assert repr(fitted) == "<FusionPredictor of 'label': fusion='gated', graph='hub', dim=16, fitted>"
    assert fitted.schema.inputs["price"] == graphfusion.Tabular("category")


def test_a_model_of_pyg_is_accelerated() -> None:
    edge_type = ("a", "to", "a")
    model = torch.nn.ModuleList([HeteroConv({edge_type: GATConv((4, 4), 8, add_self_loops=False)})])
    space: dict[str, object] = {"graphfusion": graphfusion, "model": model}
    exec(block_with("accelerate("), space)
    x, edges = {"a": torch.randn(3, 4)}, {edge_type: torch.tensor([[0, 1, 2], [1, 1, 0]])}
    torch.testing.assert_close(space["fast"][0](x, edges)["a"], model[0](x, edges)["a"])  # type: ignore[index]


def test_the_table_of_results_is_that_of_the_runs() -> None:
    made = (ROOT / "benchmarks" / "results" / "fusion_strategies.md").read_text().split("###")[0].strip()
    assert made in README


@pytest.mark.parametrize("name", ["README.md", "benchmarks/README.md"])
def test_links_lead_to_what_is_there(name: str) -> None:
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    assert links
    for link in links:
        path, _, heading = link.partition("#")
        target = page.parent / path
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if heading else []
        assert not heading or heading in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, link
