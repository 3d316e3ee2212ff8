"""Mutated files of every kind that is read outside of run directories, and what is no regular file in their place."""

import os
import socket

import pytest

from benchmarks.fuzz_files import attack, kinds
from compress.prune.checkpoints import read_content
from nas import weights
from nas.cli.sources import read_network
from nas.data import fashion_mnist
from nas.data.config import DataConfig
from nas.data.load import load
from nas.errors import InvalidData, NasError
from nas.latency.table import read_table
from nas.runtimes import pt2
from nas.runtimes.ort import OnnxRuntime
from nas.runtimes.runtime import Setting

INPUTS = {"onnx": 40, "image": 20, "csv": 20}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def found(home):
    return kinds(home)


@pytest.mark.parametrize(
    "name",
    "recipe npz csv image onnx table proxyless safetensors weights architecture".split(),
)
def test_mutated_files_are_taken_or_refused(name, found, home):
    outcomes = attack(found[name], home, INPUTS.get(name, 60), seed=3)
    assert set(outcomes) <= {"taken", "refused"}, outcomes


def test_all_kinds_are_tried(found):
    assert set(found) == set("recipe npz csv image onnx table proxyless safetensors weights architecture".split())


READERS = {
    "weights": read_content,
    "safetensors": weights.load,
    "table": read_table,
    "x.pt2": pt2.checked,
    "images-idx3-ubyte": fashion_mnist.read_idx,
    "images-idx3-ubyte.gz": fashion_mnist.read_idx,
    "architecture.json": lambda path: read_network(str(path)),
    "x.npz": lambda path: load(DataConfig(f"npz:{path}")),
    "x.csv": lambda path: load(DataConfig(f"csv:{path}")),
    "folder": lambda path: load(DataConfig(f"imagefolder:{path}")),
    "x.onnx": lambda path: OnnxRuntime().load(path, None, Setting()),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("put", [os.mkfifo, lambda path: os.symlink("/dev/zero", path), os.mkdir])
def test_pipes_devices_and_folders_in_the_place_of_files_are_not_waited_for(name, put, tmp_path):
    path = tmp_path / name
    put(path)
    with pytest.raises((NasError, OSError)) as caught:
        READERS[name](path)
    assert "\n" not in str(caught.value)


def test_pipes_and_sockets_among_images_are_left_out(found, home, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for number in range(6):
            (folder / name / f"{number}.png").write_bytes(found["image"].content)
    monkeypatch.chdir(folder)
    os.mkfifo("a/pipe.png")
    os.symlink("/dev/zero", "a/zero.jpg")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("b/plug.jpg")
        data = load(DataConfig(f"imagefolder:{folder}", resolution=8))
    assert len(data.train) + len(data.val) + len(data.load_test()) == 12
    rows = "".join(f"{name}/{number}.png,{name}\n" for name in "ab" for number in range(6))
    (folder / "list.csv").write_text("file,label\na/pipe.png,a\n" + rows)
    with pytest.raises(InvalidData, match="1 of 13 rows name no file"):
        load(DataConfig(f"csv:{folder / 'list.csv'}", resolution=8))
