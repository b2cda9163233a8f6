"""Fields of a ``config.json`` that look like architecture, and are not understood.

A formula that leaves one out is silently wrong, by a factor of fifteen where it is the name of the experts. So what is
read is listed, and so is what changes neither weights nor cache; anything else whose name speaks of layers, heads,
experts or states makes the answer unknown.
"""

import re
from collections.abc import Iterator
from typing import Any

from tuner.engines.vllm.model.numbers import Raw

_STRUCTURAL = re.compile(
    r"expert|moe|mamba|ssm|linear_|attn|attention|_kv|kv_|lora_rank|head|layer|mlp|ffn|intermediate|latent|n_group"
    r"|hidden_size|inner|compress|index|_ple|per_layer|altup|laurel|engram|memor|recurren|state_size|hybrid|block_conf"
    r"|cross|share|cla_|loop|adapter|conv"
)
_HARMLESS = re.compile(
    r"dropout|drop_rate|_eps|epsilon|init|scal|bias|norm|_act|act_|activation|rope|theta|rotary|token|loss|jitter|aux"
    r"|router|routed?_|topk_method|topk_group|score|scoring|softcap|cap_|_cap|_impl|dtype|use_cache|temperature"
    r"|multiplier|freq|prob|limit|clip|chunk|pretrain|train|dt_|_dt|time_step|A_init|flash|sink|bidirectional|causal"
    r"|mask|sparsity|sensitiv|labels|summary|special|classif|seed|version|parallel|recompute|checkpoint|n_group$"
    r"|prefetch|kernel_type|deterministic|quant|image|vision|video|audio|mm_|projector|multi_modal|gradient|penalty"
    r"|residual|nope|softmax|z_loss|balanc|capacity|backend|fuse|output_|pooling|window|gate|mup|depth|nextn|mtp"
    r"|overlap|combine|fp32|projection|alignment|allow|use_mlp|switch|mixed|xavier|logits|kernels|all2all|dispatch"
    r"|expansion|vit_|select_layer|anyres|_lora$|_type$|skipped|drop_tokens|_file|_path|interleaved"
)
_READ = frozenset(
    {
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "hidden_size", "num_attention_heads", "n_head"),
        *("n_heads", "num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num", "head_dim"),
        *("attention_head_dim", "kv_channels", "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim"),
        *("block_ff_dim", "intermediate_size_mlp", "n_routed_experts", "num_experts", "num_local_experts"),
        *("moe_num_experts", "num_moe_experts", "num_experts_per_tok", "num_experts_per_token", "experts_per_token"),
        *("moe_topk", "moe_top_k", "moe_k", "top_k_experts", "num_selected_experts", "moe_intermediate_size"),
        *("expert_hidden_dim", "moe_ffn_hidden_size", "expert_ffn_hidden_size", "n_shared_experts", "moe_layer_num"),
        *("num_shared_experts", "moe_num_shared_experts", "num_shared_expert", "shared_expert_intermediate_size"),
        *("moe_shared_expert_intermediate_size", "shared_intermediate_size", "share_expert_dim", "moe_latent_size"),
        *("moe_shared_intermediate_size", "first_k_dense_replace", "moe_layer_start_index", "num_dense_layers"),
        *("n_dense_layers", "moe_layer_end_index", "mlp_only_layers", "mlp_layer_types", "moe_layers_enum"),
        *("moe_layers", "expert_layer_period", "expert_layer_offset", "decoder_sparse_step", "moe_layer_interval"),
        *(
            "interleave_moe_layer_step",
            "layer_types",
            "layers_block_type",
            "hybrid_override_pattern",
            "layer_group_size",
        ),
        *("attn_type_list", "linear_attn_config", "full_attention_interval", "attn_layer_period", "enable_moe_block"),
        *("attn_layer_offset", "full_attn_idxs", "attn_layer_indices", "hybrid_layer_pattern", "max_window_layers"),
        *("no_rope_layers", "no_rope_layer_interval", "block_configs", "num_kv_shared_layers", "use_double_wide_mlp"),
        *("kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "qk_head_dim"),
        *("index_topk", "index_head_dim", "index_n_heads", "attn_output_gate", "global_head_dim", "attn_config"),
        *("num_global_key_value_heads", "attention_k_eq_v", "attention_other_setting", "num_attention_groups"),
        *("swa_num_attention_heads", "swa_num_key_value_heads", "swa_head_dim", "swa_v_head_dim", "mamba_num_heads"),
        *("mamba_n_heads", "n_mamba_heads", "mamba_d_ssm", "mamba_expand", "mamba_head_dim", "mamba_d_head"),
        *("mamba_headdim", "ssm_state_size", "mamba_d_state", "mamba_n_groups", "mamba_ngroups", "conv_kernel"),
        *("mamba_d_conv", "mamba_dt_rank", "state_size", "linear_num_key_heads", "linear_num_value_heads", "n_groups"),
        *("linear_key_head_dim", "linear_value_head_dim", "linear_conv_kernel_dim", "conv_L_cache", "conv_dim"),
        *("hidden_size_per_layer_input", "vocab_size_per_layer_input", "laurel_rank", "altup_num_inputs"),
        *(
            "altup_active_idx",
            "linear_head_dim",
            "linear_num_heads",
            "indexer_types",
            "global_attn_every_n_layers",
            "hidden_size_per_head",
            "use_sliding_window",
        ),
    }
)
_WITHOUT_WEIGHT = frozenset(
    {
        *("model_type", "architectures", "attention_type", "moe_group", "expert_selection_fn", "num_groups"),
        *("use_qk_norm", "head_dtype", "mamba_chunk_size", "hybrid_attention_type", "num_experts_per_group"),
        *("moe_layer_freq", "prune_heads", "mlp_type"),
        *("position_embedding_type", "attn_mechanism", "use_mla", "moe_use_hardware_gate", "layer_wise_quant"),
        *("attention_window_type", "use_mamba_kernels", "use_mamba_mixer", "moe_every_n_layers", "is_moe"),
        *("tie_encoder_decoder", "cross_layer_attention", "ep_size", "cla_share_factor", "moe_router_topk"),
        *("conv_dim_out", "use_head", "num_heads", "per_layer_config", "moe_layer_num_skipped", "num_expert_group"),
    }
)
_CHANGES = frozenset(
    {
        *("index_topk_freq", "index_topk_pattern", "compress_ratios", "use_cla", "add_cross_attention"),
        *("num_mem_blocks", "loop_num", "hybrid_layer_ids", "zero_expert_num"),
    }
)
"""What is known to change them in a way that is not computed here."""


def not_understood(raw: Raw) -> Iterator[str]:
    """The names of fields that might change weights or cache, and of which nothing is known here."""
    for name, value in raw.items():
        if _says_something(value) and (name in _CHANGES or (_STRUCTURAL.search(name) and not _known(name))):
            yield name


def _known(name: str) -> bool:
    return name in _READ or name in _WITHOUT_WEIGHT or _HARMLESS.search(name) is not None


def _says_something(value: Any) -> bool:
    """Whether a field is more than absent, off, or a word."""
    return value is True or (bool(value) and not isinstance(value, str | float) and value not in (1, -1))
