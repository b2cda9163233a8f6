"""A mixture of experts, under every name that its fields go by."""

from tuner.engines.vllm.model.numbers import HIDDEN, INTERMEDIATE, Raw, whole
from tuner.engines.vllm.model.parts import Experts

COUNT = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts", "num_moe_experts")
_ACTIVE = (
    *("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "moe_top_k", "moe_k"),
    *("top_k_experts", "num_selected_experts", "num_experts_per_topk"),
)
_WIDTH = ("moe_intermediate_size", "expert_hidden_dim", "moe_ffn_hidden_size", "expert_ffn_hidden_size")
_SHARED_COUNT = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
_SHARED_WIDTH = (
    *("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size"),
    *("share_expert_dim", "moe_shared_intermediate_size"),
)
_TWO_MATRICES = ("relu2", "relu_squared", "xielu")
"""Activations that are used without a gate."""
_WITHOUT_GATE = (
    *("phi", "starcoder2", "nemotron", "nemotron_h", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "opt", "bloom"),
    *("falcon", "mpt", "arcee", "apertus", "persimmon", "codegen", "gpt_neo"),
)
"""Kinds of models with activations that others use with a gate."""


def experts_of(raw: Raw) -> Experts | None:
    """The experts; ``None`` where there are none, or not all that matters of them is known."""
    count, active = whole(raw, *COUNT), whole(raw, *_ACTIVE)
    own = any(raw.get(key) for key in _WIDTH)
    width = whole(raw, *_WIDTH) if own else whole(raw, *INTERMEDIATE)
    if not (count and active and width) or count == 1:
        return None
    return Experts(count, active, width, _shared(raw, width), matrices(raw), whole(raw, "moe_latent_size"))


def unread(raw: Raw) -> str | None:
    """What of a mixture is not known, where a file speaks of one."""
    wanted = {"experts": COUNT, "experts per token": _ACTIVE}
    spoken = [key for key in (*COUNT, *_WIDTH) if raw.get(key) not in (None, 0, 1, [])]
    if not spoken or experts_of(raw) is not None or raw.get("enable_moe_block") is False:
        return None
    return next((what for what, keys in wanted.items() if whole(raw, *keys) is None), "experts")


def matrices(raw: Raw) -> int:
    """Matrices of an MLP: gate, up and down; without a gate two."""
    activation = raw.get("mlp_hidden_act") or raw.get("hidden_act") or raw.get("activation_function")
    return 2 if raw.get("model_type") in _WITHOUT_GATE or activation in _TWO_MATRICES else 3


def _shared(raw: Raw, width: int) -> int:
    """All shared experts of a layer together; Llama 4 has one of a routed expert's width and names it nowhere."""
    count, own = whole(raw, *_SHARED_COUNT), whole(raw, *_SHARED_WIDTH)
    if str(raw.get("model_type")).startswith("llama4"):
        return width
    if own is not None:
        return own * (count or 1)
    return (count or 0) * width


def mlp_width(raw: Raw) -> int | None:
    """The width of an ordinary MLP; what older kinds of models leave unsaid is four times the hidden width."""
    shared = () if experts_of(raw) else ("shared_intermediate_size",)
    width, hidden = whole(raw, "intermediate_size_mlp", *shared, *INTERMEDIATE), whole(raw, *HIDDEN)
    if width and raw.get("block_auto_adjust_ff_dim"):
        step = whole(raw, "block_multiple_of") or 256
        width = int(2 * width / 3 * float(raw.get("block_ffn_dim_multiplier") or 1))
        return -(-width // step) * step
    if width is None and hidden and raw.get("model_type") in _WITHOUT_GATE:
        return int((raw.get("expansion_ratio") or 4) * hidden)
    return width
