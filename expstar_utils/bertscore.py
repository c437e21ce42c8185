"""BERTScore: greedy matching of token vectors, exact, on the published model where its weights are here, else on MiniLM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from expstar_utils import weights
from expstar_utils.encoders import TEXT_ENCODER
from expstar_utils.records import ExpStarError
from expstar_utils.text_metrics import RowMeans

PUBLISHED = ("microsoft/deberta-large-mnli", "roberta-large")  # the published script's choice, then the usual one
LAYERS = {"microsoft/deberta-large-mnli": 18, "roberta-large": 17, TEXT_ENCODER: 6}  # as bert-score chose them; MiniLM's last
BATCH = 16 if not torch.cuda.is_available() else 128
ROWS_AT_ONCE = 2 * BATCH  # whose vectors are in memory together


class TokenEncoder:
    """A BERT-like model as tokens -> vectors of length 1, from one of its layers.

    Args:
        name: a hub id or a folder; see `weights.find`.
        layers: how many layers the vectors pass; None takes those of `LAYERS`, for other models all.

    Raises:
        ExpStarError: the weights cannot be had, or are no such model.
    """

    def __init__(self, name: str, layers: int | None = None):
        from transformers import AutoConfig, AutoModel, AutoTokenizer
        folder = str(weights.find(name))
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            config = AutoConfig.from_pretrained(folder)
            spaced = {"add_prefix_space": True} if config.model_type == "roberta" else {}
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **spaced)
            self._model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().to(self._device)
            depth = len(self._model.encoder.layer)
        except (OSError, ValueError, AttributeError) as error:
            raise ExpStarError(f"{name}: found no BERT-like encoder ({str(error).splitlines()[0][:120]}), expected one of "
                               f"{sorted(LAYERS)} or the folder of its like") from None
        self.name = Path(name).name if Path(name).is_dir() else name
        self.layers = layers or LAYERS.get(name, depth)
        self._model.encoder.layer = self._model.encoder.layer[:self.layers]
        positions = config.max_position_embeddings - (2 if config.model_type == "roberta" else 0)
        self.length = min(self._tokenizer.model_max_length, positions)
        self._ends = {self._tokenizer.cls_token_id, self._tokenizer.sep_token_id}

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, start and end included; what is beyond `length` tokens is cut off."""
        if not texts:
            return []
        return self._tokenizer([t.strip() for t in texts], truncation=True, max_length=self.length)["input_ids"]

    def counted(self, ids: Sequence[int]) -> torch.Tensor:
        """Bool [tokens]: which ones are matched for the score; start and end are only there to be found."""
        return torch.tensor([i not in self._ends for i in ids], device=self._device)

    @torch.inference_mode()
    def vectors(self, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Float [tokens, dimensions] of each row of ids; rows of like length run together, equal ones once."""
        unique = sorted({tuple(ids) for ids in rows}, key=len)
        found: dict[tuple[int, ...], torch.Tensor] = {}
        for at in range(0, len(unique), BATCH):
            part = unique[at:at + BATCH]
            ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in part], True, self._tokenizer.pad_token_id or 0)
            real = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in part])
            hidden = self._model(ids.to(self._device), attention_mask=real.long().to(self._device)).last_hidden_state
            found |= {row: nn.functional.normalize(h[:len(row)], dim=-1) for row, h in zip(part, hidden)}
        return [found[tuple(ids)] for ids in rows]


@lru_cache(maxsize=1)
def load_token_encoder(name: str, layers: int | None) -> TokenEncoder:
    """See `TokenEncoder`; the last one is kept."""
    return TokenEncoder(name, layers)


def usual_model() -> str:
    """The first of `PUBLISHED` whose weights the Hugging Face cache holds, else MiniLM; nothing is fetched."""
    return next((name for name in PUBLISHED if _cached(name)), TEXT_ENCODER)


def _cached(name: str) -> bool:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return False
    return (folder / "config.json").is_file() and any((folder / f).is_file() for f in ("model.safetensors", "pytorch_model.bin"))


def matched(written: torch.Tensor, wanted: torch.Tensor,
            counted: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float, float]:
    """Precision, recall and F1: each token takes its nearest of the other text (Zhang et al. 2020, section 3); 0 without tokens.

    Args:
        written, wanted: float [tokens, dimensions] of length 1. counted: bool [tokens] of each, the tokens that are averaged.
    """
    if not counted[0].any() or not counted[1].any():
        return 0.0, 0.0, 0.0
    cosines = written @ wanted.T
    precision, recall = (float(cosines.amax(side)[mask].mean()) for side, mask in zip((1, 0), counted))
    return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _in_threads(work: Callable[[list[int]], None], blocks: Sequence[list[int]]) -> Iterator[None]:
    """Work on blocks side by side, one thread each; a GPU takes them in turn.

    Shared out by torch, these small products wait for one another beside other programs, and sums depend on the number of cores.
    """
    threads = 1 if torch.cuda.is_available() else torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(work, blocks)
    finally:
        torch.set_num_threads(threads)


class BertScore(RowMeans):
    """BERTScore's precision, recall and F1, without IDF and baseline; columns of an unpublished model carry its name.

    Args:
        model: hub id or folder; None takes `usual_model`.

    Raises:
        ExpStarError: the model cannot be had.
    """

    def __init__(self, predictions: Sequence[str], references: Sequence[str], model: str | None = None,
                 layers: int | None = None):
        encoder = load_token_encoder(model or usual_model(), layers)
        written, wanted = encoder.ids(predictions), encoder.ids(references)
        scores = np.zeros((len(written), 3))
        order = sorted(range(len(written)), key=lambda i: -len(written[i]) - len(wanted[i]))
        blocks = [order[at:at + ROWS_AT_ONCE] for at in range(0, len(order), ROWS_AT_ONCE)]

        def work(rows: list[int]) -> None:
            """Score the rows of a block."""
            vectors = encoder.vectors([written[i] for i in rows] + [wanted[i] for i in rows])
            for i, left, right in zip(rows, vectors, vectors[len(rows):]):
                scores[i] = matched(left, right, (encoder.counted(written[i]), encoder.counted(wanted[i])))
        for _ in tqdm(_in_threads(work, blocks), desc="BERTScore", total=len(blocks), unit="block"):
            pass
        more = "" if encoder.name in PUBLISHED else f" ({Path(encoder.name).name})"
        super().__init__({f"BERTScore-{which}{more}": found for which, found in zip(("P", "R", "F1"), scores.T)}, (
            f"model:{encoder.name}|layer:{encoder.layers}|idf:no|rescaled:no|tok:the model's, cut at {encoder.length}|"
            f"as:bert-score|version:transformers.{version('transformers')},expstar.{version('expstar-utils')}"))
