"""What an audit finds: one object that does not match, the stage that made it, what remakes it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Problem:
    """One object that is not what it should be.

    `place` is where it lies (evidence, workspace, dvc.lock, cache, a remote's name), `what` is
    extra, missing, changed, edited, broken or refused; `stage` made it (empty where none did) and
    `remedy` is the command that makes it again.
    """

    place: str
    object: str
    what: str
    detail: str = ""
    stage: str = ""
    remedy: str = ""

    @property
    def text(self) -> str:
        """For people: what and where, then why, then the stage and the command."""
        lines = [f"{self.what:8} {self.place}: {self.object}"]
        if self.detail:
            lines.append(f"         {self.detail}")
        if self.stage:
            lines.append(f"         made by stage {self.stage}")
        if self.remedy:
            lines.append(f"         remedy: {self.remedy}")
        return "\n".join(lines)


@dataclass
class Audit:
    """Problems found so far, and how much was looked at, place by place."""

    problems: list[Problem] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, place: str, objects: int = 1) -> None:
        """Note that `objects` more were looked at in `place`."""
        self.checked[place] = self.checked.get(place, 0) + objects
