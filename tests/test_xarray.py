"""A run as one lazy xarray dataset: what it shows, what it reads, and what it costs."""

import os
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import corpora
import models
import numpy as np
import pytest
import torch
from corpora import CROSS, DECODER, ENCODER, HEADS, LENGTHS, SOURCES, Kept, assert_close, expected
from transformers import T5Config, T5ForConditionalGeneration

import attnprobe as ap
from attnprobe.errors import BudgetError, SelectionError, StoreError
from attnprobe.fields import Block, Field, Sample, Site, TokenSequence
from attnprobe.store import shard_file
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.memory import MemoryStore
from attnprobe.variables import CHUNK, alike, contents

xr = pytest.importorskip("xarray", reason="needs the extra: pip install attnprobe[xarray]")
WHOLE = slice(None)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("runs") / "run"
    corpora.make(where)
    return where


@pytest.fixture(params=["path", "str", "Run", "memory"])
def opened(request: pytest.FixtureRequest, path: Path) -> Any:
    """The run, named in every way that there is."""
    made = {"path": lambda: path, "str": lambda: str(path), "Run": lambda: ap.open(path), "memory": corpora.make}
    return xr.open_dataset(made[request.param](), engine="attnprobe")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each read from a shard."""
    counts: list[int] = []

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def pread(self, file: int, count: int, offset: int) -> bytes:
            counts.append(count)
            return os.pread(file, count, offset)

    monkeypatch.setattr(shard_file, "os", Counted())
    return counts


# --- values -------------------------------------------------------------------------------------------------------


def test_weights_of_all_samples_are_one_array(opened: Any) -> None:
    assert opened.weights.dims == ("sample", "layer", "head", "query", "key")
    assert opened.weights.dtype == np.float32
    assert opened.sample.to_numpy().tolist() == ["text 0", "text 1", "text 2"]
    assert opened.length.to_numpy().tolist() == list(LENGTHS)
    assert opened.prompt_length.to_numpy().tolist() == [length - 1 for length in LENGTHS]
    assert opened.length_source.to_numpy().tolist() == list(SOURCES)
    assert opened["layer"].to_numpy().tolist() == opened["head"].to_numpy().tolist() == [0, 1, 2]
    assert_close(opened.weights, *expected(DECODER))


def test_cross_attention_and_an_encoder_are_variables_of_their_own(opened: Any) -> None:
    assert list(opened.data_vars) == ["weights", "weights_source", "weights_cross"]
    assert opened.weights_cross.dims == ("sample", "layer", "head", "query", "key_source")
    assert opened.weights_source.dims == ("sample", "layer", "head", "query_source", "key_source")
    assert_close(opened.weights_cross, *expected(CROSS))
    values, errors = expected(ENCODER)
    missing = np.full((3, 1, *values.shape[2:]), np.nan)  # the encoder has two layers
    assert_close(opened.weights_source, np.concatenate([values, missing], 1), np.concatenate([errors, missing], 1))
    assert opened.weights_cross.attrs["modules"] == ["decoder.0.cross", "decoder.2.cross"]
    assert opened.weights_source.attrs | {"kind": "self", "part": "encoder"} == opened.weights_source.attrs


INDICES: list[dict[str, Any]] = [
    {},
    {"sample": 2, "layer": 1, "head": 2, "query": 5, "key": 3},
    {"sample": -1, "layer": -1, "query": -1},
    {"query": slice(2, 9, 3), "key": slice(None, None, -2)},
    {"sample": slice(None, None, -1), "head": slice(None, None, 2)},
    {"sample": [2, 0], "layer": [1, 1, 2], "head": [2, 0], "query": [9, 1, 1, 4], "key": [0, 10, 3]},
    {"query": [1, 1, 2], "key": [4, 4]},
    {"query": [], "key": slice(3, 3)},
    {"sample": [-1, -3], "query": [-1, 0]},
    {"query": np.array([2, 0]), "layer": 0, "sample": 1},
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indices_are_those_of_numpy(path: Path, index: dict[str, Any]) -> None:
    values, errors = (
        xr.DataArray(one, dims=("sample", "layer", "head", "query", "key")).isel(index) for one in expected(DECODER)
    )
    found = xr.open_dataset(path, engine="attnprobe").weights.isel(index)
    assert found.dims == values.dims and found.shape == values.shape
    if values.notnull().any():
        assert_close(found, values.to_numpy(), errors.to_numpy())
    else:
        assert np.isnan(found).all()


def test_points_are_those_of_numpy(path: Path) -> None:
    at = {name: xr.DataArray(one, dims="point") for name, one in {"query": [5, 0, 5], "key": [5, 0, 2]}.items()}
    found = xr.open_dataset(path, engine="attnprobe").weights.isel(sample=0, layer=0).isel(at)
    values, errors = (one[0, 0][:, [5, 0, 5], [5, 0, 2]] for one in expected(DECODER))
    assert_close(found.transpose("head", "point"), values, errors)


@pytest.mark.parametrize("index", [{"query": 11}, {"sample": [0, 3]}, {"key": [11]}, {"head": 3}])
def test_positions_out_of_range_are_refused(path: Path, index: dict[str, Any]) -> None:
    with pytest.raises(IndexError):
        xr.open_dataset(path, engine="attnprobe").weights.isel(index).load()


def test_labels_name_samples_layers_and_heads(path: Path) -> None:
    data = xr.open_dataset(path, engine="attnprobe").weights.sel(sample="text 2", layer=1, head=[2, 0])
    values, errors = (one[2, 1][[2, 0]] for one in expected(DECODER))
    assert_close(data, values, errors)


@pytest.mark.parametrize("dtype", list(corpora.ERROR))
def test_every_dtype_is_read_as_float32(tmp_path: Path, dtype: str) -> None:
    keep = (Kept(DECODER[0], dtype=dtype), Kept(DECODER[2], heads=(1,), dtype=dtype))
    corpora.make(tmp_path / "run", keep)
    data = xr.open_dataset(tmp_path / "run", engine="attnprobe")
    assert data.layer.to_numpy().tolist() == [0, 2]
    assert_close(data.weights, *expected([DECODER[0], DECODER[2]], keep))


def test_values_are_what_run_layer_head_gives(tmp_path: Path) -> None:
    model = models.gpt2()
    with torch.no_grad(), ap.record(model, to=tmp_path / "run", layers="0,2", heads="1,3", dtype="float16") as rec:
        model(**models.padded([9, 14, 4], "left"))
        model.generate(models.ids(1, 5), max_new_tokens=4, do_sample=False, pad_token_id=0)
    data = xr.open_dataset(tmp_path / "run", engine="attnprobe")
    assert data.weights.shape == (4, 2, 2, 14, 14)
    for place, sample in enumerate(rec.run):
        length = sample.sample.main.length
        for layer in (0, 2):
            for head in (1, 3):
                found = data.weights[place].sel(layer=layer, head=head).to_numpy()
                np.testing.assert_array_equal(found[:length, :length], sample[layer, head].numpy())
                assert np.isnan(found[length:]).all() and np.isnan(found[:, length:]).all()


def test_an_encoder_decoder_as_it_is_recorded(tmp_path: Path) -> None:
    config = T5Config(vocab_size=96, d_model=16, d_kv=8, d_ff=16, num_layers=3, num_decoder_layers=2, num_heads=2)
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad(), ap.record(model, to=tmp_path / "run") as rec:
        model(input_ids=models.ids(2, 6), decoder_input_ids=models.ids(2, 4, seed=2))
    data = xr.open_dataset(tmp_path / "run", engine="attnprobe")
    assert list(data.data_vars) == ["weights", "weights_source", "weights_cross"]
    assert dict(data.sizes) == {
        **{"sample": 2, "layer": 3, "head": 2},
        **{"query": 4, "key": 4, "query_source": 6, "key_source": 6},
    }
    assert data.length_source.to_numpy().tolist() == [6, 6]
    for name in data.data_vars:
        for layer, module in enumerate(data[name].attrs["modules"]):
            for place, sample in enumerate(rec.run):
                whole = np.stack([sample[module, head].numpy() for head in (0, 1)])
                np.testing.assert_array_equal(data[name][place, layer], whole)
    assert np.isnan(data.weights[:, 2]).all()  # the decoder has two layers


# --- beside weights -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["memory", "directory"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ap.Run:
    """Measures and the largest weights of three samples, and one head's weights of two more rows."""
    to = None if request.param == "memory" else tmp_path_factory.mktemp("runs") / "run"
    model = models.gpt2()
    names = ["default", "argmax", "first_mass(2)", "induction"]
    keep = [ap.Weights("L1H2"), ap.TopK("all", k=2), ap.Measures("0,2", names=names)]
    with torch.no_grad(), ap.record(model, to=to, keep=keep) as rec:
        for length in (12, 5, 17):
            model(models.ids(1, length, seed=length))
    return rec.run


def test_measures_are_variables(measured: ap.Run) -> None:
    data = xr.open_dataset(measured, engine="attnprobe").load()
    own = ["entropy", "argmax", "first_mass(2)", "received", "distances", "pooled_max", "entropy_mean", "entropy_count"]
    assert not set(own) - set(data.data_vars)
    assert data["argmax"].dtype == np.int32
    assert (data.entropy.attrs["unit"], data.entropy_mean.attrs["unit"]) == ("nats", "nats")
    assert "unit" not in data.entropy_count.attrs
    for place, sample in enumerate(measured):
        for layer in (0, 2):
            for head in (0, 3):
                for name in sample[layer, head].measures.names:
                    one = sample[layer, head].measures[name].numpy()
                    if name.endswith(".mean"):
                        for word, value in zip(("mean", "std", "count"), one, strict=True):
                            found = data[f"{name.removesuffix('.mean')}_{word}"].sel(layer=layer, head=head)
                            np.testing.assert_array_equal(found[place], value)
                        continue
                    found = data[name].sel(layer=layer, head=head)[place].to_numpy()
                    assert found.dtype == one.dtype
                    padded = np.full(found.shape, -1 if one.dtype.kind == "i" else np.nan, one.dtype)
                    padded[tuple(map(slice, one.shape))] = one
                    np.testing.assert_array_equal(found, padded)
    for name in ("entropy", "entropy_mean"):
        assert data[name].isel(layer=1).isnull().all()  # of layer 1 no measures were kept
    assert (data["argmax"].isel(layer=1) == -1).all()


def test_measures_agree_with_the_weights_they_are_of(tmp_path: Path) -> None:
    model = models.gpt2()
    keep = [ap.Weights(), ap.Measures(names=["entropy", "received", "argmax", "entropy.mean"])]
    with torch.no_grad(), ap.record(model, to=tmp_path / "run", keep=keep):
        model(**models.padded([9, 14, 4], "left"))
    data = xr.open_dataset(tmp_path / "run", engine="attnprobe", chunks={})
    weights = data.weights.astype(np.float64).to_numpy()
    entropy = -np.nansum(weights * np.log(np.where(weights > 0, weights, 1)), -1)
    entropy[np.isnan(weights).all(-1)] = np.nan
    np.testing.assert_allclose(data.entropy, entropy, atol=1e-5)
    np.testing.assert_allclose(data.entropy_mean, np.nanmean(entropy, -1), atol=1e-5)
    np.testing.assert_array_equal(data["argmax"], np.where(np.isnan(entropy), -1, np.nan_to_num(weights).argmax(-1)))
    assert data.received.dims == ("sample", "layer", "head", "key")
    assert data.received.isnull().sum(("layer", "head", "key")).to_numpy().tolist() == [12 * 5, 0, 12 * 10]


def test_axes_of_measures_have_names_of_their_own(measured: ap.Run) -> None:
    data = xr.open_dataset(measured, engine="attnprobe")
    assert data.distances.dims == ("sample", "layer", "head", "distance_bin")  # "distance" is a measure
    edges = data.distance_bin.to_numpy()
    assert edges.tolist() == [0, *(2**n for n in range(len(edges) - 1))] and edges[-1] < 17
    assert data.pooled_max.dims[3:] == ("query_cell", "key_cell")
    assert data.entropy_mean.dims == ("sample", "layer", "head")


def test_the_largest_weights_are_variables(measured: ap.Run) -> None:
    data = xr.open_dataset(measured, engine="attnprobe")
    assert data.top.dims == data.top_keys.dims == ("sample", "layer", "head", "query", "rank")
    for place, sample in enumerate(measured):
        length = sample.sample.main.length
        values, keys, rest = sample[2, 3].topk.numpy()
        np.testing.assert_array_equal(data.top[place, 2, 3, :length], values)
        np.testing.assert_array_equal(data.top_keys[place, 2, 3, :length], keys)
        np.testing.assert_array_equal(data.top_rest[place, 2, 3, :length], rest)
        assert data.top[place, 2, 3, length:].isnull().all() and (data.top_keys[place, 2, 3, length:] == -1).all()


def test_a_pyramid_is_no_variable() -> None:
    keep = (Kept(DECODER[0]),)
    run = corpora.make(keep=keep)
    store = MemoryStore(run.manifest)
    for what in ("pyramid_max(1)", "pyramid_mean(1)"):
        of = Field(0, DECODER[0], 0, (0, 1, 2), "float16", what)
        store.write(of, Block((0, 1, 2), range(4), 0, torch.ones(3, 4, 4, dtype=torch.float16)))
    corpora.write(store, keep)
    data = xr.open_dataset(ap.Run(store), engine="attnprobe")
    assert list(data.data_vars) == ["weights"]
    assert_close(data.weights, *expected(DECODER[:1], keep))


# --- how it is read -----------------------------------------------------------------------------------------------


def wide(path: Path, length: int = 2000, heads: int = 4) -> np.ndarray:
    """A run of one head-by-head causal map in blocks of 500 rows, and a sample of eight tokens."""
    site = Site("h.0", "self", "decoder", 0, heads, heads)
    whole = np.tril(np.random.default_rng(0).random((heads, length, length), np.float32))
    manifest = Manifest({"class": "Made"}, (site,), ({"keys": "all"},), {}, "2025-01-01T00:00:00+00:00")
    writer = DirectoryWriter(path, manifest)
    for index, of in enumerate((length, 8)):
        for first in range(0, of, 500):
            rows = range(first, min(first + 500, of))
            values = torch.from_numpy(whole[:, rows.start : rows.stop, : rows.stop].copy())
            writer.write(Field(index, site, 0, tuple(range(heads))), Block(tuple(range(heads)), rows, 0, values))
        writer.commit(Sample(index, f"s{index}", {"main": TokenSequence(of)}, of))
    writer.close()
    return whole


@pytest.mark.parametrize(
    ("index", "most"),
    [
        ({"sample": 0, "layer": 0, "head": 2, "query": 1500}, 2000 * 4),
        ({"sample": 0, "layer": 0, "head": 2, "query": [3, 700, 1999]}, (500 + 1000 + 2000) * 4),
        ({"sample": 0, "layer": 0, "head": 2, "query": slice(None, None, 500)}, (500 + 1000 + 1500 + 2000) * 4),
        ({"sample": 0, "layer": 0, "head": 2, "query": [1501, 1990]}, 2 * 2000 * 4),
        ({"sample": 0, "layer": 0, "head": [0, 3], "query": 1999}, 2 * 2000 * 4),
        ({"sample": 0, "layer": 0, "head": 0, "query": slice(1900, 1999), "key": 7}, 99 * 2000 * 4),
        ({"sample": 1, "layer": 0, "head": 2, "query": 1500}, 0),
        ({"sample": 1, "layer": 0, "head": 2, "query": 7, "key": slice(8, None)}, 0),
        ({"sample": 1, "query": slice(8, None)}, 0),
    ],
    ids=str,
)
def test_only_what_is_asked_for_is_read(tmp_path: Path, reads: list[int], index: dict[str, Any], most: int) -> None:
    whole = wide(tmp_path / "run")
    data = xr.open_dataset(tmp_path / "run", engine="attnprobe")
    assert not reads, "opening read a shard"
    data.weights.isel(sample=0, query=0).load()  # from here on the header is there
    assert reads
    reads.clear()
    found = data.weights.isel(index).to_numpy()
    assert sum(reads) <= most
    maps = np.full((2, 1, *whole.shape), np.nan, np.float32)
    maps[0, 0], maps[1, 0, :, :8, :8] = whole, whole[:, :8, :8]
    reference = xr.DataArray(maps, dims=("sample", "layer", "head", "query", "key")).isel(index)
    np.testing.assert_array_equal(found, reference)


def test_chunks_are_bounded_and_alike_for_all_variables(tmp_path: Path) -> None:
    site = Site("h.0", "self", "decoder", 0, 12, 12)
    manifest = Manifest({"class": "Made"}, (site,), ({"keys": "all"},), {}, "2025-01-01T00:00:00+00:00")
    store, length = MemoryStore(manifest), 8000
    for index in range(2):
        row = torch.ones(1, 1, length)
        store.write(Field(index, site, 0, (0,)), Block((0,), range(length - 1, length), 0, row))
        store.write(
            Field(index, site, 0, tuple(range(12)), what="entropy", axes=("query",)),
            Block(tuple(range(12)), range(length), 0, torch.ones(12, length, 1)),
        )
        store.commit(Sample(index, f"s{index}", {"main": TokenSequence(length)}, length))
    store.close()
    data = xr.open_dataset(ap.Run(store), engine="attnprobe", chunks={})
    assert data.weights.shape == (2, 1, 12, length, length)
    sizes = [max(one) for one in data.weights.chunks]
    assert CHUNK / 4 < 4 * np.prod(sizes) <= CHUNK
    assert sizes[:3] == [1, 1, 12] and sizes[4] == length  # whole rows of all heads
    assert data.chunks["query"] == data.entropy.chunks[3]
    assert float(data.weights.sel(head=0)[1, 0, -1].sum()) == length
    alone = xr.open_dataset(ap.Run(store), engine="attnprobe", chunks={}, variables="entropy")
    assert alone.entropy.chunks == ((2,), (1,), (12,), (length,))
    found = contents(store, only=["entropy"])
    assert (list(found.variables), found.chunks["sample"]) == (["entropy"], 2)


def test_dask_computes_over_all_samples(path: Path, reads: list[int]) -> None:
    pytest.importorskip("dask.array")
    data = xr.open_dataset(path, engine="attnprobe", chunks={})
    assert data.chunks["sample"] == (1, 1, 1) and data.chunks["layer"] == (1, 1, 1)
    assert not reads
    values, _ = expected(DECODER)
    np.testing.assert_allclose(float(data.weights.mean()), np.nanmean(values), rtol=1e-3)
    rows, there = data.weights.sum("key").compute(), ~np.isnan(values).all(-1)
    np.testing.assert_allclose(rows.to_numpy()[there], np.nansum(values, -1)[there], rtol=1e-2)
    by_distance = data.weights.mean(("sample", "layer", "head")).compute()
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(by_distance, np.nanmean(values, (0, 1, 2)), rtol=1e-2, atol=1e-6)


def test_dask_names_a_run_in_memory_without_a_copy_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask.array")
    run = corpora.make()
    monkeypatch.setattr(MemoryStore, "__reduce_ex__", lambda *_: pytest.fail("its values were pickled"))
    data = [xr.open_dataset(run, engine="attnprobe", chunks={}) for _ in range(2)]
    assert_close(data[0].weights, *expected(DECODER))
    assert data[0].weights.data.name != data[1].weights.data.name


def test_dask_works_in_other_processes(path: Path) -> None:
    pytest.importorskip("dask.array")
    import dask

    data = xr.open_dataset(path, engine="attnprobe", chunks={}, variables="weights_cross")
    with dask.config.set(scheduler="processes", num_workers=2):
        found = data.weights_cross.compute()
    values, errors = expected(CROSS)
    assert_close(found, values[:, [0, 2]], errors[:, [0, 2]])


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_it_may_be_pickled(path: Path, where: str) -> None:
    data = xr.open_dataset(path if where == "disk" else corpora.make(), engine="attnprobe")
    data.weights[0, 0, 0, 0].load()  # so that a file is open
    again = pickle.loads(pickle.dumps(data))
    assert len(pickle.dumps(data)) < 200_000
    assert_close(again.weights, *expected(DECODER))


def test_threads_may_read_at_once(path: Path) -> None:
    data = xr.open_dataset(path, engine="attnprobe")
    values, errors = expected(DECODER)
    places = [(a, b, c) for a in range(3) for b in range(3) for c in range(HEADS)] * 12

    def read(place: tuple[int, int, int]) -> np.ndarray:
        found: np.ndarray = data.weights[place].to_numpy()
        return found

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, places))
    for place, one in zip(places, found, strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(values[place]))
        assert (np.nan_to_num(np.abs(one - values[place])) <= errors[place] * (1 + 1e-6) + 1e-30).all()


# --- opening ------------------------------------------------------------------------------------------------------


def test_the_engine_is_found_without_its_name(path: Path, tmp_path: Path) -> None:
    assert "weights_cross" in xr.open_dataset(path)
    engine = xr.backends.list_engines()["attnprobe"]
    for other in (tmp_path, tmp_path / "none", path / "manifest.json", "https://example.org/run", b"CDF", 3, "\0"):
        assert not engine.guess_can_open(other)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run at .*none"):
        xr.open_dataset(tmp_path / "none", engine="attnprobe")
    with pytest.raises(SelectionError, match="int is no run; give a Run, or the directory of one"):
        xr.open_dataset(3, engine="attnprobe")


def test_variables_may_be_chosen(path: Path) -> None:
    data = xr.open_dataset(path, engine="attnprobe", variables=["weights_cross"])
    assert list(data.data_vars) == ["weights_cross"]
    assert (data.sizes["layer"], data.layer.to_numpy().tolist()) == (2, [0, 2])  # those of which something was kept
    values, errors = expected(CROSS)
    assert_close(data.weights_cross, values[:, [0, 2]], errors[:, [0, 2]])
    data = xr.open_dataset(path, engine="attnprobe", drop_variables=["weights", "absent"])
    assert list(data.data_vars) == ["weights_source", "weights_cross"]
    assert list(xr.open_dataset(path, engine="attnprobe", drop_variables="weights").data_vars) == list(data.data_vars)


def test_a_variable_that_is_not_there_names_those_that_are(path: Path) -> None:
    message = re.escape("there is no variable 'entropy' in the run; there are weights, weights_source, weights_cross")
    with pytest.raises(SelectionError, match=message):
        xr.open_dataset(path, engine="attnprobe", variables="entropy")


def test_more_than_memory_holds_says_what_to_do() -> None:
    site = Site("h.0", "self", "decoder", 0, 64, 64)
    manifest = Manifest({"class": "Made"}, (site,), ({"keys": "all"},), {}, "2025-01-01T00:00:00+00:00")
    store, length = MemoryStore(manifest), 1 << 24
    store.write(Field(0, site, 0, tuple(range(64))), Block(tuple(range(64)), range(5, 6), 0, torch.ones(64, 1, 4)))
    store.commit(Sample(0, "long", {"main": TokenSequence(length)}, length))
    store.close()
    data = xr.open_dataset(ap.Run(store), engine="attnprobe")
    with pytest.raises(BudgetError, match=r"would take 72058 TB, more than there is; read fewer samples, heads, rows"):
        data.weights.load()
    assert data.weights[0, 0, 63, 5, :6].to_numpy().tolist() == [1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("samples", [0, 1])
def test_a_run_without_fields_is_a_dataset_without_variables(samples: int) -> None:
    manifest = Manifest({"class": "Made"}, corpora.SITES, ({"keys": "all"},), {}, "2025-01-01T00:00:00+00:00")
    store = MemoryStore(manifest)
    for index in range(samples):
        store.commit(Sample(index, "empty", {"main": TokenSequence(3)}, 3))
    for chunks in (None, {}):
        data = xr.open_dataset(ap.Run(store), engine="attnprobe", chunks=chunks)
        assert not data.data_vars
        assert data.length.to_numpy().tolist() == [3] * samples


def test_attributes_tell_what_the_run_is_of(opened: Any) -> None:
    assert opened.attrs["model_class"] == "Made"
    assert opened.attrs["version_attnprobe"] == "0"
    assert opened.attrs["created"].startswith("2025")


# --- names --------------------------------------------------------------------------------------------------------


def endings(*sites: Site) -> list[str]:
    return [one.ending for one in alike(sites).values()]


def site(key: str, kind: str = "self", part: str = "decoder", layer: int = 0, **more: str) -> Site:
    return Site(key, kind, part, layer, 2, 2, **more)


def test_modules_that_are_alike_share_a_variable() -> None:
    assert endings(site("a"), site("b", layer=1)) == ["", ""]
    assert endings(site("a"), site("b"), site("c", layer=1)) == ["", "_2", ""]
    assert endings(site("a", queries="image", keys="image")) == [""]  # the only sequence
    image = {"queries": "image", "keys": "image", "part": "vision"}
    assert endings(site("a"), site("b", **image), site("c", "cross", keys="image")) == ["", "_image", "_cross_image"]
    assert endings(site("a"), site("b", part="text"), site("c", part="text", layer=1)) == ["", "_text", "_text"]
    assert endings(site("a"), site("b", "cross", queries="latents", keys="main")) == ["", "_cross_latents"]


def test_names_that_clash_are_told_apart() -> None:
    odd = site("odd", queries="cross", keys="cross")
    sites = (site("a"), odd, site("x", "cross", keys="source"))
    manifest = Manifest({"class": "Made"}, sites, ({"keys": "all"},), {}, "2025-01-01T00:00:00+00:00")
    store = MemoryStore(manifest)
    for number, one in enumerate(sites):
        store.write(Field(0, one, 0, (0, 1)), Block((0, 1), range(2), 0, torch.full((2, 2, 2), number / 4)))
    axes = {"length": ("query",), "query": ("key",), "own": ("head", "sample")}
    for what, names in axes.items():
        of = Field(0, sites[0], 0, (0, 1), what=what, axes=names)
        store.write(of, Block((0, 1), range(2), 0, torch.ones(2, 2, len(names))))
    sequences = {name: TokenSequence(2) for name in ("main", "cross", "source")}
    store.commit(Sample(0, "s", sequences, 2))
    data = xr.open_dataset(ap.Run(store), engine="attnprobe")
    assert [float(data[name].max()) for name in ("weights", "weights_cross", "weights_cross_")] == [0, 0.25, 0.5]
    assert (data["length_"].dims[3:], data["query_"].dims[3:]) == (("query",), ("key",))
    assert data["own"].dims == ("sample", "layer", "head", "head_bin", "sample_bin")
