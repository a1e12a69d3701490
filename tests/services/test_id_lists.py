"""Long lists of ids in a query find what short ones do."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from app.core.models import Node
from app.core.services.id_lists import FEW, among
from tests import fleet
from tests.fixtures.accounts import Person


@pytest.mark.parametrize("padding", [0, FEW, 5_000])
def test_finds_the_rows_named_and_no_others(
    sessions: sessionmaker[Session], owner: Person, padding: int
) -> None:
    nodes = [fleet.make_node(sessions, owner.id) for _ in range(4)]
    wanted = {node.id for node in nodes[1:3]}
    ids = wanted | {10_000_000 + number for number in range(padding)}
    with sessions() as session:
        found = session.scalars(sa.select(Node.id).where(among(session, Node.id, ids)))
        assert set(found) == wanted


def test_finds_nothing_by_no_id(session: Session) -> None:
    assert not session.scalars(sa.select(Node.id).where(among(session, Node.id, []))).all()
