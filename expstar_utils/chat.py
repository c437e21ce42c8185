"""One JSON object from a chat model behind any OpenAI-compatible endpoint: checked, asked for again if useless, kept, counted."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from expstar_utils.files import describe, read_json, read_yaml, write_json
from expstar_utils.records import ExpStarError

A = TypeVar("A", bound=BaseModel)


@dataclass
class Usage:
    """What the endpoint was asked for. answers: got; kept: taken from the disk instead. prices: currency per million tokens."""

    answers: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prices: tuple[float, float] = (0.0, 0.0)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def cost(self) -> float:
        return (self.prompt_tokens * self.prices[0] + self.completion_tokens * self.prices[1]) / 1e6

    def add(self, **counts: int) -> None:
        """Count; safe from several threads."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)


class Chat:
    """A chat model; one object serves several threads.

    Args:
        base_url: of the endpoint, such as "http://127.0.0.1:8000/v1". model: its name there.
        cache: folder where every usable answer is kept by the hash of what was asked.
        again: what is said after an answer that cannot be used, with a place for the `{fault}`.
        api_key: None takes the environment's OPENAI_API_KEY; a server of one's own needs none. timeout_s: of one request.
        retries: how often a request is repeated, with growing pauses, when the endpoint is down, slow or overloaded.
        attempts: how often an answer that cannot be used is asked for again, with what was wrong with it.
    """

    def __init__(self, base_url: str, model: str, cache: Path, again: str, *, api_key: str | None = None,
                 timeout_s: float = 120.0, retries: int = 5, attempts: int = 3, prices: tuple[float, float] = (0.0, 0.0)):
        from openai import OpenAI  # half a second, which annotation without an endpoint would wait for
        key = api_key or os.environ.get("OPENAI_API_KEY") or "none"  # the client refuses to start without any
        self.client = OpenAI(base_url=base_url, api_key=key, timeout=timeout_s, max_retries=retries)
        self.base_url, self.model, self.cache, self.attempts = base_url, model, Path(cache), attempts
        self.again, self.usage = again, Usage(prices=prices)

    def ask(self, name: str, instruction: str, asked: Any, shape: type[A], check: Callable[[A], None]) -> A:
        """The model's answer to a question.

        Args:
            name: what the question is about, for messages. asked: the question, plain JSON. shape: of the answer.
            check: raises ValueError for an answer of the right shape that cannot be used; says what is wrong with it.

        Raises:
            ExpStarError: the endpoint does not answer, or it gives no usable answer.
        """
        question = json.dumps(asked, ensure_ascii=False)
        key = hashlib.sha256(f"{self.model}\0{instruction}\0{question}".encode()).hexdigest()
        kept = self.cache / f"{key}.json"
        if kept.is_file():
            self.usage.add(kept=1)
            return shape.model_validate(read_json(kept))
        answer = self._asked(name, instruction, question, shape, check)
        write_json(kept, answer.model_dump())
        return answer

    def _asked(self, name: str, instruction: str, question: str, shape: type[A], check: Callable[[A], None]) -> A:
        from openai import APIError
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": question}]
        schema = {"type": "json_schema", "json_schema": {"name": shape.__name__, "schema": shape.model_json_schema()}}
        fault = ""
        for _ in range(self.attempts):
            try:
                reply = self.client.chat.completions.create(model=self.model, messages=messages, response_format=schema)
            except APIError as error:
                raise ExpStarError(f"{name}: {self.base_url} gives no answer ({_short(error)}), expected a chat completion; "
                                   "start the server, or check address, key and model") from None
            text = (reply.choices[0].message.content if reply.choices else "") or ""
            if reply.usage:
                self.usage.add(prompt_tokens=reply.usage.prompt_tokens, completion_tokens=reply.usage.completion_tokens)
            try:
                answer = found_in(text, shape)
                check(answer)
                self.usage.add(answers=1)
                return answer
            except ValueError as error:
                fault = str(error)
                messages += [{"role": "assistant", "content": text}, {"role": "user", "content": self.again.format(fault=fault)}]
        raise ExpStarError(f"{name}: {self.model} gave no usable answer in {self.attempts} tries ({fault}), expected one JSON "
                           "object as it was asked for; try another model, or write the file by hand")


def read_sentences(path: Path) -> tuple[str, str]:
    """What a model is told, `instruction` and `again`, of a YAML file.

    Raises:
        ExpStarError: it cannot be read, or a key is missing.
    """
    said = read_yaml(path)
    if not isinstance(said, dict) or not all(isinstance(said.get(key), str) for key in ("instruction", "again")):
        raise ExpStarError(f"{path}: has no text under `instruction` and `again`, expected both; add them")
    return said["instruction"], said["again"]


def found_in(text: str, shape: type[A]) -> A:
    """The answer, wherever in the text its JSON stands.

    Raises:
        ValueError: no JSON object, or a field that is wrong.
    """
    start, end = text.find("{"), text.rfind("}") + 1
    if start < 0 or end <= start:
        raise ValueError("no JSON object")
    try:
        return shape.model_validate(json.loads(text[start:end]))
    except ValidationError as error:
        raise ValueError(describe(error)) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the JSON is broken: {error}") from None


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
