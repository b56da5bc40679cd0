"""The stories of the fault knobs that both emulated clouds have, and the outcomes that many stories share. Used by the tests
of every fault knob."""

from __future__ import annotations

from tests.providers.knob_story import PLACES, Story, Turn

ADOPTED = ("adopted", "ready", "released")
ELSEWHERE = ("made elsewhere", "ready", "released")
REPLACED = ("made", "lost", *ELSEWHERE)
LEFT_THEN_RELEASED = ("UnprovenRelease 12", "released")
AFTER_COMMIT = {"status": 502, "body": "<html>bad gateway</html>", "content_type": "text/html", "after_commit": True}
# What the knobs of its create are called.
_CREATE = {"runpod": "create", "lambda": "launch"}


def tell_nothing_made(*turns: Turn, error: str, creates: int, status: int = 0, left: bool = False) -> Story:
    """No machine came of it. left: nor could that be proven before the faults were cleared."""
    shows = (error, *LEFT_THEN_RELEASED) if left else (error, "released")
    return Story(turns=turns, shows=shows, machines=0, creates=creates, status=status)


def tell_bad_machine(turn: Turn, said: str) -> Story:
    """The first machine's engine does not come up for a fault of the machine; the second one's does."""
    shows = ("made", "ready", said, "made elsewhere", "ready", "engine up", "released")
    return Story(turns=(turn,), shows=shows, machines=2, real=True, engine=True)


def list_shared_stories(cloud: str) -> dict[str, tuple[Story, ...]]:
    create, first_place = _CREATE[cloud], PLACES[cloud][0]
    lost_answer = Turn(f"{create}_500_after_commit", True, 1)
    return {
        "list_stale_s": (Story(turns=(Turn("list_stale_s", 60), lost_answer), shows=ADOPTED, release_s=60),),
        "capacity_race": (
            Story(turns=(Turn("capacity_race", match=first_place),), shows=ELSEWHERE, creates=2),
            tell_nothing_made(Turn("capacity_race"), error="NoCapacity 11", creates=2),
        ),
        "sold_out": (tell_nothing_made(Turn("sold_out"), error="NoCapacity 11", creates=2),),
        "engine_crash": (tell_bad_machine(Turn("engine_crash", "CUDA out of memory", 1), "engine ended"),),
        "terminated_shown_s": (Story(turns=(Turn("terminated_shown_s", 600),)),),
        f"{create}_500_after_commit": (Story(turns=(lost_answer,), shows=ADOPTED, status=500),),
        f"{create}_500": (
            Story(turns=(Turn(f"{create}_500", True, 1),), creates=2, status=500),
            tell_nothing_made(Turn(f"{create}_500"), error="UnclearOutcome 4", creates=4),
        ),
    }
