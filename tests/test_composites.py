"""Models of several parts, and models that others wrap: encoder-decoders, towers, LoRA, offloading, processes."""

import copy
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from route_checks import peaked, recorded, untouched
from torch import Tensor
from torch.ao.quantization import quantize_dynamic
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

import attnprobe as ap

TOKENS: dict[str, Any] = {"vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IMAGE, END, WIDTH = 3, 95, 32


def twins(cls: Any, config: Any) -> tuple[Any, Any]:
    """A model on SDPA (or what it runs on by default), and one of the same weights on eager attention."""
    model = peaked(cls._from_config(copy.deepcopy(config)))
    eager = cls._from_config(copy.deepcopy(config), attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    return model, eager


def assert_sites(sample: Any, sites: Iterable[Any], maps: Iterable[Tensor], rows: Any, columns: Any) -> None:
    """Every head of these sites against eager maps ``[head, query, key]``, cut to the tokens."""
    peaks = []
    for site, whole in zip(sites, maps, strict=True):
        for head in range(site.heads):
            got, want = sample[site.key, head].numpy(), whole[head][rows][:, columns].numpy()
            assert got.shape == want.shape, site
            assert np.abs(got - want).max() <= 1e-5, site
            peaks += list(want.max(-1) * (want > 0).sum(-1))[1:]
    assert np.median(peaks) > 1.2, "rows are too flat for this to mean anything"


# --- encoder-decoders --------------------------------------------------------------------------------------------


def t5() -> tuple[Any, Any]:
    config = T5Config(**TOKENS, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4, decoder_start_token_id=0)
    return twins(T5ForConditionalGeneration, config)


SHAPE: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_start_token_id": 1,
}  # fmt: skip


def bart() -> tuple[Any, Any]:
    return twins(BartForConditionalGeneration, BartConfig(**TOKENS, **SHAPE, forced_eos_token_id=None))


def whisper() -> tuple[Any, Any]:
    settings = {"num_mel_bins": 8, "max_source_positions": 12, "max_target_positions": 32, "suppress_tokens": None}
    more = {"begin_suppress_tokens": None, "forced_decoder_ids": None}
    return twins(WhisperForConditionalGeneration, WhisperConfig(**TOKENS, **SHAPE, **settings, **more))


def texts() -> tuple[dict[str, Tensor], list[int]]:
    batch = models.padded([9, 6], "right")
    return {"input_ids": batch["input_ids"].clamp(min=4), "attention_mask": batch["attention_mask"]}, [9, 6]


def sounds() -> tuple[dict[str, Tensor], list[int]]:
    return {"input_features": torch.randn(2, 8, 24, generator=torch.Generator().manual_seed(3))}, [12, 12]


@pytest.mark.parametrize("settings", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
@pytest.mark.parametrize(("make", "inputs"), [(t5, texts), (bart, texts), (whisper, sounds)])
@torch.no_grad()
def test_generation_of_an_encoder_decoder_is_one_sample_of_two_sequences(
    make: Any, inputs: Any, settings: dict[str, Any]
) -> None:
    (model, eager), (given, lengths) = make(), inputs()
    options = {**given, "max_new_tokens": 5, "min_new_tokens": 5, **settings}
    bare = model.generate(**options)
    with untouched(model), ap.record(model) as rec:
        assert torch.equal(model.generate(**options), bare)
    start = model.config.decoder_start_token_id
    fed = bare[:, :-1] if bare.shape[1] == 6 else torch.cat([torch.full((2, 1), start), bare[:, :-1]], 1)
    whole = eager(**given, decoder_input_ids=fed, output_attentions=True)
    assert len(rec.run.samples) == 2
    for b, length in enumerate(lengths):
        sample, mine = rec.run.sample(b), rec.run.samples[b].sequences
        assert set(mine) == {"main", "source"}
        assert mine["source"].length == length
        assert mine["main"].ids.tolist() == fed[b].tolist()
        kinds = {"source self": whole.encoder_attentions, "main self": whole.decoder_attentions,
                 "main cross": whole.cross_attentions}  # fmt: skip
        for kind, maps in kinds.items():
            queries, keys = (slice(length if kind.startswith("source") else None) for _ in range(2))
            keys = slice(length) if kind == "main cross" else keys
            sites = [site for site in rec.sites if f"{site.queries} {site.kind}" == kind]
            assert_sites(sample, sites, [layer[b] for layer in maps], queries, keys)


@torch.no_grad()
def test_a_forward_pass_of_an_encoder_decoder_and_its_encoder_alone() -> None:
    (model, eager), (given, lengths) = bart(), texts()
    target = models.ids(2, 4).clamp(min=4)
    run, _ = recorded(model, **given, decoder_input_ids=target)
    whole = eager(**given, decoder_input_ids=target, output_attentions=True)
    cross = [site for site in run.sites if site.kind == "cross"]
    assert_sites(run.sample(1), cross, [layer[1] for layer in whole.cross_attentions], slice(4), slice(lengths[1]))
    with ap.record(model.get_encoder()) as rec:
        model.get_encoder()(**given)
    own = [layer[1] for layer in whole.encoder_attentions]
    assert_sites(rec.run.sample(1), rec.sites, own, slice(lengths[1]), slice(lengths[1]))


# --- towers ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_texts_and_images_of_two_towers_are_samples_of_their_own() -> None:
    part = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**part, **TOKENS, "max_position_embeddings": 16, "eos_token_id": END}
    config = CLIPConfig(text_config=text, vision_config={**part, "image_size": 16, "patch_size": 8}, projection_dim=32)
    model, eager = twins(CLIPModel, config)
    batch = models.padded([9, 6], "right")
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    run, _ = recorded(model, **batch, pixel_values=pixels)
    whole = eager(**batch, pixel_values=pixels, output_attentions=True)
    by_sequence: dict[str, list[int]] = {}
    for number, sample in enumerate(run.samples):
        (name,) = sample.sequences
        by_sequence.setdefault(name, []).append(number)
    assert {name: len(found) for name, found in by_sequence.items()} == {"main": 2, "image": 3}
    towers = {"main": whole.text_model_output.attentions, "image": whole.vision_model_output.attentions}
    for name, maps in towers.items():
        sites = [site for site in run.sites if site.queries == name]
        for b, number in enumerate(by_sequence[name]):
            seen = slice((9, 6)[b] if name == "main" else 5)
            assert_sites(run.sample(number), sites, [layer[b] for layer in maps], seen, seen)


@pytest.mark.parametrize("with_image", [True, False])
@torch.no_grad()
def test_a_language_model_that_sees_images(with_image: bool) -> None:
    part = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = CLIPVisionConfig(**part, image_size=16, patch_size=8)
    text = LlamaConfig(**part, **TOKENS, num_key_value_heads=2, max_position_embeddings=64)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, image_token_id=IMAGE)
    model, eager = twins(LlavaForConditionalGeneration, config)
    tokens = models.ids(1, 11).clamp(min=4)
    given: dict[str, Tensor] = {}
    if with_image:
        tokens[:, 2:6] = IMAGE
        given["pixel_values"] = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    bare = model.generate(input_ids=tokens, **given, max_new_tokens=4, min_new_tokens=4)
    with untouched(model), ap.record(model) as rec:
        out = model.generate(input_ids=tokens, **given, max_new_tokens=4, min_new_tokens=4)
    assert torch.equal(out, bare)
    (main,) = [number for number, sample in enumerate(rec.run.samples) if "main" in sample.sequences]
    whole = eager(input_ids=out[:, :-1], **given, output_attentions=True)
    sites = [site for site in rec.sites if site.queries == "main"]
    assert_sites(rec.run.sample(main), sites, [layer[0] for layer in whole.attentions], slice(None), slice(None))
    towers = [site for site in rec.sites if site.queries == "image"]
    assert len(towers) == 2
    ran = [sample for sample in rec.run.samples if "image" in sample.sequences]
    assert len(ran) == with_image
    if with_image:
        kept = {site.key for site in rec.run.sample(ran[0].index).sites} & {site.key for site in towers}
        maps = eager.model.vision_tower(given["pixel_values"], output_attentions=True).attentions
        own = [site for site in towers if site.key in kept]
        assert_sites(rec.run.sample(ran[0].index), own, [maps[n][0] for n in range(len(own))], slice(5), slice(5))


# --- wrapped by others -------------------------------------------------------------------------------------------


def llama(attention: str = "sdpa") -> Any:
    config = LlamaConfig(
        **TOKENS, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    return peaked(LlamaForCausalLM._from_config(config, attn_implementation=attention))


def assert_eager(run: Any, eager: Any, tokens: Tensor) -> None:
    whole = eager(tokens, output_attentions=True).attentions
    assert run.samples[0].sequences["main"].ids.tolist() == tokens[0].tolist()
    assert_sites(run.sample(0), run.sites, [layer[0] for layer in whole], slice(None), slice(None))


@torch.no_grad()
def test_lora_adapters_are_part_of_the_weights() -> None:
    peft = pytest.importorskip("peft", reason="needs peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(target_modules=["q_proj", "k_proj"], r=4, lora_alpha=16, init_lora_weights=False)
    model, tokens = peft.get_peft_model(llama(), config).eval(), models.ids(1, 9).clamp(min=4)
    options = {"max_new_tokens": 4, "min_new_tokens": 4}
    bare = model.generate(input_ids=tokens, **options)
    with untouched(model), ap.record(model) as rec:
        out = model.generate(input_ids=tokens, **options)
    assert torch.equal(out, bare)
    merged = copy.deepcopy(model).merge_and_unload()
    merged.set_attn_implementation("eager")
    assert_eager(rec.run, merged, out[:, :-1])
    with model.disable_adapter():
        run, _ = recorded(model, input_ids=tokens)
    assert_eager(run, llama("eager"), tokens)


def quantised(model: Any, kind: str) -> Any:
    """A model whose linear layers, but for the head's, compute in 8 or 4 bits."""
    if kind == "dynamic int8":
        return quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
    bnb = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    for name, old in list(model.model.named_modules()):
        if isinstance(old, torch.nn.Linear):
            if kind == "4 bits":
                new = bnb.nn.Linear4bit(old.in_features, old.out_features, bias=False, compute_dtype=torch.float32)
                new.weight = bnb.nn.Params4bit(old.weight.data, requires_grad=False)
            else:
                new = bnb.nn.Linear8bitLt(old.in_features, old.out_features, bias=False, has_fp16_weights=False)
                new.weight = bnb.nn.Int8Params(old.weight.data, requires_grad=False, has_fp16_weights=False)
            model.model.set_submodule(name, new)
    return model.to("cpu")  # where these are made of the given numbers


@pytest.mark.parametrize("kind", ["dynamic int8", "8 bits", "4 bits"])
@torch.no_grad()
def test_linear_layers_of_few_bits(kind: str) -> None:
    model, tokens = quantised(llama(), kind), models.ids(1, 9).clamp(min=4)
    bare = model(tokens).logits
    assert not torch.equal(bare, llama()(tokens).logits), "nothing was quantised"
    run, output = recorded(model, tokens)
    assert torch.equal(output.logits, bare)
    assert_eager(run, quantised(llama("eager"), kind), tokens)


@torch.no_grad()
def test_offloaded_models_are_recorded_while_their_weights_are_there() -> None:
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate")
    tokens = models.ids(1, 9).clamp(min=4)
    model = accelerate.cpu_offload(llama(), execution_device=torch.device("cpu"))
    assert model.model.layers[0].self_attn.q_proj.weight.device.type == "meta"
    bare = model(tokens).logits
    run, output = recorded(model, tokens)
    assert torch.equal(output.logits, bare)
    assert_eager(run, llama("eager"), tokens)


@torch.no_grad()
def test_offloaded_multihead_attention_is_recorded_while_its_weights_are_there() -> None:
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate")
    x = torch.randn(1, 7, WIDTH)
    module = peaked(torch.nn.MultiheadAttention(WIDTH, 4, batch_first=True))
    want = module(x, x, x, average_attn_weights=False)[1][0]
    whole = ["MultiheadAttention"]
    model = accelerate.cpu_offload(module, execution_device=torch.device("cpu"), preload_module_classes=whole)
    assert torch.equal(model(x, x, x, average_attn_weights=False)[1][0], want)
    run, _ = recorded(model, x, x, x)
    assert_sites(run.sample(0), run.sites, [want], slice(None), slice(None))


WORKER = """
import datetime, os, sys, numpy as np, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
sys.path[:0] = {paths!r}
import attnprobe as ap, models
torch.set_num_threads(1)
other = os.fork()  # one import for both; nothing has run yet
rank = int(other == 0)
limit = datetime.timedelta(seconds=40)
dist.init_process_group("gloo", init_method="file://{place}/meet", rank=rank, world_size=2, timeout=limit)
model = DistributedDataParallel(models.gpt2(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0).train())
tokens = models.ids(1, 8 + rank, seed=rank)
with ap.record(model) as rec:
    model(tokens, labels=tokens).loss.backward()
assert len(rec.run.samples) == 1
maps = np.stack([[rec.run[layer, head].numpy() for head in range(4)] for layer in range(3)])
np.savez("{place}/" + str(rank), maps=maps, grad=model.module.transformer.wte.weight.grad.numpy())
dist.destroy_process_group()
if rank == 0:
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0
"""


def test_each_process_of_a_parallel_training_records_its_own_sample(tmp_path: Path) -> None:
    here = Path(__file__).parent
    script = WORKER.format(paths=[str(here), str(here.parent)], place=tmp_path)
    loop = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}  # a host's name may resolve to nothing
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, env={**os.environ, **loop})
    found = [np.load(tmp_path / f"{rank}.npz") for rank in range(2)]
    assert np.array_equal(found[0]["grad"], found[1]["grad"]), "gradients were not averaged"
    for rank in range(2):
        want = models.eager(models.gpt2(), input_ids=models.ids(1, 8 + rank, seed=rank)).attentions
        assert np.abs(found[rank]["maps"] - np.stack([layer[0].numpy() for layer in want])).max() <= 1e-5
