"""The signs in a vLLM log that a setting was rejected: by the parser, by the configuration, by its checks.

A wrong case that is accepted: a ``ValueError`` that vLLM's configuration raises about a damaged model is called a bad
flag.
"""

from tuner.engines.causes import Cause
from tuner.engines.log import platform
from tuner.engines.log.signs import Rank, Sign

_FIX_FLAG = "Correct or drop the flag; `vllm serve --help=all` lists what this version takes."
_FIX_VALUE = "Give the setting a value that the message allows."
_CONFIG_REJECTED = r"validation errors? for \w*(?:Config|Args)\b"

SIGNS: tuple[Sign, ...] = (
    Sign(
        Cause.BAD_FLAG,
        Rank.EXACT,
        (
            r"\berror: (?:unrecognized arguments|argument \S|the following arguments are required|ambiguous option)",
            r"^(?:\S+\.py|vllm(?: \w+)*): error: ",
        ),
        _FIX_FLAG,
        "argparse",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.EXACT,
        (
            r"User-specified max_model_len \((?P<max_model_len>\d+)\) is greater than the derived max_model_len "
            r"\(\w+=(?P<derived_max_model_len>[\d.]+)",
        ),
        "Lower max_model_len to the derived one.",
        "0.6-0.33",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.EXACT,
        (
            r"max_num_batched_tokens \((?P<max_num_batched_tokens>\d+)\) must be greater than or equal to max_num_seqs "
            r"\((?P<max_num_seqs>\d+)\)",
        ),
        "Raise max_num_batched_tokens to at least max_num_seqs.",
        "0.6-0.33",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.EXACT,
        (
            r"max_num_batched_tokens \((?P<max_num_batched_tokens>\d+)\) is smaller than max_model_len "
            r"\((?P<max_model_len>\d+)\)",
        ),
        "Raise max_num_batched_tokens to max_model_len, or leave chunked prefill on.",
        "0.6-0.33",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.EXACT,
        (
            r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size "
            r"\((?P<tensor_parallel_size>\d+)\)",
        ),
        platform.FEWER_RANKS,
        "0.6-0.33",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.EXACT,
        (
            r"World size \((?P<world_size>\d+)\) is larger than the number of available GPUs \((?P<gpus>\d+)\)",
            r"please set tensor_parallel_size \((?P<tensor_parallel_size>\d+)\) to less than",
            r"please ensure that world_size|exceeds the number of visible \w+ devices",
        ),
        platform.FEWER_RANKS,
        "0.6-0.33",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.KNOWN,
        (
            r"is not divisible by \d+$",
            r"(?:must be|not) divisible by (?:the )?"
            r"(?:number of |tensor|pipeline|expert|world|\w*(?:tp|pp|ep|dp)_?\w*size)",
            r"can be caused by too large tensor parallel size|divisible by weight quantization block_n",
        ),
        platform.FEWER_RANKS,
        "0.6-0.33",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.EXACT,
        (
            r"invalid (?:tool call|reasoning) parser|--enable-auto-tool-choice requires|is greater than max_lora_rank",
            r"GPU memory utilization must be less than|The supplied chat template .* (?:file path|path-like)",
            r"VLLM_PORT '[^']*' appears to be a URI|Invalid value '[^']*' for VLLM_",
            r"Unknown (?:load_format|dtype|kv cache dtype|tokenizer mode)\b|Invalid (?:kv cache dtype|middleware)",
            r"should (?:be provided|provide the model) as (?:a|the first) positional argument",
            r"max_cudagraph_capture_size should be|compile_sizes contains|Can't determine cudagraph shapes",
            r"Invalid (?:mamba )?attention backend(?! for)|Invalid environment variable VLLM_|ArgumentTypeError: ",
            r"model_loader_extra_config must be|(?:argument|option|setting) `?trust_remote_code=True",
            r"No such file or directory: '[^']*\.(?:ya?ml|jinja\d?)'",
            r"requires you to execute the \w+ file in that repo|contains custom code which must be executed",
        ),
        _FIX_VALUE,
        "0.6-0.33",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.FAMILY,
        (r"\b\w*(?:Engine|LLM)\w*\.?(?:__init__)?\(\) got an unexpected keyword argument",),
        _FIX_FLAG,
        "0.6-0.33",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.KNOWN,
        (
            r"^\s*Value error, (?!Model architectures )|^\s*Assertion failed, |^\s*Input should be ",
            r"^\s*Extra inputs are not|^\s*Unexpected keyword argument",
        ),
        "Give {above} a value that the message allows.",
        "0.10-0.33, pydantic",
        after=_CONFIG_REJECTED,
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.KNOWN,
        (r"Value error, (?!Model architectures ).*\[type=\w+, input_value=ArgsKwargs\(",),
        _FIX_VALUE,
        "0.10-0.33: only configuration classes are built from ArgsKwargs",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.FAMILY,
        (r"^\s*(?:ValueError|AssertionError|TypeError|KeyError|NotImplementedError|json\S*JSONDecodeError)\b",),
        _FIX_VALUE,
        "0.6-0.33",
        raised_in=(
            r"vllm/(?:config(?:/\w+)?\.py|engine/arg_utils\.py|entrypoints/openai/cli_args\.py|entrypoints/cli/"
            r"|utils/argparse_utils\.py|platforms/\w+\.py)"
        ),
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.AFTERMATH,
        (_CONFIG_REJECTED,),
        _FIX_VALUE,
        "0.10-0.33, where what follows is cut off",
    ),
    Sign(
        Cause.BAD_FLAG,
        Rank.FAMILY,
        (
            r"^\s*(?:ValueError|AssertionError|RuntimeError): .*(?:\s|`|')--[a-z][a-z-]{3,}\b",
            r"^\s*(?:ValueError|AssertionError): [`']?[a-z]+(?:_[a-z]+)+[`']? (?:must|should|has to|cannot) be\b",
            r"^\s*(?:ValueError|AssertionError): .*(?:cannot be (?:used|combined|enabled) with|mutually exclusive)",
        ),
        _FIX_VALUE,
        "0.6-0.33: a message that names a flag, or a setting and what it must be",
    ),
)
"""All of them; the widest come last."""
