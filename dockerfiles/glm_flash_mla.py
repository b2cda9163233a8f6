"""Makes the vLLM that is installed here treat GLM-4.7-Flash as the MLA model that it is, and checks that it does.

Run while the image is built. Nothing is changed where vLLM knows already (vllm#32614); the build ends where it cannot
be fixed. vLLM's own function is asked, cut out of its file, since importing vLLM wants a GPU's libraries.
"""

import ast
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

MODEL_TYPES = ("glm4_moe_lite", "glm4_moe_lite_mtp")
NEIGHBOUR = '"deepseek_v3",'


def main() -> None:
    """Check, fix, check."""
    package = _package()
    if not (package / "model_executor/models/glm4_moe_lite.py").exists():
        sys.exit("this vLLM does not have GLM-4.7-Flash at all: build on 0.15 or newer")
    path = package / "transformers_utils/model_arch_config_convertor.py"
    if all(is_mla(path.read_text(), name) for name in MODEL_TYPES):
        sys.stdout.write("vLLM takes GLM-4.7-Flash for an MLA model: nothing to patch\n")
        return
    patched = patch(path.read_text())
    if not all(is_mla(patched, name) for name in MODEL_TYPES):
        sys.exit(f"{path} has changed its shape: the patch does not make GLM-4.7-Flash an MLA model any more")
    path.write_text(patched)
    sys.stdout.write(f"patched {path}\n")


def _package() -> Path:
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("there is no vLLM in this base image")
    return Path(spec.submodule_search_locations[0])


def patch(source: str) -> str:
    """The names put into the list that ``is_deepseek_mla`` asks, in addition to DeepSeek's."""
    start = source.find("def is_deepseek_mla")
    at = source.find(NEIGHBOUR, start)
    if start < 0 or at < 0:
        return source
    return source[:at] + "".join(f'"{name}", ' for name in MODEL_TYPES) + source[at:]


def is_mla(source: str, model_type: str) -> bool:
    """What vLLM's own ``is_deepseek_mla`` says of a model of that type."""
    tree = ast.parse(source)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "is_deepseek_mla"]
    if not found:
        return False
    scope: dict[str, object] = {}
    exec(compile(ast.Module(body=[found[0]], type_ignores=[]), "is_deepseek_mla", "exec"), scope)
    config = SimpleNamespace(model_type=model_type, kv_lora_rank=512)
    ask = scope["is_deepseek_mla"]
    return callable(ask) and bool(ask(SimpleNamespace(hf_text_config=config, hf_config=config)))


if __name__ == "__main__":
    main()
