"""``attnprobe stats``, and what ``show`` and ``info`` make of runs without weights."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from rich.cells import cell_len
from rich.text import Text

import attnprobe as ap
from attnprobe import demo
from attnprobe.cli import main
from attnprobe.cli.output import Output
from attnprobe.cli.stats import rank, resolve
from attnprobe.kinds import KINDS, kinds_of
from attnprobe.show.grid import grid, side_by_side
from tests.models import cross_gpt2, gpt2, ids

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return demo.load()


@pytest.fixture(scope="module")
def run(loaded: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samples of the bundled text: measures and the largest weights of each row, no weights."""
    model, tokenizer = loaded
    path = tmp_path_factory.mktemp("runs") / "tale"
    text = tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=400).input_ids
    with ap.record(model, tokenizer, to=path, keep=[ap.Measures(), ap.TopK("L1H6", k=3)]) as recorder:
        for name, part in (("long", text), ("short", text[:, :90])):
            with recorder.sample(id=name):
                model(part)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of weights."""
    path = tmp_path_factory.mktemp("runs") / "plain"
    with ap.record(gpt2(), to=path) as recorder:
        gpt2_of(recorder)(ids(1, 8))
    return path


def gpt2_of(recorder: ap.Recorder) -> Any:
    return recorder._model


def call(*arguments: Any, columns: int = 80) -> Result:
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(main, [str(a) for a in arguments])


def table(result: Result) -> list[list[str]]:
    """The lines of the table of heads."""
    lines = result.stdout.splitlines()[3:]
    return [line.split() for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("L"))]]


def refused(result: Result, *words: str) -> None:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line


# --- ranking --------------------------------------------------------------------------------------------------------


def test_heads_are_ranked_by_a_measure(run: Path) -> None:
    result = call("stats", run, "--sort", "induction", "--top", 5)
    scores = ap.open(run).measures.summary().numpy()["induction"]
    order = np.argsort(-scores, axis=None, kind="stable")[:5]
    assert result.exit_code == 0 and result.stderr == ""
    found = table(result)
    assert [row[0] for row in found] == [f"L{at // 8}H{at % 8}" for at in order]
    assert [row[1] for row in found] == [f"{scores.reshape(-1)[at]:.2f}" for at in order]
    assert "... and 27 more heads" in result.stdout and "2 samples" in result.stdout
    reverse = table(call("stats", run, "--sort", "induction", "--top", 40, "--reverse"))
    assert [row[0] for row in reverse[-5:]] == [row[0] for row in found][::-1]


def test_without_a_measure_the_rare_kinds_come_first(run: Path) -> None:
    found = table(call("stats", run, "--top", 40))
    kinds = ap.open(run).measures.summary().kinds()
    named = [row[0] for row in found if not row[-1][0].isdigit()]
    assert named == [f"L{layer}H{head}" for layer, head in zip(kinds["layer"], kinds["head"], strict=True)]
    assert found[0][-1] == "induction" and ["L0H6", "previous-token"] in [[row[0], row[-1]] for row in found]
    assert len(found) == 32


def test_the_legend_names_thresholds_and_their_sources(run: Path) -> None:
    shown = " ".join(call("stats", run).stdout.split())
    for kind in KINDS:
        assert f"{kind.name}: {kind.measure} above {kind.threshold:g}" in shown
        assert kind.source in shown and kind.threshold_source in shown
    assert "conventions" in shown and "not measured" not in shown


def test_every_measure_has_a_grid(run: Path) -> None:
    lines = call("stats", run).stdout.splitlines()
    summary = ap.open(run).measures.summary()
    assert all(any(f"{name}, 0 to " in line for line in lines) for name in summary.names)
    (at,) = [i for i, line in enumerate(lines) if line.startswith("induction, 0 to 1")]
    digits = [[int(digit) for digit in line.split()[1:9]] for line in lines[at + 1 : at + 5]]
    np.testing.assert_array_equal(digits, np.floor(summary.numpy()["induction"] * 10).clip(0, 9))


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_lines_fit_the_terminal(run: Path, columns: int) -> None:
    shown = call("stats", run, "--sort", "local_mass(64)", columns=columns).stdout
    assert max(map(cell_len, shown.splitlines()[1:])) <= columns  # the first one has the path
    assert table(call("stats", run, "--sort", "local_mass", columns=columns))


def test_one_sample_may_be_meant(run: Path) -> None:
    whole = call("stats", run, "--sample", "short", "--sort", "entropy", "--top", 1)
    scores = ap.open(run).sample("short").measures.numpy()["entropy"]
    assert table(whole)[0][1] == f"{scores.max():.2f}" and "sample short" in whole.stdout
    assert call("stats", run, "--sample", 1, "--sort", "entropy", "--top", 1).stdout == whole.stdout
    refused(call("stats", run, "--sample", "nonsense"), "no sample nonsense", "long, short")


def test_json_has_everything(run: Path) -> None:
    record = json.loads(call("stats", run, "--sort", "induction", "--top", 1, "--json").stdout)
    summary = ap.open(run).measures.summary()
    assert (record["attention"], record["sample"], record["samples"], record["sort"]) == ("self", None, 2, "induction")
    assert [kind["name"] for kind in record["kinds"]] == [kind.name for kind in KINDS]
    assert {one["name"]: one["unit"] for one in record["measures"]}["entropy"] == "nats"
    assert len(record["heads"]) == 32 and record["heads"][0]["kinds"] == ["induction"]
    values = summary["previous"].values
    for head in record["heads"]:
        found = head["measures"]["previous"]
        expected = values[head["layer"], head["head"]]
        assert [found[name] for name in ("mean", "std", "count", "spread", "samples")] == expected.tolist()


def test_sorting_by_what_is_not_there_lists_what_is(run: Path) -> None:
    refused(call("stats", run, "--sort", "nonsense"), "no mean of a measure 'nonsense'", "sort by entropy, ", "or kind")
    refused(call("stats", run, "--sort", "received"), "no mean of a measure 'received'")
    with pytest.raises(ap.SelectionError, match="several measures are called 'first_mass'"):
        resolve("first_mass", ["first_mass(1)", "first_mass(4)"])
    names = ["first_mass(1)", "previous", "local_mass(64)"]
    for word, name in (("first-token", 0), ("first", 0), ("first_mass", 0), ("previous-token", 1), ("local_mass", 2)):
        assert resolve(word, names) == names[name]
    assert resolve("kind", names) is None


def test_heads_without_a_value_are_last() -> None:
    def head(number: int, **scores: float) -> Any:
        own = {kind.measure: scores.get(kind.measure, np.nan) for kind in KINDS}
        return 0, number, own, kinds_of(own)

    heads = [head(0), head(1, induction=0.2), head(2, previous=0.9), head(3, induction=0.5), head(4, induction=0.6)]
    assert [one[1] for one in rank(heads, "induction")] == [4, 3, 1, 0, 2]
    assert [one[1] for one in rank(heads, "induction", reverse=True)] == [1, 3, 4, 0, 2]
    assert [one[1] for one in rank(heads, None)] == [4, 3, 2, 1, 0]
    assert [one[1] for one in rank(heads, None, reverse=True)] == [0, 1, 2, 3, 4]


def test_kinds_that_were_not_measured_are_named(tmp_path: Path) -> None:
    with ap.record(gpt2(), to=tmp_path / "run", measures=["entropy", "previous"], heads="0,2") as recorder:
        gpt2_of(recorder)(ids(1, 12))
    shown = call("stats", tmp_path / "run")
    assert "not measured: induction (induction), duplicate (duplicate), first-token (first_mass(1))" in " ".join(
        shown.stdout.split()
    )
    assert len(table(shown)) == 6
    grids = [line for line in shown.stdout.splitlines() if line.startswith("  0 ")]
    assert grids[0].split()[2] == grids[0].split()[4] == "-"  # heads that were not kept


@pytest.mark.filterwarnings("error:.*All-NaN")
def test_a_text_without_repeats_has_no_induction(tmp_path: Path) -> None:
    with ap.record(gpt2(), to=tmp_path / "run", measures=["induction", "previous"]) as recorder:
        gpt2_of(recorder)(torch.arange(7)[None])
    shown = call("stats", tmp_path / "run")
    assert shown.exit_code == 0 and all(row[1] == "-" and row[2] != "-" for row in table(shown))
    assert (
        json.loads(call("stats", tmp_path / "run", "--json").stdout)["heads"][0]["measures"]["induction"]["mean"]
        is None
    )


@ap.row_measure(unit="", formula="-2 - its head", source="a test")
def below_zero(rows: Any) -> torch.Tensor:
    heads = torch.arange(rows.at.start, rows.at.stop)[:, None]
    return (-2.0 - heads).expand(-1, len(rows.rows))


def test_a_measure_below_zero_is_drawn_from_its_smallest(tmp_path: Path) -> None:
    with ap.record(gpt2(), to=tmp_path / "run", measures=[below_zero]) as recorder:
        gpt2_of(recorder)(ids(1, 7))
    shown = call("stats", tmp_path / "run", "--sort", "below_zero", "--top", 1)
    lines = shown.stdout.splitlines()
    at = lines.index("below_zero, -5 to 0")
    assert lines[at + 1].split() == ["0", "6", "4", "2", "0"] and table(shown)[0][1] == "-2.00"


def test_cross_attention_has_numbers_of_its_own(tmp_path: Path) -> None:
    model = cross_gpt2(n_layer=1)
    with ap.record(model, to=tmp_path / "run", measures=["entropy"]), torch.no_grad():
        model(ids(1, 6), encoder_hidden_states=torch.randn(1, 9, 64))
    for kind in ("self", "cross"):
        shown = call("stats", tmp_path / "run", "--kind", kind, "--sort", "entropy", "--top", 1)
        best = ap.open(tmp_path / "run").measures.select(kind).numpy()["entropy"].max()
        assert f"{kind}-attention" in shown.stdout and table(shown)[0][1] == f"{best:.2f}"
    refused(call("stats", tmp_path / "run", "--part", "encoder"), "part='encoder': the model has decoder")


def test_a_run_without_measures_says_how_to_record_them(plain: Path) -> None:
    refused(call("stats", plain), "no means of measures were kept", "--keep measures")


def test_a_run_without_samples_says_so(run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run, tmp_path / "run")
    for journal in (tmp_path / "run" / "journal").iterdir():
        journal.unlink()
    refused(call("stats", tmp_path / "run"), "lists no sample yet")


def test_names_of_a_run_cannot_control_the_terminal(tmp_path: Path) -> None:
    with ap.record(gpt2(), to=tmp_path / "run", measures="means") as recorder, recorder.sample(id="\x1b[2J"):
        gpt2_of(recorder)(ids(1, 6))
    for arguments in (["stats", tmp_path / "run", "--sample", "\x1b[2J"], ["show", tmp_path / "run", "0.0"]):
        shown = call(*arguments)
        assert shown.exit_code == 0 and "\x1b" not in shown.stdout


def test_what_is_drawn_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    title = grid(np.eye(2), "\x1b]0;owned\x07, 0 to 1 \u202e", 80)[0]
    assert title.plain == r"\x1b]0;owned\x07, 0 to 1 \u202e"
    out = Output(as_json=False, quiet=False, verbose=False)
    out.data(None, Text("a\x1b[2J\nb", "bold"), Text("one\ntwo"), "\x1b[2J\n")
    assert capsys.readouterr().out.splitlines() == [r"a\x1b[2J", "b", "one", "two", r"\x1b[2J\n"]


def test_units_of_a_run_that_are_no_words_are_refused(tmp_path: Path) -> None:
    with ap.record(gpt2(), to=tmp_path / "run", measures="means") as recorder:
        gpt2_of(recorder)(ids(1, 6))
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    for one in manifest["keep"][0]["measures"]:
        one["unit"] = "\x1b[2J"
    path.write_text(json.dumps(manifest))
    shown = call("stats", tmp_path / "run")
    assert shown.exit_code == 1 and "is not a manifest" in shown.stderr and "\x1b" not in shown.output


def test_statistics_take_no_torch(run: Path) -> None:
    program = (
        "import sys\nfrom click.testing import CliRunner\nfrom attnprobe.cli import main\n"
        "for line in (['stats', sys.argv[1]], ['stats', '--help'], ['show', sys.argv[1], '1.6', '--sample', '0']):\n"
        "    assert CliRunner().invoke(main, line).exit_code == 0, line\n"
        "    assert not {'torch', 'transformers', 'xarray'} & set(sys.modules), line\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program, str(run)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- grids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (4, 8), (12, 12), (32, 32), (80, 64), (3, 200)])
@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("width", [24, 80])
def test_a_grid_fits_its_width(shape: tuple[int, int], color: bool, width: int) -> None:
    values = np.random.default_rng(0).random(shape)
    lines = grid(values, "a measure, 0 to 1, with a long name", width, color, 1.0)
    assert max(line.cell_len for line in lines) <= width
    assert len(lines) <= shape[0] + 2
    assert color or all(line.plain.isascii() for line in lines)


def test_a_digit_is_a_tenth_and_the_largest_is_a_nine() -> None:
    values = np.array([[0.0, 0.09, 0.1, 0.55], [0.99, 1.0, 2.0, np.nan]])
    lines = [line.plain for line in grid(values, "x", 80, top=1.0)]
    assert lines[:3] == ["x", "  0 0 0 1 5 ", "  1 9 9 9 - "]
    scaled = [line.plain for line in grid(values, "x", 80)]
    assert scaled[1:3] == ["  0 0 0 0 2 ", "  1 4 5 9 - "]


def test_heads_that_do_not_fit_share_a_cell_with_the_largest() -> None:
    values = np.zeros((2, 300))
    values[1, 299], values[0, :] = 0.7, np.nan
    lines = [line.plain for line in grid(values, "x", 44, top=1.0)]
    assert lines[1][4:] == "-" * 40 and lines[2][-1] == "7" and set(lines[2][4:-1]) == {"0"}


def test_colours_are_two_layers_a_line_where_heads_are_many() -> None:
    values = np.linspace(0, 1, 5 * 20).reshape(5, 20)
    lines = grid(values, "x", 80, color=True)
    assert len(lines) == 1 + 3 + 1 and lines[1].plain[4:] == "▀" * 20
    values[1, 3] = np.nan
    assert grid(values, "x", 80, color=True)[1].plain[4 + 3] == "-"
    wide = grid(values[:, :4], "x", 80, color=True)
    assert len(wide) == 1 + 5 + 1 and wide[5].plain[4:] == "█" * 8


def test_grids_stand_side_by_side_as_far_as_they_fit() -> None:
    one = [Text("title"), Text("0 12"), Text("1 34")]
    lines = [line.plain for line in side_by_side([one, one, one[:2]], 15)]
    assert lines == ["title    title", "0 12     0 12", "1 34     1 34", "", "title", "0 12"]
    assert side_by_side([], 80) == []
    drawn = side_by_side([grid(np.eye(4), f"{i}", 80, color=True) for i in range(5)], 80)
    assert sum(line.plain.count("█") for line in drawn) == 5 * 16 * 2 and max(line.cell_len for line in drawn) <= 80


# --- show and info --------------------------------------------------------------------------------------------------


def test_show_draws_the_pooled_map_of_a_head_without_weights(run: Path) -> None:
    shown = call("show", run, "0.6", "--sample", "long").stdout.splitlines()
    assert shown[1] == "pooled_max: the largest weight of each 2 x 2 tokens (the weights were not kept)"
    assert "largest weights, from query to key" not in "\n".join(shown)
    means = ap.open(run).sample("long")[0, 6].measures.to_pandas()
    lines = shown[shown.index("means over rows, with their standard deviation") + 1 :]
    assert [line.split()[0] for line in lines] == list(means.index)
    assert lines[0].split() == [
        "entropy",
        f"{means['mean'].iloc[0]:.4f}",
        "+-",
        f"{means['std'].iloc[0]:.4f}",
        *["nats", "over", "400", "rows"],
    ]
    record = json.loads(call("show", run, "0.6", "--sample", "long", "--json").stdout)
    assert (
        record["measures"]["previous"]["mean"] == pytest.approx(means.loc["previous", "mean"]) and "top" not in record
    )


def test_show_lists_the_largest_weights_that_were_kept(run: Path) -> None:
    head = ap.open(run).sample("short")[1, 6]
    best = head.topk.to_pandas().sort_values("weight", ascending=False, kind="stable").iloc[0]
    shown = call("show", run, "L1H6", "--sample", "short").stdout
    assert "the 10 largest weights, from query to key" in shown and f"{best['weight']:.4f}  {best['query']:>5}" in shown
    record = json.loads(call("show", run, "L1H6", "--sample", "short", "--json").stdout)
    assert len(record["top"]) == 10 and record["top"][0]["key"] == best["key"]


def test_show_gives_a_row_of_the_largest_weights(run: Path) -> None:
    head = ap.open(run).sample("short")[1, 6]
    row = head.topk.row(40)
    shown = call("show", run, "L1H6", "--sample", "short", "--query", 40).stdout.splitlines()
    assert shown[-1] == f"the 3 largest weights were kept; {row.attrs['rest']:.4f} is on other tokens"
    record = json.loads(call("show", run, "L1H6", "--sample", "short", "--query", 40, "--json").stdout)
    assert sorted((one["weight"] for one in record["rows"]), reverse=True) == pytest.approx(row.tolist())
    assert [one["position"] for one in record["rows"]] == sorted(one["position"] for one in record["rows"])
    assert record["rest"] == pytest.approx(row.attrs["rest"])
    refused(call("show", run, "0.6", "--sample", "short", "--query", 40), "were not kept; kept are the measures")


def test_show_of_weights_and_measures_has_both(tmp_path: Path) -> None:
    with ap.record(gpt2(), to=tmp_path / "run", keep=[ap.Weights(), ap.Measures(names=["entropy"])]) as recorder:
        gpt2_of(recorder)(ids(1, 8))
    shown = call("show", tmp_path / "run", "0.0").stdout
    assert "a cell shows its largest weight" in shown and "the 10 largest weights" in shown
    assert shown.splitlines()[-1].split()[0] == "entropy"


def test_show_of_a_head_with_nothing_to_draw_says_what_there_is(tmp_path: Path) -> None:
    with ap.record(gpt2(), to=tmp_path / "run", measures=["received", "argmax"]) as recorder:
        gpt2_of(recorder)(ids(1, 8))
    for options in ([], ["--json"], ["--query", "1"]):
        refused(call("show", tmp_path / "run", "0.0", *options), "were not kept; kept are the measures", "received")


def test_info_lists_each_item(run: Path, tmp_path: Path) -> None:
    shown = call("info", run).stdout
    assert "2 samples x 4 layers x 8 heads x 90 to 400 tokens, top 3 + 13 measures, " in shown
    assert "the 3 largest weights of each row in float32: layers all, heads 6 of layer 1, " in shown
    (line,) = [line for line in shown.splitlines() if "measures: " in line]
    assert line.endswith("duplicate.mean, induction.mean") and "heads all" in line and "entropy, max, " in line
    record = json.loads(call("info", run, "--json").stdout)
    assert (record["dtype"], record["top"], record["measures"]) == (None, 3, 13)
    assert [item["what"] for item in record["keep"]] == ["measures", "topk"]
