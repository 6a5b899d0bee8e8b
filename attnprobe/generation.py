"""What `generate` was asked for: the length of its prompt, and what cannot be recorded."""

from collections.abc import Mapping
from typing import Any

from attnprobe.errors import UnsupportedCall
from attnprobe.lineage import Generation


def read_generation(model: Any, arguments: Mapping[str, Any]) -> Generation:
    """Read the arguments of a `generate` call.

    Raises
    ------
    UnsupportedCall
        For beams, generation without a cache, assistants, and static caches that CUDA would compile.
    """
    # A value that neither the call nor its own configuration gives comes from the model's.
    configs = (arguments.get("generation_config"), getattr(model, "generation_config", None))

    def option(name: str, default: Any = None) -> Any:
        values = (arguments.get(name), *(getattr(config, name, None) for config in configs))
        return next((value for value in values if value is not None), default)

    if option("num_beams", 1) > 1:
        raise UnsupportedCall("beam search moves rows between beams, so its attention is not recorded; set num_beams=1")
    if option("use_cache", True) is False:
        raise UnsupportedCall("without a cache every step is a new forward pass of everything; set use_cache=True")
    for name in ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit", "custom_generate"):
        if option(name) is not None:
            raise UnsupportedCall(f"{name} takes guessed tokens back, so its attention is not recorded; leave it out")
    if (option("guidance_scale") or 1) != 1:
        raise UnsupportedCall("guidance_scale runs a second, unconditional sequence beside each; leave it out")
    static = "static" in str(option("cache_implementation", "")) or getattr(
        arguments.get("past_key_values"), "is_compileable", False
    )
    device = getattr(getattr(model, "device", None), "type", "cpu")
    compiles = device == "cuda" or getattr(option("compile_config"), "_compile_all_devices", False)
    if static and compiles and not option("disable_compile", False):
        raise UnsupportedCall(
            "generate compiles the model by itself for a static cache on CUDA; pass disable_compile=True, and compile "
            "the model yourself if you want to: model.forward = torch.compile(model.forward)"
        )
    prompt = next(
        (arguments[n] for n in ("inputs", "input_ids", "inputs_embeds") if arguments.get(n) is not None), None
    )
    if option("stop_strings") is not None and prompt is not None and len(prompt) > 1:
        raise UnsupportedCall(
            "rows of a batch that stop_strings ends go on with padding that looks like tokens; generate one row at a "
            "time, or end rows by eos_token_id"
        )
    ends = option("eos_token_id", ())
    ends = ends.tolist() if hasattr(ends, "tolist") else ends
    slots: int | None = 1 if prompt is None else int(prompt.shape[1])
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        if option("num_return_sequences", 1) > 1:
            raise UnsupportedCall(
                "num_return_sequences copies what the encoder made, so which source is whose is not known; give the "
                f"model the input that often: input_ids.repeat_interleave({option('num_return_sequences')}, 0)"
            )
        slots = None  # what is given is the encoder's, and generate begins the decoder's prompt itself
    return Generation(
        prompt_slots=slots,
        ends=frozenset(ends if isinstance(ends, list | tuple) else [ends]),
    )
