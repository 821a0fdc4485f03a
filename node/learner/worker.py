"""The worker: a request in, its answer out (messages.py)."""

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, assert_never

from ..privacy.accountant import Event, claimed, epsilon
from ..privacy.budget import Verdict, decide_run
from .answers import Answer, BadRequestError, Done, EpsilonFound, HelperLostError
from .crew import ENDED, Crew
from .messages import (
    Audit,
    AuditOwn,
    CrossCheck,
    DecideRun,
    DeleteFeatures,
    Epsilon,
    Evaluate,
    EvaluateVariants,
    Explain,
    Open,
    Personalise,
    Predict,
    PredictScores,
    Request,
    Respec,
    SampledSteps,
    SessionRequest,
    Train,
    TryModel,
)

if TYPE_CHECKING:
    from .parallel import Team
    from .session import Session

OnProgress = Callable[[int, int], None]


class Worker:
    """One learner. It keeps the opened sessions between requests and nothing else.

    torch is imported where it is needed: that takes seconds, and the accountant does not need it. A helper of another
    worker is in its `team`.
    """

    def __init__(self, team: "Team | None" = None) -> None:
        self._sessions: dict[str, Session] = {}
        self._team = team
        self._crew: Crew | None = None
        self.lost = False  # a helper: this worker can only end

    def handle(self, request: Request, progress: OnProgress) -> Answer:
        """Answer a request. Raises CollegiumError, ValueError for what cannot be answered."""
        match request:
            case Epsilon():
                value = epsilon(events_of(request.events), request.delta)
                return EpsilonFound(value, claimed(value))
            case DecideRun():
                return _decide_run(request)
            case CrossCheck() | Audit() | AuditOwn() | DeleteFeatures():
                advice = "Ask `python -m collegium.node.learner.audit`."
                raise BadRequestError("a learner that trains audits nothing", advice)
            case TryModel():
                from . import operations  # noqa: PLC0415  # torch

                operations.try_model(request)
                return Done()
            case Open():
                from . import operations  # noqa: PLC0415  # torch

                self._sessions.pop(request.session, None)  # free its memory for the new one
                began = monotonic()
                session, answer = operations.open_data(request, progress)
                team = self._team or self._gathered(request, monotonic() - began)
                self._sessions[request.session] = session if team is None else session.within(team)
                return answer
            case _:
                return self._on_session(request, progress)

    def session(self, name: str) -> "Session":
        """Return an opened session. Raises BadRequestError."""
        if name not in self._sessions:
            raise BadRequestError("no data folder is open", "Send open first.")
        return self._sessions[name]

    def _on_session(self, request: SessionRequest, progress: OnProgress) -> Answer:
        session = self.session(request.session)
        from . import operations  # noqa: PLC0415  # torch

        match request:
            case Respec():
                self._sessions[request.session] = operations.respec(session, request)
                if session.team.leads and self._crew is not None:
                    self._crew.ask(request, 0.0)
                return Done()
            case Train():
                with self._together(session, request):
                    return operations.train_components(session, request, progress)
            case Evaluate():
                return operations.evaluate(session, request)
            case EvaluateVariants():
                return operations.evaluate_variants(session, request, progress)
            case PredictScores():
                return operations.predict_scores(session, request)
            case Predict():
                return operations.predict_file(session, request, progress)
            case Explain():
                from . import explain  # noqa: PLC0415  # torch

                return explain.explain_file(session, request, progress)
            case Personalise():
                return operations.personalise(session, request, progress)
            case _:
                assert_never(request)

    def _gathered(self, request: Open, seconds: float) -> "Team | None":
        """Start as many helpers as a session wants, and open it in each; it took `seconds` here.

        Raises the first one's OperatorError.
        """
        if request.processes == 1:
            return None
        if self._crew is not None and self._crew.team.size != request.processes:
            raise BadRequestError("a worker's sessions have one number of processes", "Start another worker.")
        try:
            self._crew = self._crew or Crew(request.processes)
            self._crew.ask(replace(request, processes=1, cache_read_only=True, purge=False), seconds)
        except HelperLostError:
            self.lost = True
            raise
        return self._crew.team

    @contextmanager
    def _together(self, session: "Session", request: Train) -> Iterator[None]:
        """Train with all processes of the session's team. If one fails the others would wait for it: all end."""
        if session.team.size == 1 or any(session.specs[name].is_statistic for name in request.engaged):
            yield
            return
        try:
            if self._crew is None:
                yield
            else:
                with self._crew.beside(request):
                    yield
        except HelperLostError:
            self.lost = True
            raise
        except Exception:  # noqa: BLE001  # whatever it was
            traceback.print_exc(file=sys.stderr)
            raise SystemExit(ENDED) from None


def _decide_run(request: DecideRun) -> Verdict:
    names = {part.name for part in request.components}
    if not all(modality.components and set(modality.components) <= names for modality in request.modalities):
        raise BadRequestError("a modality reaches no component, or one that is not part of the run")
    return decide_run(
        request.modalities,
        request.components,
        sample_rate=request.sample_rate,
        steps=request.steps,
        rounds=request.rounds,
        lines=request.lines,
    )


def events_of(events: Sequence[SampledSteps]) -> list[Event]:
    """Return steps in the accountant's form."""
    return [(line.sample_rate, line.noise, line.count) for line in events]
