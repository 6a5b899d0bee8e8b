"""Small settings for the configuration of any model type: by the setting's name, and by hand where names do not do."""

import dataclasses
from typing import Any

from transformers import CONFIG_MAPPING

WIDTH, HEADS, DEPTH, VOCABULARY, POSITIONS = 64, 4, 2, 99, 64
IMAGE, PATCH = 32, 8
WINDOW = 5  # narrower than the inputs, so that a wrong window shows
FIRST_TOKEN = 20  # below it lie the special tokens, which no input contains

SAME: tuple[tuple[int | float | bool, str], ...] = (
    (
        WIDTH,
        """hidden_size d_model n_embd dim emb_dim embed_dim embedding_size intermediate_size moe_intermediate_size
        shared_expert_intermediate_size shared_intermediate_size moe_shared_expert_intermediate_size
        shared_experts_intermediate_size dense_intermediate_size intermediate_size_mlp expert_ffn_hidden_size
        ffn_hidden_size decoder_ffn_dim encoder_ffn_dim ffn_dim dim_ff dff d_ff feed_forward_size hidden_dim n_inner
        mlp_dim d_inner embedding_dim input_embedding_size output_embedding_size projection_dim embedding_rank
        out_hidden_size projector_input_dim projector_output_dim vision_output_dim word_embed_proj_dim lru_width
        attention_hidden_size prediction_head_size entity_emb_size backbone_hidden_size pooler_output_size
        speech_encoder_intermediate_size t2u_encoder_ffn_dim t2u_decoder_ffn_dim unit_embed_dim projection_size
        hidden_size_global cross_attention_hidden_size downsample_hidden_size mm_embed_dim audio_embed_dim
        output_proj_dims ext_pw_out_channel depthwise_separable_out_channel nemo_conv_channels decoder_hidden_size
        adapter_in_dim adapter_out_dim adapter_input_size output_channels qk_channels v_channels
        d_latents """,
    ),
    (
        HEADS,
        """num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads
        attention_heads swa_num_attention_heads num_encoder_attention_heads num_decoder_attention_heads
        conf_num_attention_heads speech_encoder_attention_heads t2u_encoder_attention_heads
        t2u_decoder_attention_heads linear_num_heads index_n_heads linear_num_value_heads mamba_num_heads
        num_self_attention_heads num_cross_attention_heads""",
    ),
    (
        2,
        """num_key_value_heads num_kv_heads kv_n_heads swa_num_key_value_heads linear_num_key_heads indexer_kv_heads
        num_experts_per_tok moe_topk moe_top_k moe_k top_k_experts expert_capacity hc_mult
        altup_num_inputs num_codebooks n_groups o_groups mamba_n_groups
        num_register_tokens num_mem_blocks """,
    ),
    (
        DEPTH,
        """num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers
        num_decoder_layers conf_num_hidden_layers speech_encoder_layers t2u_encoder_layers t2u_decoder_layers
        num_global_layers depth num_blocks num_adapter_layers""",
    ),
    (
        1,
        """first_k_dense_replace num_dense_layers n_shared_experts num_shared_experts moe_num_shared_experts n_group
        topk_group moe_layer_start_index num_self_attends_per_block num_kv_shared_layers zero_expert_num
        num_nextn_predict_layers num_mtp_layers decoder_sparse_step encoder_sparse_step""",
    ),
    (
        4,
        """num_experts n_routed_experts num_local_experts moe_num_experts shape_vocab_size index_topk
        moe_eval_capacity_token_fraction num_random_blocks mamba_d_state state_size ssm_state_size""",
    ),
    (
        8,
        """indexer_head_dim d_rel rotary_dim block_size attention_chunk_size mamba_d_head mamba_head_dim
        chunk_size mamba_chunk_size laurel_rank hidden_size_per_layer_input o_lora_rank
        gated_norm_rank adapter_rank hc_lowrank prompt_length linear_key_head_dim
        linear_value_head_dim linear_head_dim pronunciation_embed_dim shape_embed_dim router_hidden_size""",
    ),
    (
        WIDTH // HEADS,
        """head_dim d_kv dim_head d_head kv_channels attention_head_size qk_nope_head_dim qk_rope_head_dim
        index_head_dim v_head_dim kv_lora_rank swa_head_dim attention_head_dim query_pre_attn_scalar num_mel_bins""",
    ),
    (24, "q_lora_rank"),
    (
        WINDOW,
        """sliding_window sliding_window_size window_size attention_window_size
        keep_window_size local_attention_window_len""",
    ),
    (
        VOCABULARY,
        """vocab_size decoder_vocab_size src_vocab_size tgt_vocab_size vocab_size_per_layer_input
        entity_vocab_size pronunciation_vocab_size unpadded_vocab_size audio_vocab_size t2u_vocab_size
        unit_hifi_gan_vocab_size char_vocab_size vocab_offset encoder_hash_byte_group_vocab""",
    ),
    (
        POSITIONS,
        """max_position_embeddings n_positions n_ctx max_seq_len context_length max_source_positions
        max_target_positions max_encoder_position_embeddings max_decoder_position_embeddings
        t2u_max_position_embeddings position_embedding_size num_position_embeddings mm_posemb_size
        max_2d_position_embeddings original_max_position_embeddings rel_extent""",
    ),
    (IMAGE, "image_size"),
    (PATCH, "patch_size"),
    (0, "pad_token_id pad_index "),
    (0.3, "attention_multiplier"),
    (
        False,
        """layerdrop encoder_layerdrop decoder_layerdrop use_mamba_kernels onnx_export token_dropout""",
    ),
    (True, "use_sliding_window use_relative_position_bias relative_attention use_rel_pos"),
)
NAMED: dict[str, Any] = {name: value for value, names in SAME for name in names.split()}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "sep_token_id": 3, "cls_token_id": 4}

# Model types whose settings depend on one another, or for which the common ones would miss what is peculiar to them.
SHARED_KEYS = {  # the last two layers attend to the keys of the first two
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
}
SWIN = {"embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "patch_size": 2}
PYRAMID = {"hidden_sizes": (16, 32, 48, 64), "num_attention_heads": (1, 2, 4, 4), "depths": (1, 1, 1, 1)}
MAMBA = {"mamba_n_heads": HEADS, "mamba_d_head": 2 * WIDTH // HEADS}
ALL_SHARED = {
    **SHARED_KEYS,
    "num_kv_shared_layers": 4,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
}
BY_HAND: dict[str, dict[str, Any]] = {
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "blt": {"num_hidden_layers": DEPTH},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
            "full_attention": None,
        },
    },
    "cvt": {"embed_dim": (16, 32, 64), "num_heads": (1, 2, 4), "depth": (1, 2, 3)},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v4": {
        "num_key_value_heads": 1,
        "partial_rotary_factor": 0.5,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
        "mlp_layer_types": ["hash_moe", "moe", "moe"],
        "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4},
        "index_topk": 2,
    },
    "donut-swin": SWIN,
    "dots3_note_text": {
        "swa_num_attention_heads": HEADS,
        "swa_num_key_value_heads": HEADS,
        "swa_q_lora_rank": 24,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 24,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 16,
    },
    "esmc": {"num_key_value_heads": HEADS},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 2 * WIDTH},
    "gemma3n_text": SHARED_KEYS,
    "gemma4_text": {**SHARED_KEYS, "global_head_dim": 32},
    "gemma4_assistant": {"text_config": ALL_SHARED},
    "gemma4_unified_assistant": {"text_config": ALL_SHARED},
    "gemma4_unified_text": {**SHARED_KEYS, "global_head_dim": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {**MAMBA, "layer_types": ["linear_attention", "full_attention"]},
    "hiera": {
        "embed_dim": 16,
        "image_size": (64, 64),
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 2, 4, 4),
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "led": {"attention_window": 8},
    "levit": {
        "image_size": 128,
        "patch_size": 16,
        "hidden_sizes": (32, 48, 64),
        "num_attention_heads": (2, 3, 4),
        "depths": (1, 1, 1),
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama4_text": {"use_qk_norm": False},  # which leaves no scale to choose
    "longformer": {"attention_window": 8},
    "mamba2": {"head_dim": 2 * WIDTH // HEADS},
    "minicpm3": {"dim_model_base": WIDTH},
    "mobilevit": {
        "image_size": 128,
        "patch_size": 2,
        "hidden_sizes": (32, 48, 64),
        "neck_hidden_sizes": (8, 8, 16, 32, 32, 48, 64),
    },
    "musicgen_decoder": {"num_codebooks": 1},
    "musicgen_melody_decoder": {"num_codebooks": 1},
    "mobilevitv2": {"image_size": 128, "patch_size": 2},
    "nemo_speechlm": {"text_config": {"hybrid_override_pattern": "ME*"}},
    "nemotron3_diarization": {"head_config": {"audio_hidden_size": WIDTH}},
    "modernbert-decoder": {"local_attention": 10},
    "modernbert": {"local_attention": 10},
    "pvt": {**PYRAMID, "image_size": 64, "sequence_reduction_ratios": (4, 2, 1, 1)},
    "pvt_v2": {**PYRAMID, "image_size": 64, "sr_ratios": (4, 2, 1, 1)},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": WIDTH // HEADS,
        "indexer_budget": 4,
        "indexer_compress_ratio": 2,
        "ngram_vocab_size_base": VOCABULARY,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {"attn_layers": ["local", "lsh"], "axial_pos_embds": False},
    "segformer": {**PYRAMID, "sr_ratios": (4, 2, 1, 1)},
    "shieldgemma2": {"mm_tokens_per_image": 4, "yes_token_index": 21, "no_token_index": 22},
    "siglip2_vision_model": {"num_patches": 16},
    "swin": SWIN,
    "swinv2": SWIN,
    "vibevoice_acoustic_tokenizer_encoder": {"num_filters": 4, "depths": (1,) * 7},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "num_hidden_layers": 3,
        "attention_hidden_size": 2 * WIDTH,
        "attention_head_dim": 2 * WIDTH // HEADS,
        "num_key_value_heads": HEADS,
    },
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3},
    "zaya": {"num_experts_per_tok": 1, "layer_types": ["hybrid", "hybrid_sliding"]},
}


def settings(cls: Any, kind: str) -> dict[str, Any]:
    """What makes a configuration of this class small: its own fields only, its sub-configurations included."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    chosen: dict[str, Any] = {}
    special = iter(range(6, FIRST_TOKEN))
    for name, field in fields.items():
        if name in cls.sub_configs:
            continue
        default = None if field.default is dataclasses.MISSING else field.default
        if name in NAMED and not isinstance(default, tuple | list | dict):
            chosen[name] = type(default)(NAMED[name]) if isinstance(default, bool | float) else NAMED[name]
        elif name in TOKENS:
            chosen[name] = TOKENS[name]
        elif name.endswith(("_token_id", "_token_index", "_index")) and isinstance(default, int) and default > 5:
            chosen[name] = next(special)
    if "kv_lora_rank" in fields and "num_key_value_heads" in chosen:
        chosen["num_key_value_heads"] = HEADS  # latent keys are expanded for every head
    if "is_decoder" in fields and kind == "causal":
        chosen["is_decoder"] = True
    by_hand = BY_HAND.get(cls.model_type, {})
    for name in cls.sub_configs:
        spec = cls.sub_configs_defaults.get(name)
        inner, usual = cls.sub_configs[name], dict(spec.init_kwargs) if spec else {}
        if not hasattr(inner, "model_type"):
            usual["model_type"] = usual.get("model_type", spec.model_type)
            inner = CONFIG_MAPPING[usual["model_type"]]
        chosen[name] = {**usual, **settings(inner, kind), **by_hand.get(name, {})}
    chosen.update({name: value for name, value in by_hand.items() if name not in cls.sub_configs})
    return {**chosen, **layers(cls, chosen)}


def layers(cls: Any, chosen: dict[str, Any]) -> dict[str, Any]:
    """One layer of each kind that the class's own pattern has, two at least."""
    lists = [name for name in ("layer_types", "mlp_layer_types", "layers_block_type") if hasattr(cls, name)]
    lists = [name for name in lists if name in {field.name for field in dataclasses.fields(cls)} - chosen.keys()]
    if not lists:
        return {}
    try:
        usual = cls(**{name: value for name, value in chosen.items() if name not in ("num_hidden_layers", "n_layer")})
    except Exception:
        return {}
    found = {name: list(dict.fromkeys(getattr(usual, name) or ())) for name in lists}
    found = {name: kinds for name, kinds in found.items() if kinds}
    depth = max([DEPTH, *map(len, found.values())])
    filled = {name: [kinds[min(i, len(kinds) - 1)] for i in range(depth)] for name, kinds in found.items()}
    return {"num_hidden_layers": depth, **filled} if found else {}


def configuration(model_type: str, cls: Any, kind: str) -> Any:
    """A small configuration of a model type for a model class, which may want a part of it only."""
    whole = CONFIG_MAPPING[model_type]
    config = whole(**settings(whole, kind))
    parts = [config, *(getattr(config, name) for name in whole.sub_configs)]
    return next((part for part in parts if type(part) is cls.config_class), config)
