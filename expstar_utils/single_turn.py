"""Commentary in one turn: how the models that the paper compares with answer, in process or behind a server."""

from __future__ import annotations

from collections.abc import Sequence

from expstar_utils import prompts as tags
from expstar_utils.inference import Commentator, Settings, Step, prediction_of
from expstar_utils.prompts import Prompts
from expstar_utils.records import Prediction
from expstar_utils.served import ServedCommentator


class SingleTurn(Commentator):
    """A model in process that writes a step's commentary in one turn."""

    def comment(self, steps: Sequence[Step]) -> list[Prediction]:
        """See `Commentator`."""
        _, written = self._decode([self.read(step) for step in steps], turn=0)
        decode = self.processor.tokenizer.decode
        return [_plain(step, decode(tokens, skip_special_tokens=True), self.prompts, self.settings)
                for step, tokens in zip(steps, written, strict=True)]


class ServedSingleTurn(ServedCommentator):
    """A served model that writes a step's commentary in one turn."""

    async def comment(self, step: Step) -> Prediction:
        """See `ServedCommentator`."""
        messages = self.prompts.prefix(step.case.subject, step.case.title, step.previous, self.settings.language)
        frames = step.frames.blanked() if self.settings.blank else step.frames
        reply = await self.ask(messages, frames, self.settings.max_new_tokens)
        return _plain(step, reply.text, self.prompts, self.settings)


def _plain(step: Step, text: str, prompts: Prompts, settings: Settings) -> Prediction:
    """Prediction of one turn: its text as it is, and nothing decided."""
    step.narration = tags.section(tags.NARRATION, tags.parse(text).commentary.narration)
    made = prediction_of(step, prompts, settings)
    data = made.evaluation_data | {"rounds": [{"role": "assistant", "content": text}]}
    return made.model_copy(update={"response": text, "full_dialogue": text, "evaluation_data": data})
