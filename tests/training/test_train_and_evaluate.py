"""`pipeline train` and `pipeline evaluate`, by their processes, since Keras has one backend a process."""

import csv
import hashlib
import os
import signal
import subprocess
import sys

import pytest
from PIL import Image

from tests.fixtures.photographs import make_photograph
from tests.interfaces.commands import Pipeline

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(5):
        (folder / f"{seed}.png").write_bytes(make_photograph(seed, 400, 300, "PNG"))
    return folder


def run(*arguments, cwd, **changes):
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"} | changes
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)


@pytest.mark.slow
def test_a_short_training_improves_and_its_model_can_be_registered(photos, tmp_path):
    pytest.importorskip("torch")
    done = run(
        *("train", "restore", "--photos", photos, "--out", tmp_path / "out", "--epochs", 3, "--steps", 80),
        *("--learning-rate", 5e-3, "--licence", "CC0-1.0"),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    model, card = tmp_path / "out" / "restore.keras", (tmp_path / "out" / "restore.md").read_text()
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    assert sha256 in card
    assert "CC0-1.0" in card
    assert "--learning-rate 0.005" in card
    with (tmp_path / "out" / "history.csv").open() as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]

    registry = tmp_path / "models.toml"
    registry.write_text(f'[models.mine]\nurl = "out/restore.keras"\nsha256 = "{sha256}"\nscale = 1\n')
    listed = run("models", cwd=tmp_path, PIPELINE_MODELS=str(registry))
    assert "mine" in listed.stdout


@pytest.mark.slow
def test_evaluation_writes_a_table_and_pictures(photos, tmp_path):
    one = tmp_path / "one"
    one.mkdir()
    (one / "0.png").write_bytes((photos / "0.png").read_bytes())
    for model in ("restore", "upscale2x"):
        done = run("evaluate", model, "--photos", one, "--out", tmp_path / model, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "clean" in done.stdout
        report = (tmp_path / model / "evaluation.md").read_text()
        assert "| clean |" in report
        with Image.open(tmp_path / model / "0.png") as picture:
            assert picture.width > 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "sharpen", "--photos", "photos"), "no model named 'sharpen' can be trained; there are: restore"),
        (("train", "restore", "--photos", "nowhere"), "no photographs in 'nowhere'"),
        (("evaluate", "nonsense", "--photos", "photos"), "no model is named 'nonsense'; there are: restore"),
        (("evaluate", "restore", "--photos", "nowhere"), "no photographs in 'nowhere'"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(tmp_path, arguments, message):
    pytest.importorskip("torch")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode in {2, 3}
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_training_on_a_backend_that_only_infers_is_refused(photos, tmp_path):
    done = run("train", "restore", "--photos", photos, cwd=tmp_path, KERAS_BACKEND="openvino")
    assert done.returncode in {2, 3}
    assert "KERAS_BACKEND is 'openvino', which cannot train; allowed is torch, jax, tensorflow" in done.stderr


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_from_its_last_epoch(photos, tmp_path):
    pytest.importorskip("torch")
    arguments = ["train", "restore", "--photos", photos, "--out", tmp_path, "--epochs", 3, "--steps", 12]
    history = tmp_path / "history.csv"
    with Pipeline(tmp_path).start(*arguments) as running:
        running.wait_until(lambda: history.exists() and len(history.read_text().splitlines()) == 2, "one epoch", 120)
        running.send(signal.SIGKILL)
        running.end()
    first = history.read_text()

    done = run(*arguments, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert history.read_text().startswith(first)
    assert [line.split(",")[0] for line in history.read_text().splitlines()] == ["epoch", "0", "1", "2"]
