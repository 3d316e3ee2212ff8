"""Lists of image files and labels."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import SIDE, named, write_image

from nas.data.config import DataConfig
from nas.data.decoding import decode
from nas.data.load import load
from nas.errors import InvalidData


@pytest.fixture
def table(tmp_path: Path):
    """Writes photos/0.png ... and a list of them."""
    for number in range(30):
        write_image(tmp_path / "photos" / f"{number}.png", number)

    def write(text: str) -> DataConfig:
        (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
        return DataConfig(f"csv:{tmp_path / 'labels.csv'}", resolution=SIDE, workers=0)

    return write


def rows(line: str = "photos/{i}.png,{label}", count: int = 30) -> str:
    return "\n".join(line.format(i=i, label="xyz"[i % 3]) for i in range(count)) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "file,label\n" + rows(),
        rows(),
        "\ufefffile_name;Label\r\n" + rows("photos/{i}.png;{label}").replace("\n", "\r\n"),
        "label\timage\n" + rows("{label}\tphotos/{i}.png"),
        "id,path,note,class\n" + rows('{i},"photos/{i}.png","a, b",{label}'),
    ],
)
def test_a_table_of_files_and_labels(table, text: str) -> None:
    data = load(table(text))
    assert data.class_names == ("x", "y", "z") and data.channels == 3 and data.flip is None
    parts = [named(split) for split in (data.train, data.val, data.load_test())]
    assert [len(part) for part in parts] == [21, 3, 6] and len(set().union(*parts)) == 30
    for split in (data.train, data.val, data.load_test()):
        numbers = [int(Path(split.base.paths[i]).stem) for i in split.indices.tolist()]
        assert split.labels.tolist() == [number % 3 for number in numbers]
        images, _ = next(split.batches([torch.arange(1)]))
        assert np.array_equal(images[0].permute(1, 2, 0), decode(split.base.paths[int(split.indices[0])], SIDE))


def test_a_table_may_name_the_parts(table) -> None:
    lines = [f"photos/{i}.png,{i % 3},{('train', 'train', 'validation', 'test')[i // 8]}" for i in range(30)]
    data = load(table("file,label,split\n" + "\n".join(lines)))
    assert (len(data.train), len(data.val), len(data.load_test())) == (16, 8, 6) and data.class_names == ("0", "1", "2")
    before = data.fingerprint
    assert load(table("file,label,split\n" + "\n".join(lines))).fingerprint == before
    lines[0] = lines[0].replace(",0,", ",1,")
    assert load(table("file,label,split\n" + "\n".join(lines))).fingerprint != before


def test_classes_of_a_table_that_are_numbers_are_sorted_as_such(table) -> None:
    text = "\n".join(f"photos/{i}.png,{(2, 10, 100)[i % 3]}" for i in range(30))
    assert load(table(text)).class_names == ("2", "10", "100")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no images; write one row for each, with file and label"),
        ("a,b\nc,d\n", "has the columns a, b; expected file and label in a first line"),
        ("file,label\nphotos/0.png\n", "line 2 has 1 columns ('photos/0.png'); expected file and label"),
        ("file,label\nphotos/0.png,\n", "line 2 has no label; complete it or remove it"),
        ("file,label\n" + rows() + "gone.png,x\n", "1 of 31 rows name no file ('{folder}/gone.png'); paths are relative to"),
        ("file,label\n" + rows() + "photos\0.png,x\n", "1 of 31 rows name no file"),
        ("file,label\n" + rows() + "pipe.png,x\n", "1 of 31 rows name no file ('{folder}/pipe.png')"),
        ("file,label,split\nphotos/0.png,x,holdout\n", "line 2 has the split 'holdout'; expected train, val or test"),
        ("file,label,split\n" + rows("photos/{i}.png,{label},test"), "no row is for training; write train in the column"),
        (
            "file,label,split\n" + rows("photos/{i}.png,{label},train", 9) + "photos/9.png,w,test\n",
            "no training row has the class 'w'",
        ),
    ],
)
def test_unfit_tables_are_refused(table, tmp_path: Path, text: str, message: str) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InvalidData) as caught:
        load(table(text))
    assert message.format(folder=tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no file .*no.csv'; give a CSV file with the columns file and label"):
        load(DataConfig(f"csv:{tmp_path / 'no.csv'}"))
    (tmp_path / "x.csv").write_bytes(b"file,label\n\xff\xfe,x\n")
    with pytest.raises(InvalidData, match="cannot read .* as CSV .*; write it in UTF-8"):
        load(DataConfig(f"csv:{tmp_path / 'x.csv'}"))
    with pytest.raises(InvalidData, match=r"has no class folders \(is --data csv:.*/x.csv meant\?\)"):
        load(DataConfig(f"imagefolder:{tmp_path}"))
