"""A million prompts, for real."""

import runpy
from pathlib import Path

import pytest

MEASURE = Path(__file__).parents[2] / "experiments" / "scale" / "measure.py"


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
def test_a_million_prompts_in_the_memory_of_ten_thousand(tmp_path: Path):
    measure = runpy.run_path(str(MEASURE))["measure"]
    few, many = (measure(size, "tokens", tmp_path) for size in (10_000, 1_000_000))
    print(few, many)
    assert many["peak_mib"] < 1.1 * few["peak_mib"]
    for phase in ("samples_s", "training_s"):
        assert many[phase] < 2 * 100 * few[phase], "proportional"
