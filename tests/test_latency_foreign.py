"""Published tables give the published numbers, and are refused for what they were not measured on."""

import csv
import json
import pickle
from dataclasses import replace

import pytest
from networks import SHARED, space_for

from nas.cost.counting import macs
from nas.errors import InvalidSetting
from nas.latency.foreign import FOREIGN, TABLES, UnitTable, foreign, searchable
from nas.latency.predictor import Predictor
from nas.latency.proxyless import plan_of, read_proxyless
from nas.latency.table import CorruptTable
from nas.latency.target import Target
from nas.latency.units import units
from nas.plan import INPUT, Plan
from nas.supernet.blocks import BlockSpec, inverted_residual_layers
from search_spaces.fbnet import MACROS, FBNetOptions, make
from search_spaces.staged import DataShape

FBNET_DEVICES = ("eyeriss", "fpga", "pixel3", "raspi4")
CODES = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
TARGET = Target("phone", "lite", "1")


def fbnet(shape=DataShape(3, 32, 100), width=1.0, **options):  # noqa: B008 - frozen
    return make(shape, MACROS[0], width, FBNetOptions(**options))


def chain(space, operators):
    values = {f"l{i}.op": op for i, op in enumerate(operators)}
    return space.architecture({"resolution": space.resolutions[0], **values})


# -- tables of choices


@pytest.mark.skipif(not SHARED.exists(), reason="needs the published latencies of ../shared/data")
def test_a_thousand_networks_have_their_published_latency():
    space, tables = fbnet(), {name: foreign(name) for name in FBNET_DEVICES}
    with (SHARED / "tables" / "fbnet_1000_networks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1000
    for row in rows:
        arch = chain(space, [CODES[int(row[f"l{i}"])] for i in range(22)])
        for name, table in tables.items():
            assert table.latency(space, arch).value == pytest.approx(float(row[f"lat_{name}"]), rel=0, abs=1e-5)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the tables of ../shared/data")
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("fbnet.csv", "fbnet_lut.csv"), ("proxylessnas_pixel1.csv", "proxylessnas_pixel1_lut.csv")],
)
def test_the_shipped_files_are_the_published_ones(ours, theirs):
    assert (TABLES / ours).read_bytes() == (SHARED / "tables" / theirs).read_bytes()


def test_the_fbnet_table_is_of_32_pixels():
    """What more expansion adds on the FPGA is in proportion to its multiply-adds at 32 pixels, and not at 224."""
    table = foreign("fpga")

    def rates(space):
        for i, (_, before, width, _) in enumerate(space._layers):
            build, side = space.blocks[i + 1].build, space.resolutions[0]
            small, large = (sum(map(macs, build({"resolution": side, f"l{i}.op": op}, "x"))) for op in ("k3_e3", "k3_e6"))
            if before == width:
                yield (table.ms[f"l{i}.op", "k3_e6"] - table.ms[f"l{i}.op", "k3_e3"]) / (large - small)

    here, there = list(rates(fbnet())), list(rates(fbnet(DataShape(3, 224, 1000))))
    assert len(here) == 16
    assert max(here) / min(here) < 1.25
    assert max(there) / min(there) > 3


def test_a_metric_says_where_it_comes_from():
    space = fbnet()
    metric = foreign("pixel3").latency(space, space.largest())
    assert (metric.unit, metric.method) == ("ms", "table pixel3")
    assert "HW-NAS-Bench" in metric.context and metric.context.endswith("not measured here")
    other = fbnet(DataShape(3, 32, 10))
    assert foreign("pixel3").latency(other, other.largest()).context.endswith("with a classifier of 100 classes, not 10")


def test_a_cost_model_can_be_sent_to_a_process():
    space = fbnet()
    model = pickle.loads(pickle.dumps(foreign("raspi4").model(space)))
    smallest, plan = space.smallest(), space.plan(space.smallest())
    assert model(smallest, plan)["latency_ms"].value == foreign("raspi4").base_ms
    assert set(model(space.largest(), plan)) == {"latency_ms"}


REMEDY = "add --space fbnet --resolution 32 --set width=1"


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (space_for("mobilenet"), f"space fbnet at 32 pixels; this is space mobilenet at 8 pixels: {REMEDY}"),
        (fbnet(DataShape(3, 224, 100)), "this is space fbnet at 224 pixels with features=1984, other stages and stem: "),
        (fbnet(resolutions=(32, 24)), f"this is space fbnet at 24/32 pixels: {REMEDY}"),
        (fbnet(width=0.5), "this is space fbnet at 32 pixels with features=752, other stages: "),
        (fbnet(DataShape(1, 32, 10)), f"with in_channels=1: {REMEDY}, and take images of 3 channels"),
    ],
    ids=["space", "resolution", "resolutions", "width", "channels"],
)
def test_another_space_is_refused(space, said):
    for refused in (foreign("pixel3").check, foreign("pixel3").model):
        with pytest.raises(InvalidSetting) as caught:
            refused(space)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InvalidSetting):
        foreign("pixel3").latency(space, space.largest())


def test_settings_read_from_json_are_the_same_space():
    space = fbnet()
    foreign("pixel3").check(type(space).from_settings(json.loads(json.dumps(space.settings))))


def test_an_unknown_table_is_refused():
    with pytest.raises(
        InvalidSetting, match="no published latency table 'pixel9'; choose one of pixel3, raspi4, eyeriss, fpga"
    ):
        foreign("pixel9")


@pytest.mark.parametrize("name", FOREIGN)
def test_tables_know_their_name_and_source(name):
    assert foreign(name).name == name and foreign(name).source


# -- tables of blocks


def test_a_network_of_published_blocks_is_their_sum():
    """The blocks of one chain at 224 pixels, end to end."""
    keys = [
        "Conv-input:224x224x3-output:112x112x32",
        "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0",
        "expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:5-stride:2-idskip:0",
        "expanded_conv-input:56x56x24-output:56x56x24-expand:6-kernel:7-stride:1-idskip:1",
    ]
    table = foreign("pixel1").table
    assert len(table.entries) == 72
    layers, source = [], INPUT
    for n, part in enumerate(plan_of(key).layers for key in keys):
        names = {INPUT: source, **{x.name: f"{n}.{x.name}" for x in part}}
        layers += [replace(x, name=names[x.name], inputs=tuple(names[i] for i in x.inputs)) for x in part]
        source = layers[-1].name
    with (TABLES / "proxylessnas_pixel1.csv").open(newline="") as file:
        published = {row["key"]: float(row["mean_ms"]) for row in csv.DictReader(file)}
    predicted = Predictor(table).predict(Plan(3, (224, 224), tuple(layers)))
    assert not predicted.missing and not predicted.interpolated
    assert predicted.latency.value == pytest.approx(sum(published[key] for key in keys))
    assert predicted.latency.method == "table pixel1"


def test_a_block_has_the_key_that_it_has_in_a_space():
    key = "expanded_conv-input:28x28x40-output:28x28x40-expand:6-kernel:5-stride:1-idskip:1"
    layers = inverted_residual_layers("stages.1.2", INPUT, (28, 28), BlockSpec(40, 40, 240, 5))
    [unit] = units(Plan(40, (28, 28), tuple(layers)))
    assert foreign("pixel1").table.entries[unit.key].latency_ms == pytest.approx(5.358751807228915)
    assert [u.key for u in units(plan_of(key))] == [unit.key]


def test_a_table_of_other_blocks_is_refused():
    with pytest.raises(InvalidSetting, match="table pixel1 has no time for .* blocks of space mobilenet-.*nas profile"):
        foreign("pixel1").model(space_for("mobilenet"))


YAML = """\
---
# times of a phone
Conv-input:224x224x3-output:112x112x32: {count: 949, mean: 4.4,
  var: 0.16}
expanded_conv-input:56x56x24-output:56x56x24-expand:3-kernel:3-stride:1-idskip:1:
  mean: 4.125
  count: 415
Logits-input:7x7x1280-output:1000: {mean: 0.93}
"""


def test_yaml_of_the_same_keys_is_read_in_both_styles(tmp_path):
    (tmp_path / "phone.yaml").write_text(YAML)
    table = read_proxyless(tmp_path / "phone.yaml", TARGET, "phone")
    assert [e.latency_ms for e in table.entries.values()] == [4.4, 4.125, 0.93]
    assert [e.calls for e in table.entries.values()] == [949, 415, 0]
    assert set(table.entries) <= set(foreign("pixel1").table.entries)
    assert (UnitTable(table).name, table.target) == ("phone", TARGET)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no block"),
        ("Conv-input:224x224x3-output:112x112x32: {mean: fast}", "is no block with a mean in ms"),
        ("Conv-input:224x224x3-output:112x112x32: {mean: -1}", "-1.0 ms is no latency"),
        ("Conv-input:224x224x3-output:112x112x32: {count: 3}", "is no block with a mean in ms"),
        ("Pool-input:7x7x8-output:8: {mean: 1.0}", "'Pool-input:7x7x8-output:8' is no block"),
        ("Conv-input:224x224x3: {mean: 1.0}", "is no block"),
        ("expanded_conv-input:8x8x8-output:4x4x8-expand:3-kernel:3-stride:1-idskip:0: {mean: 1}", "does not follow"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(tmp_path, text, said):
    (tmp_path / "phone.yaml").write_text(text)
    with pytest.raises(CorruptTable, match=said):
        read_proxyless(tmp_path / "phone.yaml", TARGET)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidSetting, match="there is no latency table"):
        read_proxyless(tmp_path / "phone.csv", TARGET)


def test_another_form_of_the_space_is_taken_only_when_asked_and_says_so():
    large = fbnet(DataShape(3, 224, 1000))
    with pytest.raises(InvalidSetting, match="measured for space fbnet at 32 pixels.*--accept-foreign-table"):
        foreign("pixel3").check(large)
    small, arch = fbnet(), large.smallest()
    metric = foreign("pixel3").latency(large, arch, accept=True)
    assert metric.value == foreign("pixel3").latency(small, chain(small, [arch.choices[f"l{i}.op"] for i in range(22)])).value
    assert "accepted for 224 pixels" in metric.context
    with pytest.raises(InvalidSetting, match="measured for space fbnet"):
        foreign("pixel3").check(space_for("mobilenet"), accept=True)


def test_a_search_is_offered_the_tables_that_fit_a_space():
    assert searchable("pixel3").name == "pixel3"
    with pytest.raises(InvalidSetting, match="is for nas cost --table pixel1; for a search choose one of pixel3, raspi4"):
        searchable("pixel1")
    with pytest.raises(InvalidSetting, match="'pixle3'; choose one of pixel3, raspi4, eyeriss, fpga .did you mean pixel3"):
        searchable("pixle3")
