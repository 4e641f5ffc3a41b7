"""An answer in one piece, for those who do not stream."""

from contextlib import aclosing
from typing import Any

from knowledge.answering.answer import answer_question
from knowledge.answering.journey import Question
from knowledge.config import AnswerConfig
from knowledge.llm.gateway import Gateway
from ragsite.core.problems import Problem
from tenants.access import Principal


async def collect_answer(
    *, question: Question, principal: Principal, config: AnswerConfig, gateway: Gateway
) -> dict[str, Any]:
    """The whole answer object, from the same events.

    Raises:
        Problem: as ``answer_question``, and for an error event.
    """
    text, sources, done = "", [], {}
    stream = answer_question(question=question, principal=principal, config=config, gateway=gateway)
    async with aclosing(stream) as events:
        async for event in events:
            match event["type"]:
                case "sources":
                    sources = event["data"]
                case "answer_chunk":
                    text += event["data"]
                case "restart":
                    text = ""
                case "done":
                    done = event["data"]
                case "error":
                    problem = event["data"]
                    raise Problem(
                        problem["status"],
                        problem["type"].rsplit("/", 1)[-1],
                        problem["detail"],
                        headers={"Retry-After": "30"} if problem["status"] == 503 else {},
                    )
    return {**done, "answer": text, "sources": sources}
