"""The samples of a run as a PyTorch dataset: items, batches, processes, threads, and what is refused."""

import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import corpora
import models
import numpy as np
import pytest
import torch
from corpora import CROSS, DECODER, ENCODER, LENGTHS, SOURCES, Kept, expected
from torch.utils.data import DataLoader, Dataset, random_split

import attnprobe as ap
from attnprobe.errors import BudgetError, NotKept, SelectionError
from attnprobe.fields import Block, Field, Sample, TokenSequence
from attnprobe.store.memory import MemoryStore


@pytest.fixture(scope="module", params=["memory", "directory"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ap.Run:
    return corpora.make(None if request.param == "memory" else tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> ap.Run:
    """Measures of three samples: of layers 0 and 2 all, of layer 1 entropy alone, of two heads' last three rows."""
    model, to = models.gpt2(), tmp_path_factory.mktemp("runs") / "run"
    names = ["entropy", "argmax", "received", "pooled_max", "first_mass(2)", "entropy.mean"]
    keep = [ap.Measures("0,2", names=names), ap.Measures("L1H1,L1H3", queries="-3:", names="entropy")]
    with torch.no_grad(), ap.record(model, to=to, keep=keep) as rec:
        for length in (12, 5, 17):
            model(models.ids(1, length, seed=length))
    return rec.run


def whole(item: dict[str, Any], site: Any, shape: tuple[int, ...]) -> np.ndarray:
    """What an item has of a module, put where it says; NaN elsewhere."""
    values = np.full(shape, np.nan, np.float32)
    if site.key in item["weights"]:
        at = (item[name][site.key].numpy() for name in ("heads", "queries", "keys"))
        values[np.ix_(*at)] = item["weights"][site.key].numpy()
    return values


# --- items --------------------------------------------------------------------------------------------------------


def test_an_item_is_what_was_kept_of_a_sample(run: ap.Run) -> None:
    dataset = ap.SampleDataset(run)
    assert isinstance(dataset, Dataset) and len(dataset) == 3
    for place, item in enumerate(dataset):
        length, source = LENGTHS[place], SOURCES[place]
        assert (item["id"], item["index"]) == (f"text {place}", place)
        assert (item["length"], item["prompt_length"]) == (length, length - 1)
        assert item["input_ids"].dtype == torch.int64
        assert item["input_ids"].tolist() == [10 * place + n for n in range(length)]
        for sites, queries, keys in ((DECODER, length, length), (CROSS, length, source), (ENCODER, source, source)):
            values, errors = expected(sites)
            for layer, site in enumerate(sites):
                of = site.heads
                found = whole(item, site, (of, queries, keys)).astype(np.float64)
                want = values[place, layer, :of, :queries, :keys]
                np.testing.assert_array_equal(np.isnan(found), np.isnan(want))
                bound = errors[place, layer, :of, :queries, :keys] * (1 + 1e-6) + 1e-30
                assert (np.nan_to_num(np.abs(found - want)) <= bound).all()


def test_axes_are_those_that_were_kept(run: ap.Run) -> None:
    item = ap.SampleDataset(run)[0]
    assert sorted(item["weights"]) == [*(f"decoder.{n}" for n in (0,)), "decoder.0.cross", "decoder.1", "decoder.2",
                                       "decoder.2.cross", "encoder.1"]  # fmt: skip
    assert item["weights"]["decoder.1"].dtype == torch.float32
    assert item["heads"]["decoder.1"].tolist() == [0, 2]
    assert item["queries"]["decoder.1"].tolist() == [1, 3, 4, 5, 6]  # every second, and of head 0 from 3 on
    assert item["keys"]["decoder.1"].tolist() == list(range(7))
    assert item["weights"]["decoder.1"][1, 2].isnan().all()  # row 4 was not kept of head 2
    assert item["weights"]["decoder.1"][0, 2, :5].sum().item() > 0.1
    assert item["weights"]["decoder.1"][0, 2, 5:].isnan().all()  # and of head 0 its first five columns
    assert (item["queries"]["decoder.2.cross"].tolist(), item["heads"]["decoder.2.cross"].tolist()) == ([4, 5, 6], [1])
    assert item["keys"]["decoder.0.cross"].tolist() == [1, 2, 3]
    assert "decoder.2" not in ap.SampleDataset(run)[1]["weights"]


@pytest.mark.parametrize("place", [-1, np.int64(2), torch.tensor(2)])
def test_places_are_those_of_a_list(run: ap.Run, place: Any) -> None:
    assert ap.SampleDataset(run)[place]["id"] == "text 2"
    assert ap.SampleDataset(run)[place]["index"] == 2


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ({"layers": 0}, {"decoder.0": [0, 1, 2], "decoder.0.cross": [0, 1, 2]}),
        ({"layers": "0", "heads": "0-1", "kind": "self"}, {"decoder.0": [0, 1]}),
        ({"layers": "L0H1,L1H0"}, {"decoder.0": [1], "decoder.0.cross": [1], "decoder.1": [0], "encoder.1": [0]}),
        ({"heads": {0: [0], -1: [1]}, "kind": "cross"}, {"decoder.0.cross": [0], "decoder.2.cross": [1]}),
        ({"layers": "1", "kind": "self"}, {"decoder.1": [0, 2], "encoder.1": [0, 1]}),
    ],
    ids=str,
)
def test_words_are_those_of_record(run: ap.Run, words: dict[str, Any], kept: dict[str, list[int]]) -> None:
    item = ap.SampleDataset(run, **words)[0]
    assert {site: heads.tolist() for site, heads in item["heads"].items()} == kept
    everything = ap.SampleDataset(run)[0]
    for site, heads in kept.items():
        at = [everything["heads"][site].tolist().index(head) for head in heads]
        columns = np.isin(everything["queries"][site], item["queries"][site])
        np.testing.assert_array_equal(item["weights"][site], everything["weights"][site][at][:, columns])


def test_weights_are_what_run_layer_head_gives() -> None:
    model = models.gpt2()
    with torch.no_grad(), ap.record(model, dtype="bfloat16") as rec:
        model(**models.padded([9, 14], "right"))
        model.generate(models.ids(1, 5), max_new_tokens=4, do_sample=False, pad_token_id=0)
    for item, sample in zip(ap.SampleDataset(rec.run), rec.run, strict=True):
        for layer in range(3):
            weights = item["weights"][sample.site(layer).key]
            assert weights.shape == (4, item["length"], item["length"])
            np.testing.assert_array_equal(weights, sample.layer_array(layer))


def test_without_text_there_are_no_token_ids() -> None:
    item = ap.SampleDataset(corpora.make(text=False))[0]
    assert "input_ids" not in item and item["length"] == LENGTHS[0]
    assert "input_ids" not in ap.SampleDataset.collate([item])


# --- measures -----------------------------------------------------------------------------------------------------


def test_measures_are_what_was_kept(measured: ap.Run) -> None:
    names = ["entropy", "argmax", "received", "pooled_max", "first_mass(2)", "entropy.mean"]
    for chosen, there in (("all", [*names, "first_mass(2).mean"]), (names, names)):
        for place, item in enumerate(ap.SampleDataset(measured, measures=chosen)):
            assert sorted(item["measures"]) == sorted(there)
            assert "weights" not in item
            for name in names:
                for site, values in item["measures"][name].items():
                    for row, head in zip(values, item["heads"][name][site].tolist(), strict=True):
                        one = measured.sample(place)[site, head].measures[name]
                        np.testing.assert_array_equal(row, one.numpy())
                        assert row.numpy().dtype == one.numpy().dtype
                        if one.dims[0] == "query":
                            assert item["rows"][name][site].tolist() == list(one.coords["query"])
    item = ap.SampleDataset(measured, layers=1, measures="entropy")[2]
    ((site, values),) = item["measures"]["entropy"].items()
    assert values.shape == (2, 3) and item["heads"]["entropy"][site].tolist() == [1, 3]
    assert item["rows"]["entropy"][site].tolist() == [14, 15, 16]
    assert list(ap.SampleDataset(measured, measures="first_mass")[0]["measures"]) == ["first_mass"]  # the only one


def test_a_pyramid_is_no_measure_and_no_weights() -> None:
    keep = (Kept(DECODER[0]),)
    store = MemoryStore(corpora.make(keep=keep).manifest)
    of = Field(0, DECODER[0], 0, (0, 1, 2), "float16", "pyramid_max(1)")
    store.write(of, Block((0, 1, 2), range(4), 0, torch.ones(3, 4, 4, dtype=torch.float16)))
    corpora.write(store, keep)
    run = ap.Run(store)
    assert ap.SampleDataset(run)[0]["weights"]["decoder.0"].shape == (3, 7, 7)
    with pytest.raises(NotKept, match="of the selected heads were not kept|no measures were kept"):
        ap.SampleDataset(run, measures="all")[0]
    with pytest.raises(NotKept, match="no measures were kept of sample text 0"):
        ap.SampleDataset(run, measures="pyramid_max(1)")[0]


# --- batches ------------------------------------------------------------------------------------------------------


def test_items_of_different_lengths_make_a_batch(run: ap.Run) -> None:
    items = list(ap.SampleDataset(run))
    batch = ap.SampleDataset.collate(items)
    assert batch["id"] == ["text 0", "text 1", "text 2"]
    assert batch["length"].tolist() == list(LENGTHS) and batch["index"].tolist() == [0, 1, 2]
    assert batch["attention_mask"].sum(1).tolist() == list(LENGTHS)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 11)
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 0).all()
    for site in ("decoder.0", "decoder.1", "decoder.2.cross", "encoder.1"):
        for place, item in enumerate(items):
            heads, queries, keys = item["weights"][site].shape
            np.testing.assert_array_equal(batch["weights"][site][place, :heads, :queries, :keys], item["weights"][site])
            assert (batch["weights"][site][place, :, queries:] == 0).all()
            assert (batch["weights"][site][place, ..., keys:] == 0).all()
            assert batch["queries"][site][place].tolist() == [
                *item["queries"][site].tolist(),
                *[-1] * (batch["queries"][site].shape[1] - queries),
            ]
    assert (batch["weights"]["decoder.2"][1] == 0).all() and (batch["heads"]["decoder.2"][1] == -1).all()


def test_measures_make_a_batch(measured: ap.Run) -> None:
    items = list(ap.SampleDataset(measured, measures="all"))
    batch = ap.SampleDataset.collate(items)
    for name in ("entropy", "argmax", "pooled_max"):
        for site, values in batch["measures"][name].items():
            for place, item in enumerate(items):
                own = item["measures"][name][site]
                at = (place, *map(slice, own.shape))
                np.testing.assert_array_equal(values[at], own)
                rest = torch.ones(values.shape, dtype=torch.bool)
                rest[:place], rest[place + 1 :], rest[at] = False, False, False
                assert (values[rest] == -1).all() if values.dtype == torch.int32 else values[rest].isnan().all()
    assert batch["rows"]["entropy"][next(iter(batch["rows"]["entropy"]))].shape == (3, 17)


class LastRows(Dataset[torch.Tensor]):
    """A dataset of one's own over a run."""

    def __init__(self, run: ap.Run) -> None:
        self.run = run

    def __len__(self) -> int:
        return len(self.run)

    def __getitem__(self, place: int) -> torch.Tensor:
        return torch.from_numpy(self.run.sample(place)["decoder.0", 0][-1])


def test_forked_processes_read_what_this_one_does(run: ap.Run) -> None:
    assert_loads_what_is_here(run, "fork")
    rows: DataLoader[Any] = DataLoader(LastRows(run), None, num_workers=2, multiprocessing_context="fork")
    for place, row in enumerate(rows):
        np.testing.assert_allclose(row, corpora.weights(place, DECODER[0])[0, -1], rtol=1e-6)


@pytest.mark.slow
def test_spawned_processes_read_what_this_one_does(tmp_path: Path) -> None:
    assert_loads_what_is_here(corpora.make(tmp_path / "run"), "spawn")


def assert_loads_what_is_here(run: ap.Run, context: str) -> None:
    dataset = ap.SampleDataset(run, kind="self")
    here = ap.SampleDataset.collate(list(dataset))  # so that files are open
    loader: DataLoader[Any] = DataLoader(
        dataset, 2, num_workers=2, multiprocessing_context=context, collate_fn=ap.SampleDataset.collate
    )
    first, second = loader
    assert first["id"] + second["id"] == here["id"]
    for site, values in here["weights"].items():
        heads, queries, keys = first["weights"][site].shape[1:]
        np.testing.assert_array_equal(first["weights"][site], values[:2, :heads, :queries, :keys])
    np.testing.assert_allclose(second["weights"]["decoder.0"][0], corpora.weights(2, DECODER[0]), rtol=1e-6)


def test_it_may_be_split_and_shuffled(run: ap.Run) -> None:
    parts = random_split(ap.SampleDataset(run), [2, 1], torch.Generator().manual_seed(0))
    loaders: list[DataLoader[Any]] = [DataLoader(part, batch_size=None, shuffle=True) for part in parts]
    assert sorted(item["id"] for loader in loaders for item in loader) == ["text 0", "text 1", "text 2"]


def test_it_may_be_pickled(run: ap.Run) -> None:
    dataset = ap.SampleDataset(run, layers=0)
    first = dataset[0]
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[0]["weights"]["decoder.0"], first["weights"]["decoder.0"])
    assert again.limit == dataset.limit and len(again) == 3


def test_threads_may_read_at_once(run: ap.Run) -> None:
    dataset = ap.SampleDataset(run)
    want = list(dataset)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(dataset.__getitem__, [0, 1, 2] * 40))
    for number, item in enumerate(found):
        for site, values in want[number % 3]["weights"].items():
            np.testing.assert_array_equal(item["weights"][site], values)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"layers": 7}, "layer 7 is out of range"),
        ({"heads": "0-9"}, "head 9 is out of range"),
        ({"kind": "other"}, "kind='other'"),
        ({"layers": "x"}, "cannot read 'x'"),
        ({"measures": []}, "measures is empty"),
        ({"limit": "much"}, "'much' is not a size"),
    ],
    ids=str,
)
def test_words_without_a_meaning_are_refused_at_once(run: ap.Run, words: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=re.escape(message)):
        ap.SampleDataset(run, **words)


@pytest.mark.parametrize("path", ["runs/book", Path("runs/book"), None], ids=str)
def test_a_path_in_place_of_a_run_is_refused(path: Any, unchecked: None) -> None:
    with pytest.raises(SelectionError, match=r"SampleDataset\(.*\): give a run, as attnprobe.open\(PATH\)"):
        ap.SampleDataset(path)


def test_a_kind_that_the_model_lacks_is_refused(measured: ap.Run) -> None:
    with pytest.raises(SelectionError, match="the model has no cross-attention"):
        ap.SampleDataset(measured, kind="cross")


@pytest.mark.parametrize(
    ("words", "place", "message"),
    [
        ({"layers": 1, "kind": "cross"}, 0, "weights of decoder.1.cross, head 0, were not kept of sample text 0"),
        ({"layers": "L1H1"}, 0, "weights of decoder.1, head 1, were not kept"),
        ({"heads": 1, "kind": "self"}, 0, "head 1, were not kept of sample text 0; kept are heads 0, 2 of it"),
        ({"layers": 2, "kind": "self"}, 1, "weights of decoder.2, head 0, were not kept of sample text 1"),
        ({"measures": "entropy"}, 0, "no measures were kept of sample text 0"),
        ({}, 3, "there is no sample 3; the run has 3 (0 to 2)"),
        ({}, -4, "there is no sample -4"),
    ],
    ids=str,
)  # fmt: skip
def test_what_was_not_kept_is_named(run: ap.Run, words: dict[str, Any], place: int, message: str) -> None:
    dataset = ap.SampleDataset(run, **words)
    with pytest.raises(NotKept, match=re.escape(message)):
        dataset[place]


def test_a_measure_that_was_not_kept_names_those_that_were(measured: ap.Run) -> None:
    with pytest.raises(NotKept, match=r"the measure 'distance' was not kept of sample 0; kept are .*entropy"):
        ap.SampleDataset(measured, measures="distance")[0]
    with pytest.raises(
        NotKept, match=r'weights of the selected heads were not kept of sample 0; kept are .*measures=\["NAME"\]'
    ):
        ap.SampleDataset(measured)[0]


def test_an_item_that_is_too_large_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    site, length = DECODER[0], 1 << 20
    store = MemoryStore(corpora.make(keep=(Kept(site),)).manifest)
    store.write(Field(0, site, 0, (0, 1, 2)), Block((0, 1, 2), range(length - 100, length), 0, torch.ones(3, 100, 4)))
    store.commit(Sample(0, "long", {"main": TokenSequence(length)}, length))
    monkeypatch.setattr(store, "values", lambda *_: pytest.fail("a value was read"))
    with pytest.raises(BudgetError, match=r"sample long has 1\.26 GB .* the limit is 1\.07 GB; select fewer"):
        ap.SampleDataset(ap.Run(store))[0]
    monkeypatch.undo()
    run = ap.Run(store)
    with pytest.raises(BudgetError, match=r"the limit is 8\.39 MB"):
        ap.SampleDataset(run, heads=0, limit="8 MiB")[0]
    small = ap.SampleDataset(corpora.make(), limit="8 MiB")
    assert small[0]["weights"]["decoder.0"].shape == (3, 7, 7)


def test_the_limit_is_of_measures_too(measured: ap.Run) -> None:
    with pytest.raises(BudgetError, match="the limit is 100 bytes"):
        ap.SampleDataset(measured, measures="entropy", limit=100)[0]


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    """Forked processes and a thread pool of torch's do not go together."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
