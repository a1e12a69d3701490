"""Trying engines that say they are ready, before runs go there."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace

import gevent
from gevent.pool import Pool

from app.core.clock import utc_now
from app.core.database import unit_of_work
from app.core.domain.errors import DomainError
from app.core.engines.registry import engine_client
from app.core.services import proofs
from app.core.services.proofs import DueProof
from worker import tasks
from worker.context import WorkerContext

log = logging.getLogger(__name__)

# A large model's first token after its start may take long; nothing takes longer.
PROOF_SECONDS = 30.0
CONNECT_SECONDS = 5.0
# Longer than a try, so that a worker that died in one is succeeded.
BUSY_SECONDS = PROOF_SECONDS + 15.0

_tries = Pool(proofs.BATCH)
_under_way: Counter[int] = Counter()


def prove_replicas() -> None:
    """Begin to try what is due. A slow engine keeps nobody waiting, this round neither."""
    context = tasks.context()
    free = _tries.free_count()
    if not free:
        return
    with unit_of_work(context.sessions) as session:
        due = proofs.claim_due(
            session, now=utc_now(), busy_seconds=BUSY_SECONDS,
            offline_after_seconds=context.settings.offline_after_seconds, limit=free,
            under_way=_under_way,
        )  # fmt: skip
    for one in due:
        _under_way[one.candidate.node_id] += 1
        _tries.spawn(_try, context, one)


def _try(context: WorkerContext, proof: DueProof) -> None:
    node_id = proof.candidate.node_id
    try:
        prove(context, proof)
    finally:
        _under_way[node_id] -= 1
        if not _under_way[node_id]:
            del _under_way[node_id]


def prove(context: WorkerContext, proof: DueProof) -> bool:
    """Have one token generated and write down what came of it; whether it worked."""
    why = _why_not(context, proof)
    with unit_of_work(context.sessions) as session:
        if why is None:
            proofs.note_proven(session, proof, now=utc_now())
        else:
            proofs.note_failed(session, proof, why=why, now=utc_now())
    context.ledger.forget_candidates()
    if why is not None:
        found = proof.candidate
        log.info("%s on node %s does not answer: %s", found.model_name, found.node_id, why)
    return why is None


def _why_not(context: WorkerContext, proof: DueProof) -> str | None:
    candidate = proof.candidate
    target = replace(
        context.target(candidate), connect_timeout_seconds=CONNECT_SECONDS,
        first_chunk_timeout_seconds=PROOF_SECONDS, idle_timeout_seconds=PROOF_SECONDS,
    )  # fmt: skip
    try:
        with gevent.Timeout(PROOF_SECONDS):
            engine_client(candidate.engine, context.policy).probe(target)
    except gevent.Timeout:
        return f"No answer within {PROOF_SECONDS:.0f} seconds."
    except DomainError as error:
        return error.message
    except Exception:
        # What a stranger's engine sends must not end the round.
        log.exception("trying replica %s failed", candidate.replica_id)
        return "Its answer could not be read."
    return None
