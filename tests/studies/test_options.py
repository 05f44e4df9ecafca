"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from studies._options import EncoderWeights, Place


def _given(*arguments: str) -> list[str]:
    app = typer.Typer()

    @app.command()
    def show(encoder_weights: EncoderWeights = None, artifacts: Place = None) -> None:
        typer.echo(f"{encoder_weights}\n{artifacts}")

    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    return found.stdout.splitlines()


def test_places_that_workers_take_from_the_store_do_not_depend_on_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = _given("--encoder-weights", "a/w.safetensors", "--artifacts", "nets/c:d")
    assert found == [f"{tmp_path / 'a/w.safetensors'}", f"{tmp_path / 'nets/c:d'}"]
    monkeypatch.setenv("UNETPP_ARTIFACTS", "../nets")
    assert _given() == ["None", f"{tmp_path.parent / 'nets'}"]


@pytest.mark.parametrize("url", ["s3://bucket/a", "gs://bucket", "file:///a/b", "s3:typo", ""])
def test_urls_and_the_hub_are_left_as_they_are(url: str) -> None:
    assert _given("--encoder-weights", "hub", "--artifacts", url) == ["hub", url]
    assert _given() == ["None", "None"]
