"""The benchmark's measurements, on next to nothing: that they run, and that what they compare is the same work."""

import pytest

from pipeline.interfaces.bench import bare_network, measure
from pipeline.interfaces.demo.server import serve_folder


@pytest.mark.slow
def test_enhancement_is_compared_with_its_absence_and_with_the_bare_network(tmp_path, monkeypatch, valkey_url):
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setattr(bare_network, "PREDICTIONS", 2)
    names = measure.make_photographs(tmp_path / "photographs", 12)
    with serve_folder(tmp_path / "photographs") as url:
        urls = [f"{url}/{name}" for name in names]
        rows = list(measure.compare_with_enhancement(urls, tmp_path, workers=1, rounds=1, model="sharpen"))
    assert [row.what for row in rows] == [
        "whole job with `sharpen`, against without",
        "enhance stage with `sharpen`, against its network alone",
    ]
    assert all(0 < float(row.figure) < 3 for row in rows)
    assert rows[1].detail.count("megapixels/s") == 1


def test_the_bare_network_runs_on_what_the_resize_stage_makes_of_a_photograph():
    width, height = measure.SIZE
    rows, columns = bare_network.SHAPE
    assert (columns, rows) == (1024, round(height * 1024 / width))
