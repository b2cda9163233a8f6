"""tuner against aiperf or guidellm on one running server, in turns: prints the ratio of what they report.

    python -m tests.bench.peers URL MODEL TOKENIZER [--tool aiperf] [--pairs 8] [--python VENV/bin/python]

Each tool gets an environment of its own in a temporary folder (``--python`` takes one that has it already): their
pins are not tuner's. Start the server without a prefix cache; tests/test_real_vllm_agreement.py shows how.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.agreement import TRAFFIC, Pairs, Tuner
from tuner.load.client import LoadClient

PINS = {"aiperf": ("aiperf==0.13.0",), "guidellm": ("guidellm==0.8.1",)}


@dataclass(frozen=True)
class Peer:
    """One of the tools.

    Attributes:
        tool: Its name.
        bin: Where its programs are.
        url: The server.
        model: The model's name.
        tokenizer: Folder of its tokenizer.
    """

    tool: str
    bin: Path
    url: str
    model: str
    tokenizer: str

    def __call__(self) -> Mapping[str, float]:
        """One run; what it reports, by tuner's names of the metrics."""
        with tempfile.TemporaryDirectory() as folder:
            arguments, read = {"aiperf": (self._aiperf, _of_aiperf), "guidellm": (self._guidellm, _of_guidellm)}[
                self.tool
            ]
            env = {**os.environ, "HF_HOME": f"{folder}/hf", "HF_HUB_OFFLINE": "1"}
            command = [str(self.bin / self.tool), *arguments(Path(folder))]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=env)
            if done.returncode:
                raise SystemExit(f"{self.tool} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
            return read(Path(folder))

    def _aiperf(self, folder: Path) -> list[str]:
        # it takes tokenizers from the Hugging Face cache alone
        cached = folder / "hf" / "hub" / "models--local--tokenizer"
        (cached / "snapshots").mkdir(parents=True)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("main")
        (cached / "snapshots" / "main").symlink_to(Path(self.tokenizer).resolve())
        return [
            *("profile", "--model", self.model, "--url", self.url, "--endpoint-type", "chat", "--streaming"),
            *("--tokenizer", "local/tokenizer", "--isl", "100", "--osl", f"{TRAFFIC.output_tokens}"),
            *("--extra-inputs", "ignore_eos:true", "--extra-inputs", f"temperature:{TRAFFIC.temperature}"),
            *("--concurrency", f"{TRAFFIC.concurrency}", "--request-count", f"{TRAFFIC.requests}"),
            *("--use-server-token-count", "--output-artifact-dir", str(folder), "--ui", "simple"),
        ]

    def _guidellm(self, folder: Path) -> list[str]:
        server = f"kind=openai_http,target={self.url},model={self.model},request_format=/v1/chat/completions"
        return [
            *("run", "--backend", server, "--tokenizer", f"kind=hf_auto,model={self.tokenizer}"),
            *("--data", f"kind=synthetic_text,prompt_tokens=100,output_tokens={TRAFFIC.output_tokens}"),
            *("--profile", f"kind=concurrent,streams={TRAFFIC.concurrency}"),
            *("--constraint", f"kind=max_requests,count={TRAFFIC.requests}"),
            *("--output", f"kind=json,path={folder / 'out.json'}", "--disable-console-interactive"),
        ]


def _of_aiperf(folder: Path) -> Mapping[str, float]:
    """Its ITL is a mean over each request: what is called TPOT here."""
    told = json.loads(next(folder.rglob("profile_export_aiperf.json")).read_text())
    return {
        "output_tokens_per_s": told["output_token_throughput"]["avg"],
        "concurrent_tpot_p50_ms": told["inter_token_latency"]["p50"],
        "ttft_p50_ms": told["time_to_first_token"]["p50"],
    }


def _of_guidellm(folder: Path) -> Mapping[str, float]:
    """Its ITL is a mean over each request, its TPOT counts the first token in; its rate is over the whole run."""
    run = json.loads((folder / "out.json").read_text())["benchmarks"][0]
    metrics = run["metrics"]
    tokens = metrics["output_token_count"]["successful"]["total_sum"]
    return {
        "output_tokens_per_s": tokens / run["duration"],
        "concurrent_tpot_p50_ms": metrics["inter_token_latency_ms"]["successful"]["median"],
        "ttft_p50_ms": metrics["time_to_first_token_ms"]["successful"]["median"],
    }


def environment(tool: str, folder: Path) -> Path:
    """An environment that has the tool; returns where its programs are."""
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *PINS[tool]], check=True)
    return folder / "bin"


def main() -> None:
    """Compare, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("tokenizer")
    parser.add_argument("--tool", choices=PINS, default="aiperf")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--python", type=Path, help="of an environment that has the tool already")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, LoadClient() as client:
        place = asked.python.parent if asked.python else environment(asked.tool, Path(folder))
        peer = Peer(asked.tool, place, asked.url, asked.model, asked.tokenizer)
        pairs = Pairs(Tuner(client, asked.url, asked.model), peer)
        pairs.ours(), peer()
        pairs.run_in_turns(asked.pairs, asked.tool)
    print(f"tuner over {asked.tool}:\n{pairs}")
    sys.exit(bool(pairs.disagreeing))


if __name__ == "__main__":
    main()
