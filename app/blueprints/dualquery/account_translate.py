"""Accounts in dualquery's words."""

from __future__ import annotations

from app.blueprints.dualquery.account_schemas import User
from app.core.services.plans import FREE_PLAN, PlanUsage
from app.core.services.profiles import Profile


def user_object(profile: Profile, usage: PlanUsage) -> User:
    """An account and its counters."""
    return User(
        object_id=profile.uid,
        id=profile.uid,
        email=profile.email,
        name=profile.name or profile.username,
        username=profile.username,
        current_plan=FREE_PLAN,
        queries_used=usage.queries,
        fine_tune_jobs=usage.fine_tune_jobs,
        datasets_count=usage.datasets,
        billing_cycle=None,
    )
