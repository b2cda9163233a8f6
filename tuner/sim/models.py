"""Model architectures: how many weights, how many bytes of KV cache a token, how much work a token.

A model is found by name (a substring of what the command line says) or read from a ``config.json`` in a directory,
as vLLM does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HALF = 2.0
"""Bytes of a half-precision weight."""
AWQ_GROUP_128 = 0.5195
"""Bytes of a 4-bit weight with a half-precision scale and a 4-bit zero for every 128."""
BUFFER_BYTES = 0.05 * (1 << 30)
"""Rotary tables and other buffers that come with the weights: logged minus computed in both H100 runs."""


class UnknownModel(ValueError):
    """No architecture is known by that name, and no directory of that name holds a ``config.json``."""


@dataclass(frozen=True, slots=True)
class Mla:
    """Multi-head latent attention: what is cached is one latent vector a token, whatever the number of heads."""

    q_rank: int
    kv_rank: int
    nope: int
    rope: int
    v: int


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts.

    Attributes:
        count: Routed experts in a layer.
        active: Routed experts that a token visits.
        shared: Experts that every token visits besides.
        intermediate: Width of one expert.
        dense_layers: Leading layers that have an ordinary MLP instead.
        weight_bytes: Bytes of one weight of a routed expert.
    """

    count: int
    active: int
    shared: int
    intermediate: int
    dense_layers: int
    weight_bytes: float = HALF


@dataclass(frozen=True, slots=True)
class Model:
    """One architecture with its quantization.

    Attributes:
        name: The preset's name or the model's path.
        architecture: As vLLM resolves it.
        layers: All layers.
        cached_layers: Layers that keep keys and values; fewer than ``layers`` in hybrid models.
        hidden: Width of the residual stream.
        vocab: Size of the vocabulary.
        heads: Query heads.
        kv_heads: Key and value heads; ignored under MLA.
        head_dim: Width of one head; ignored under MLA.
        intermediate: Width of the ordinary MLP.
        max_position: Longest context the model was trained for.
        mla: Latent attention, or ``None``.
        experts: Mixture of experts, or ``None``.
        linear_bytes: Bytes of one weight of the linear layers other than routed experts.
        quantization: As vLLM names it, or ``None``.
        tied_embeddings: Whether the output head shares the embedding's weights.
        kernel_efficiency: How well the model's kernels do against the GPU's usual ones.
        batch_slope: Extra time of reading weights for each further token of a small batch: kernels that work row by
            row.
        launch_factor: How many times the usual number of kernels one layer launches.
    """

    name: str
    architecture: str
    layers: int
    hidden: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    max_position: int
    cached_layers: int = 0
    mla: Mla | None = None
    experts: Experts | None = None
    linear_bytes: float = HALF
    quantization: str | None = None
    tied_embeddings: bool = False
    kernel_efficiency: float = 1.0
    batch_slope: float = 0.0
    launch_factor: float = 1.0

    @property
    def attention_params(self) -> int:
        """Weights of one layer's attention."""
        if self.mla is None:
            return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        mla = self.mla
        queries = self.hidden * mla.q_rank + mla.q_rank * self.heads * (mla.nope + mla.rope)
        latent = self.hidden * (mla.kv_rank + mla.rope) + mla.kv_rank * self.heads * (mla.nope + mla.v)
        return queries + latent + self.heads * mla.v * self.hidden

    @property
    def expert_layers(self) -> int:
        """Layers with routed experts."""
        return self.layers - self.experts.dense_layers if self.experts else 0

    @property
    def expert_params(self) -> int:
        """Weights of one routed expert in one layer."""
        return 3 * self.hidden * self.experts.intermediate if self.experts else 0

    @property
    def dense_params(self) -> int:
        """Weights outside attention, routed experts and embeddings: MLPs, shared experts, routers."""
        mlp = 3 * self.hidden * self.intermediate * (self.layers - self.expert_layers)
        if self.experts is None:
            return mlp
        return mlp + self.expert_layers * (self.experts.shared * self.expert_params + self.hidden * self.experts.count)

    @property
    def head_params(self) -> int:
        """Weights of the output head; as many as the embedding's."""
        return self.vocab * self.hidden

    def weight_bytes(self, tp: int, pp: int) -> float:
        """GPU memory of the weights on the fullest GPU, in bytes.

        Args:
            tp: Tensor-parallel size: everything is sharded.
            pp: Pipeline-parallel size: layers are divided, the embeddings sit at both ends.
        """
        layers = -(-self.layers // pp) / self.layers
        linear = (self.attention_params * self.layers + self.dense_params) * self.linear_bytes
        embeddings = self.head_params * HALF * (1 if self.tied_embeddings or pp > 1 else 2)
        return ((linear + self.routed_bytes) * layers + embeddings) / tp + BUFFER_BYTES

    @property
    def routed_bytes(self) -> float:
        """Bytes of all routed experts of all layers."""
        if self.experts is None:
            return 0.0
        return self.expert_layers * self.experts.count * self.expert_params * self.experts.weight_bytes

    def step_bytes(self, distinct_experts: float) -> float:
        """Bytes of weights that one step must read, all GPUs together.

        Args:
            distinct_experts: How many experts of a layer the batch visits.
        """
        linear = (self.attention_params * self.layers + self.dense_params) * self.linear_bytes
        routed = self.routed_bytes * distinct_experts / self.experts.count if self.experts else 0.0
        return linear + routed + self.head_params * HALF

    @property
    def token_flops(self) -> float:
        """Operations of the linear layers for one token, all GPUs together, without the output head."""
        routed = self.expert_layers * self.experts.active * self.expert_params if self.experts else 0
        return 2.0 * (self.attention_params * self.layers + self.dense_params + routed)

    @property
    def pair_flops(self) -> float:
        """Operations of attention for one pair of query and key, all layers and GPUs."""
        width = self.mla.nope + self.mla.rope + self.mla.v if self.mla else 2 * self.head_dim
        return 2.0 * self.heads * width * self.layers_with_cache

    @property
    def context_flops(self) -> float:
        """Operations to up-project one cached token of context in an MLA prefill; zero without MLA."""
        if self.mla is None:
            return 0.0
        return 2.0 * self.mla.kv_rank * self.heads * (self.mla.nope + self.mla.v) * self.layers_with_cache

    @property
    def layers_with_cache(self) -> int:
        """Layers that keep keys and values."""
        return self.cached_layers or self.layers

    def kv_bytes(self, element_bytes: float, use_mla: bool, tp: int) -> float:
        """KV cache of one token in all layers, on one tensor-parallel rank, in bytes.

        MLA's latent is replicated on every rank (54,144 bytes for GLM-4.7-Flash); without MLA the heads are sharded.
        """
        if self.mla is not None and use_mla:
            return self.layers_with_cache * (self.mla.kv_rank + self.mla.rope) * element_bytes
        if self.mla is not None:
            return self.layers_with_cache * self.heads * 2 * (self.mla.nope + self.mla.rope) * element_bytes / tp
        return self.layers_with_cache * max(self.kv_heads / tp, 1.0) * 2 * self.head_dim * element_bytes


_GLM_MLA = Mla(q_rank=768, kv_rank=512, nope=192, rope=64, v=256)


def _glm(name: str, layers: int = 47, weight_bytes: float = HALF, quantization: str | None = None) -> Model:
    return Model(
        name=name,
        architecture="Glm4MoeLiteForCausalLM",
        layers=layers,
        hidden=2048,
        vocab=154880,
        heads=20,
        kv_heads=20,
        head_dim=256,
        intermediate=10240,
        max_position=202752,
        mla=_GLM_MLA,
        experts=Experts(64, 4, 1, 1536, 1, weight_bytes),
        quantization=quantization,
    )


GLM_FLASH = _glm("glm-4.7-flash")
GLM_FLASH_AWQ = _glm("glm-4.7-flash-awq", weight_bytes=AWQ_GROUP_128, quantization="awq_marlin")
QWEN3_32B_AWQ = Model(
    name="qwen3-32b-awq",
    architecture="Qwen3ForCausalLM",
    layers=64,
    hidden=5120,
    vocab=151936,
    heads=64,
    kv_heads=8,
    head_dim=128,
    intermediate=25600,
    max_position=40960,
    linear_bytes=AWQ_GROUP_128,
    quantization="awq",
    kernel_efficiency=0.74,
    batch_slope=0.145,
)
QWEN3_CODER_NEXT = Model(
    name="qwen3-coder-next",
    architecture="Qwen3NextForCausalLM",
    layers=48,
    cached_layers=12,
    hidden=2048,
    vocab=151936,
    heads=16,
    kv_heads=2,
    head_dim=256,
    intermediate=5120,
    max_position=262144,
    experts=Experts(512, 10, 1, 512, 0, AWQ_GROUP_128),
    linear_bytes=AWQ_GROUP_128,
    quantization="awq_marlin",
    launch_factor=2.65,
)
TINY = Model(
    name="tiny",
    architecture="Qwen3ForCausalLM",
    layers=4,
    hidden=256,
    vocab=32000,
    heads=8,
    kv_heads=4,
    head_dim=32,
    intermediate=1024,
    max_position=32768,
    tied_embeddings=True,
)

_BY_SUBSTRING: tuple[tuple[tuple[str, ...], Model], ...] = (
    (("glm-4.7-flash", "awq"), GLM_FLASH_AWQ),
    (("glm-4.7-flash",), GLM_FLASH),
    (("qwen3-32b-awq",), QWEN3_32B_AWQ),
    (("qwen3-coder-next",), QWEN3_CODER_NEXT),
    (("tiny",), TINY),
)


def find(name: str) -> Model:
    """The architecture that a command line's model argument means.

    Args:
        name: A directory with a ``config.json``, or a name that contains a known model's, in any case.

    Raises:
        UnknownModel: Neither is there.
    """
    config = Path(name) / "config.json"
    if config.is_file():
        return from_config(name, json.loads(config.read_text("utf-8")))
    lowered = name.lower()
    for parts, model in _BY_SUBSTRING:
        if all(part in lowered for part in parts):
            return model
    raise UnknownModel(name)


def from_config(name: str, config: Mapping[str, Any]) -> Model:
    """An architecture from a checkpoint's ``config.json``, in the field names of transformers."""
    heads = int(config["num_attention_heads"])
    hidden = int(config["hidden_size"])
    quantized = _quantization(config)
    return Model(
        name=name,
        architecture=str((config.get("architectures") or ["Qwen3ForCausalLM"])[0]),
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        vocab=int(config["vocab_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        intermediate=int(config.get("intermediate_size") or 4 * hidden),
        max_position=int(config.get("max_position_embeddings") or 32768),
        mla=_mla(config),
        experts=_experts(config, AWQ_GROUP_128 if quantized else HALF),
        linear_bytes=AWQ_GROUP_128 if quantized and not config.get("n_routed_experts") else HALF,
        quantization="awq_marlin" if quantized else None,
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _quantization(config: Mapping[str, Any]) -> bool:
    return int((config.get("quantization_config") or {}).get("bits", 16)) == 4


def _mla(config: Mapping[str, Any]) -> Mla | None:
    if not config.get("kv_lora_rank"):
        return None
    return Mla(
        q_rank=int(config.get("q_lora_rank") or 0),
        kv_rank=int(config["kv_lora_rank"]),
        nope=int(config["qk_nope_head_dim"]),
        rope=int(config["qk_rope_head_dim"]),
        v=int(config["v_head_dim"]),
    )


def _experts(config: Mapping[str, Any], weight_bytes: float) -> Experts | None:
    count = config.get("n_routed_experts") or config.get("num_experts")
    if not count:
        return None
    return Experts(
        count=int(count),
        active=int(config.get("num_experts_per_tok") or 1),
        shared=int(config.get("n_shared_experts") or 0),
        intermediate=int(config["moe_intermediate_size"]),
        dense_layers=int(config.get("first_k_dense_replace") or 0),
        weight_bytes=weight_bytes,
    )
