"""``attnprobe capture``: run a model on a text, or on many, and write its attention weights to a run directory."""

import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprobe.cli.capture_corpus import capture_corpus
from attnprobe.cli.capturing import asked_of_model, check_target
from attnprobe.cli.corpus_options import Job, check_options, corpus_options
from attnprobe.cli.info import figures
from attnprobe.cli.keeping import read_keep, selecting
from attnprobe.cli.models import Named, pick_device
from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.cli.progress import Streamer, bytes_on_disk, describe_size, recording, tell_fidelity
from attnprobe.errors import RecordingWarning, SelectionError
from attnprobe.sizes import parse_bytes

if TYPE_CHECKING:  # it needs torch, which takes seconds to import
    from attnprobe.recorder import Recorder


@click.command("capture")
@click.argument("model")
@click.argument("source", nargs=-1, metavar="[-]")
@click.option("--text", help="The text to run the model on.")
@click.option("--file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), help="A UTF-8 file with it.")
@click.option(
    "-o", "--out", "run", type=click.Path(path_type=Path), required=True, metavar="RUN", help="Where to write."
)
@corpus_options
@selecting
@click.option("--generate", type=click.IntRange(min=1), metavar="N", help="Generate up to N tokens too, greedily.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Run on the first N tokens of a text.")
@click.option("--device", default="auto", show_default=True, help='"cpu", "cuda:1"; auto is CUDA where there is one.')
@click.option("--budget", default="256 MiB", show_default=True, help="Working memory.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is there.")
@click.option("--no-text", is_flag=True, help="Keep no token ids and strings, only which tokens repeat.")
@shared
def command(
    out: Output,
    model: str,
    source: tuple[str, ...],
    text: str | None,
    file: Path | None,
    run: Path,
    generate: int | None,
    max_tokens: int | None,
    device: str,
    budget: str,
    overwrite: bool,
    no_text: bool,
    corpus: dict[str, Any],
    **selection: Any,
) -> None:
    """Run MODEL on a text, or on a corpus, and write its attention weights, or what is computed of them, to RUN.

    MODEL is "demo" (the bundled one), a directory, or a name on the Hugging Face hub. The text is --text, --file, or
    standard input where "-" is given. A corpus is --dataset; several workers share it where torchrun, srun, a SLURM
    array or an indexed Kubernetes job starts them, and --resume goes on with what is there.

    \b
    attnprobe capture demo --text "Maia likes to explore her world!" -o runs/maia
    attnprobe capture gpt2 --file book.txt --max-tokens 1024 --heads L5H1,L6H9 --dtype float16 -o runs/book
    attnprobe capture gpt2 --file book.txt --max-tokens 1024 --keep topk:8 --keep measures -o runs/book
    echo "To be, or" | attnprobe capture demo - --generate 20 -o runs/hamlet
    attnprobe capture gpt2 --dataset "texts/*.jsonl" --keep measures -o runs/texts --resume
    """  # noqa: D301 (click wants the backspace itself)
    # All that can be wrong is found before the model is loaded, cheapest first.
    keep = read_keep(**selection)
    parse_bytes(budget)
    check_options(corpus["dataset"], [model, *source])
    if corpus["dataset"]:
        capture_corpus(out, Job(model, run, keep, device, budget, overwrite, not no_text, max_tokens, **corpus))
        return
    check_target(run, overwrite)
    words = _read_text(source, text, file)
    named = Named(model, progress=out.stderr.is_terminal and not out.quiet)
    if generate is None and named.encodes:
        raise SelectionError(f"{named.name} is an encoder-decoder: add --generate N, for the text is its encoder's")
    ids = _tokenize(named, words, max_tokens, generate or 0)
    where = pick_device(device)

    from attnprobe.api import plan, record

    expected = plan(named.outline(), ids, generate=generate or 0, to=run, keep=keep, budget=budget, device=where)
    expected.check(command_line=True)
    for note in expected.notes:
        out.note(f"note: {note}")
    loaded = named.load(where)
    out.detail(f"{type(loaded).__name__} {model}, {str(loaded.dtype).removeprefix('torch.')} on {loaded.device}")

    recorder = record(loaded, named.tokenizer, to=run, keep=keep, budget=budget, overwrite=overwrite, text=not no_text)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)  # it is said below
        _run(out, loaded, ids, recorder, run, generate)
    seconds = time.perf_counter() - began

    found = recorder.run
    size = figures(found)
    size["bytes_on_disk"] = bytes_on_disk(run)
    rate, written = size["tokens"] / seconds, describe_size(size["bytes"], size["bytes_on_disk"])
    out.note(f"recorded {size['tokens']:,} tokens in {seconds:.1f} s: {rate:,.0f} tokens/s, {written}")
    told = tell_fidelity(out, recorder)
    out.data({"path": str(run), **size, "seconds": round(seconds, 3), "fidelity": told}, str(run), repr(found))


def _read_text(source: tuple[str, ...], text: str | None, file: Path | None) -> str:
    wrong = next((one for one in source if one != "-"), None)
    if wrong is not None:
        raise click.UsageError(
            f'{wrong!r} is not understood; give the text by --text, --file, or "-" for standard input'
        )
    if sum(given is not None for given in (*source, text, file)) != 1:
        raise click.UsageError('give the text once: by --text, by --file, or "-" for standard input')
    if text is None:
        try:
            if file is None or str(file) == "-":
                text = sys.stdin.buffer.read().decode("utf-8")
            else:
                text = file.read_bytes().decode("utf-8")
        except OSError as error:
            raise SelectionError(f"cannot read {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SelectionError(f"the text is not UTF-8: {error}") from error
    if not text:
        raise SelectionError("the text is empty: there is nothing to record")
    return text


def _tokenize(named: Named, text: str, max_tokens: int | None, generate: int) -> list[int]:
    """The text's token ids, cut to `max_tokens`, once they are known to fit."""
    whole: list[int] = named.tokenizer(text, verbose=False).input_ids
    ids = whole[:max_tokens]
    if not ids:
        raise SelectionError("the text has no tokens: there is nothing to record")
    window = named.window
    if window is None or len(ids) + generate <= window:
        return ids
    have = f"the text has {len(ids):,} tokens" if len(ids) == len(whole) else f"{len(ids):,} tokens are to be kept"
    if generate:
        have += f" and {generate:,} are to be generated"
    fix = "generate fewer" if generate >= window else f"cut the text with --max-tokens {window - generate}"
    raise SelectionError(f"{have}, but the context window of {named.name} has {window:,}; {fix}")


def _run(out: Output, model: Any, ids: list[int], recorder: "Recorder", run: Path, generate: int | None) -> None:
    """Run the model inside of the recording."""
    import torch

    inputs = torch.tensor([ids], device=model.device)
    asked = asked_of_model(recorder)
    with (
        recorder,
        torch.no_grad(),
        recording(out, run, len(ids) + (generate or 0), steps=generate is not None) as advance,
    ):
        if generate is None:
            model(input_ids=inputs, use_cache=False, **asked)
        else:
            model.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=generate,
                do_sample=False,
                num_beams=1,
                pad_token_id=model.generation_config.pad_token_id or 0,  # of one sequence nothing is padded
                streamer=Streamer(advance),
                **asked,
            )
