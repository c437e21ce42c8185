"""A server of one's own: the command that starts vLLM for a profile, and a check that it serves the adapter and not the base.

    python -m expstar_utils.serving command ADAPTER [--profile NAME] [--gpus N]
    python -m expstar_utils.serving check ADAPTER [--profile NAME] --url URL
"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from openai import APIError, OpenAI

from expstar_utils.profiles import Profile, load_profile
from expstar_utils.records import ExpStarError
from expstar_utils.runlog import file_hash
from expstar_utils.served import TOP_LOGPROBS, Server, read_reply


def adapter_name(adapter: Path) -> str:
    """Name under which a server should hold an adapter: it changes with the weights, so that no stale copy is served."""
    return f"expstar-{file_hash(Path(adapter) / 'adapter_model.safetensors')[:12]}"


def vllm_command(profile: Profile, adapter: Path, gpus: int = 4) -> str:
    """The command that serves a profile's base and an adapter on one node with vLLM, a copy of the model on each GPU."""
    words = ["vllm", "serve", profile.base, "--host", "127.0.0.1", "--data-parallel-size", str(gpus), "--dtype", profile.dtype,
             "--max-model-len", "32000", "--enable-lora", "--max-lora-rank", "32", "--lora-modules",
             f"{adapter_name(adapter)}={adapter}", "--limit-mm-per-prompt",
             f'{{"image": {profile.max_frames_infer}, "video": 1}}', "--enable-prefix-caching"]
    return shlex.join(words)


def preflight(server: Server, base: str) -> None:
    """Raises ExpStarError unless the server has both models and the adapter's answers differ from the base's.

    An adapter whose keys do not fit is served as the base without a word (vLLM issue 34186).
    """
    client = OpenAI(base_url=server.base_url, api_key=os.environ.get("OPENAI_API_KEY") or "none", timeout=server.timeout_s,
                    max_retries=server.retries)
    try:
        names = {model.id for model in client.models.list()}
        if missing := [name for name in (server.model, base) if name not in names]:
            raise ExpStarError(f"{server.base_url}: serves {sorted(names)}, expected {missing[0]!r}; start it with that model")
        said = [_greedy(client, name, server.logprobs) for name in (server.model, base)]
    except APIError as error:
        raise ExpStarError(f"{server.base_url}: found {str(error)[:120]}, expected a running server; start it") from None
    if said[0] == said[1]:
        raise ExpStarError(f"{server.base_url}: {server.model!r} answers as {base!r} does, expected an adapter that changes "
                           "something; check the names of its weights (`base_model.model.` and the layers') in the server's log")


def _greedy(client: OpenAI, model: str, logprobs: bool) -> tuple[str, tuple]:
    told = {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if logprobs else {}
    asked = [{"role": "user", "content": "Comment on the current step of \"Burning a Gas\"."}]
    reply = read_reply(client.chat.completions.create(model=model, messages=asked, max_tokens=16, temperature=0, **told))
    return reply.text, tuple((text, tuple(sorted(found.items()))) for text, found in reply.tokens)


def main() -> None:
    """Print the command, or check a running server; ends with status 1 when the adapter is not served."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("command", "check"))
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    given = parser.parse_args()
    try:
        profile, name = load_profile(given.profile), adapter_name(given.adapter)
        if given.what == "command":
            print(vllm_command(profile, given.adapter, given.gpus))
            print(f"# endpoint_model: {name}")
        else:
            preflight(Server(given.url, name), profile.base)
            print(f"{given.url} serves {name}, and it differs from {profile.base}")
    except (ExpStarError, FileNotFoundError) as error:
        raise SystemExit(f"expstar: {error}") from None


if __name__ == "__main__":
    main()
