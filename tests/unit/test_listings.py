# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The example pipeline's files: the same for the same seed, and read as tests/lab/market.py reads them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "dags" / "listings"


def module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"listings_{path.stem}", path)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


generator, reading, market = (
    module(path) for path in (ROOT / "tools/listings.py", PIPELINE / "reading.py", ROOT / "tests/lab/market.py")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("listings")
    generator.write(made, weeks=9, seed=11)
    return made


def test_the_same_seed_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    generator.write(tmp_path, weeks=9, seed=11)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(files) == 10 and files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    generator.write(tmp_path, weeks=2, seed=12)
    assert len(list(tmp_path.iterdir())) == 3 and (tmp_path / "2024-W36.csv").read_bytes() != files["2024-W36.csv"]


def test_lines_are_read_and_left_out_as_they_should(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "FOLDER", folder)
    kept, told = market.clean(folder)
    assert len(reading.weeks()) == 9
    for week in reading.weeks():
        rows, counts = reading.read(week, reading.rates())
        wanted = told[(str(reading.monday(week)),)]
        assert {name: counts[name] for name in counts} == {name: wanted[name] for name in counts}
        assert len(rows) == wanted["loaded"] + wanted["outliers"]
        prices = {(row["brand"], row["reference"], float(row["price"])) for row in rows}
        assert {(row["key"][0], row["key"][3], row["price"]) for row in kept if row["week"] == reading.monday(week)} <= prices


@pytest.mark.parametrize("text", ["", "n/a", "on request", "-1", "0", "NaN", "Infinity", "1e"])
def test_what_is_no_price(text: str) -> None:
    assert reading.amount(text) is None


def test_the_pipeline_stays_small() -> None:
    files = [*PIPELINE.glob("*.py"), *PIPELINE.glob("sql/*.sql")]
    assert len(files) > 15 and sum(len(path.read_text().splitlines()) for path in files) <= 500


def test_the_picture_shows_the_dags_in_their_order() -> None:
    after = {}
    for path in PIPELINE.glob("*.py"):
        if found := re.search(r'step\(\s*"(\w+)", after="(\w+)"', path.read_text()):
            assert found[1] == path.stem
            after[found[2]] = found[1]
    order = ["ingest_listings", after.pop("listings")]
    while after:
        order.append(after.pop(order[-1]))
    assert order == re.findall(r'font-weight="600"[^>]*>(\w+)<', (ROOT / "docs/images/pipeline.svg").read_text())


def test_every_pool_that_tasks_name_is_declared() -> None:
    declared = {pool["name"] for pool in yaml.safe_load((PIPELINE / "inventory.yml").read_text())["airflow_pools"]}
    text = (PIPELINE / "pipeline.py").read_text()
    assert {name for name in declared if f'"{name}"' in text} == declared == {"listings_load", "listings_metrics"}
