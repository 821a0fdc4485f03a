"""A learner that audits as well: in a process of its own, since an audit may plant mistakes in the training."""

from ..answers import Answer
from ..messages import Audit, AuditOwn, CrossCheck, DeleteFeatures, LearnerRequest, Request
from ..worker import OnProgress, Worker, events_of


class AuditWorker(Worker):
    """Answers audits, and a learner's requests. torch is imported where it is needed."""

    def handle(self, request: Request, progress: OnProgress) -> Answer:
        """Answer a request. Raises CollegiumError, ValueError for what cannot be answered."""
        match request:
            case CrossCheck():
                from .crosscheck import cross_check  # noqa: PLC0415  # opacus

                return cross_check(events_of(request.events), request.delta)
            case Audit():
                from .probes import audit  # noqa: PLC0415  # torch

                return audit(request, progress)
            case AuditOwn():
                from .probes import audit_own  # noqa: PLC0415  # torch

                return audit_own(request, self.session(request.session), progress)
            case DeleteFeatures():
                from .deletion import curves  # noqa: PLC0415  # torch

                return curves(request, self.session(request.session), progress)
            case _:
                trains: LearnerRequest = request  # mypy refuses an audit without its case
                return super().handle(trains, progress)
