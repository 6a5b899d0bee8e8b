"""Train the small GPT-2 that ships as ``attnprobe.demo``: a tokenizer, then a model, then a log.

The batches are plain text, and random tokens that repeat. Text teaches the usual previous-token and first-token heads;
random tokens that return after a period of random length can only be predicted by induction (Olsson et al. 2022,
"In-context Learning and Induction Heads"), so a head of that kind has to form. It forms sooner on short rows, so
training starts there and moves on once they are learned. Later rows start at a random position, so that all 1,024
learned positions are trained from sequences half as long.

Run it from the root of the repository (about 25 minutes on one core)::

    python examples/demo_model/train.py CORPUS.txt --out attnprobe/demo/model --log examples/demo_model/log.json
"""

import json
import math
import platform
import time
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import attnprobe

SEED = 20_26
END = "<|endoftext|>"
VOCABULARY = 2048
TOKENS = 1024  # a step: many small steps form heads sooner than few large ones
# Each stage: the share of the steps after which it is over at the latest (or once the repeats are learned), length of
# the rows, how many places a row may start at, and the share of text.
STAGES = (
    (0.20, 32, 1, 0.0),
    (0.35, 64, 97, 0.25),
    (0.55, 128, 897, 0.5),
    (0.80, 256, 769, 0.5),
    (1.00, 512, 513, 0.5),
)
LEARNED = 0.7  # nats a token, running mean
CONTEXT = STAGES[-1][1]
SHAPE = {"n_layer": 4, "n_head": 8, "n_embd": 160, "n_positions": 1024}


def train_tokenizer(corpus: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2's: a leading space is part of the word and shows as ``Ġ``."""
    bpe = ByteLevelBPETokenizer()
    bpe.train([str(corpus)], vocab_size=VOCABULARY, min_frequency=2, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        bos_token=END,
        eos_token=END,
        model_max_length=SHAPE["n_positions"],
        clean_up_tokenization_spaces=False,
    )


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Where the learned positions start: neighbours are alike at once (Vaswani et al. 2017, section 3.5)."""
    rate = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.arange(positions)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def repeated_random(rows: int, context: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens whose segments return, and labels (-100 where nothing can be known)."""
    ids = torch.randint(1, VOCABULARY, (rows, context), generator=generator)
    labels = torch.full_like(ids, -100)
    for row in range(rows):
        period = int(torch.randint(min(6, context // 4), context // 2 + 1, (), generator=generator))
        for start in range(period, context, period):
            stop = min(start + period, context)
            ids[row, start:stop] = ids[row, : stop - start]
        labels[row, period + 1 :] = ids[row, period + 1 :]
    return ids, labels


def text_rows(stream: torch.Tensor, rows: int, context: int, generator: torch.Generator) -> torch.Tensor:
    starts = torch.randint(0, len(stream) - context, (rows,), generator=generator)
    return stream[starts[:, None] + torch.arange(context)]


def losses(model: GPT2LMHeadModel, ids: torch.Tensor, labels: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy (nats) of each row."""
    positions = offset[:, None] + torch.arange(ids.shape[1])
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:]
    token = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none")
    return token.view_as(targets).sum(1) / (targets != -100).sum(1)


@torch.no_grad()
def evaluate(model: GPT2LMHeadModel, stream: torch.Tensor, generator: torch.Generator) -> dict[str, float]:
    model.eval()
    text = text_rows(stream, 16, CONTEXT, generator)
    ids, labels = repeated_random(16, CONTEXT, generator)
    zero = torch.zeros(16, dtype=torch.long)
    result = {
        "text": losses(model, text, text, zero).mean().item(),
        "repeats": losses(model, ids, labels, zero).mean().item(),
    }
    model.train()
    return result


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum (Jordan et al. 2024, "Muon") in float32; torch's own is in bfloat16, slow on a CPU."""

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for matrix in group["params"]:
                shapes.setdefault(matrix.shape, []).append(matrix)
            for matrices in shapes.values():
                updates = []
                for matrix in matrices:
                    moment = self.state[matrix].setdefault("moment", torch.zeros_like(matrix))
                    moment.lerp_(matrix.grad, 1 - group["momentum"])
                    updates.append(matrix.grad.lerp(moment, group["momentum"]))
                scale = 0.2 * max(matrices[0].shape) ** 0.5  # as large as AdamW's step
                for matrix, update in zip(matrices, orthogonal(torch.stack(updates)), strict=True):
                    matrix.add_(update, alpha=-group["lr"] * scale)


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """Five Newton-Schulz steps towards the nearest orthogonal matrices."""
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return x.mT if tall else x


def look_back(model: GPT2LMHeadModel) -> None:
    """Let head 0 of layer 0 start as a previous-token head.

    On sinusoids, a step back is a rotation of each pair (sine, cosine); queries are turned by it, and keys are not. It
    is only a start: all of it is trained.
    """
    width, dim = SHAPE["n_embd"], SHAPE["n_embd"] // SHAPE["n_head"]
    weight = model.transformer.h[0].attn.c_attn.weight.data
    weight[:, :dim] *= 0.1
    weight[:, width : width + dim] *= 0.1
    for pair in range(dim // 2):
        rate = 10_000.0 ** (-2 * pair / width)
        at, gain = 2 * pair, 2.5
        weight[at, width + at] += gain
        weight[at + 1, width + at + 1] += gain
        # sin(p - rate) = sin p cos rate - cos p sin rate; cos(p - rate) = cos p cos rate + sin p sin rate
        weight[at, at] += gain * math.cos(rate)
        weight[at + 1, at] -= gain * math.sin(rate)
        weight[at + 1, at + 1] += gain * math.cos(rate)
        weight[at, at + 1] += gain * math.sin(rate)


def heads(model: GPT2LMHeadModel, period: int = 16) -> dict[str, float]:
    """Mean weights of the strongest previous-token and induction head on random tokens that come twice."""
    model.eval()
    half = torch.randint(1, VOCABULARY, (1, period), generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad(), attnprobe.record(model) as recorder:
        model(torch.cat([half, half], 1), use_cache=False)
    model.train()
    maps = [head.numpy() for layer in range(SHAPE["n_layer"]) for head in recorder.run[layer].values()]
    return {
        "previous": float(max(weights.diagonal(-1).mean() for weights in maps)),
        "induction": float(max(weights.diagonal(1 - period)[1:].mean() for weights in maps)),
    }


@click.command()
@click.argument("corpus", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--log", type=click.Path(path_type=Path), required=True)
@click.option("--steps", default=3600, show_default=True)
@click.option("--rate", default=3e-3, show_default=True, help="Peak learning rate.")
def main(corpus: Path, out: Path, log: Path, steps: int, rate: float) -> None:
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    tokenizer = train_tokenizer(corpus)
    end = tokenizer.convert_tokens_to_ids(END)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        bos_token_id=end,
        eos_token_id=end,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        initializer_range=0.05,
        **SHAPE,
    )
    model = GPT2LMHeadModel(config)
    model.transformer.wpe.weight.data.copy_(0.1 * sinusoids(SHAPE["n_positions"], SHAPE["n_embd"]))
    look_back(model)
    click.echo(str(heads(model)), err=True)
    stream = torch.tensor(tokenizer(corpus.read_text(), verbose=False).input_ids)
    train, held_out = stream[: -len(stream) // 20], stream[-len(stream) // 20 :]
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ".h." in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or ".h." not in name]
    optimizers = [
        Muon(inner, rate),
        torch.optim.AdamW(outer, lr=rate, fused=True, betas=(0.9, 0.98), weight_decay=0.02),
    ]

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / 100) * (min(1.0, 0.05 + 3 * (1 - step / steps)))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
    began, history = time.monotonic(), []
    stage, running = 0, 2 * LEARNED
    for step in range(steps):
        if stage + 1 < len(STAGES) and (running < LEARNED or step >= STAGES[stage][0] * steps):
            stage, running = stage + 1, 2 * LEARNED
        _, context, starts, share = STAGES[stage]
        rows = TOKENS // context
        texts = int(rows * share)
        text = text_rows(train, texts, context, generator)
        ids, labels = repeated_random(rows - texts, context, generator)
        offset = torch.randint(0, starts, (rows,), generator=generator)
        row_losses = losses(model, torch.cat([text, ids]), torch.cat([text, labels]), offset)
        model.zero_grad(set_to_none=True)
        row_losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        running = 0.97 * running + 0.03 * row_losses[texts:].mean().item()
        if step % 100 == 99 or step == steps - 1:
            point = {
                "step": step + 1,
                "context": context,
                **({"train_text": row_losses[:texts].mean().item()} if texts else {}),
                "train_repeats": running,
                **heads(model),
                "minutes": (time.monotonic() - began) / 60,
            }
            history.append({k: round(v, 4) for k, v in point.items()})
            click.echo(json.dumps(history[-1]), err=True)
    final = {k: round(v, 4) for k, v in evaluate(model, held_out, generator).items()}
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {
        "seed": SEED,
        "steps": steps,
        "tokens_a_step": TOKENS,
        "rate": rate,
        "stages": STAGES,
        "learned": LEARNED,
        "shape": SHAPE,
        "corpus": {"name": corpus.name, "tokens": len(stream), "held_out": len(held_out)},
        "final_loss_held_out": final,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "history": history,
    }
    log.write_text(json.dumps(record, indent=1) + "\n")
    click.echo(json.dumps(final))


if __name__ == "__main__":
    main()
