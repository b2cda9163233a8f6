"""The questions that a server is asked after its load."""

from tuner.engines.base import Phase
from tuner.quality.asking import Answers, answers
from tuner.trial.server import ServerUnderTest


def ask(server: ServerUnderTest) -> None:
    """Whether its answers are right; a server that dies of the questions has died."""
    questions, watch = server.assignment.questions, server.watch
    if questions is None:
        return
    server.enter(Phase.ASKING)
    completions = answers(questions.asks(), server.target, questions.concurrency, lambda answered: watch.check())
    if any(each.error for each in completions):
        watch.linger()
    server.draft.answers = Answers(questions=questions.digest, completions=completions)
