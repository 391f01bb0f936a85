"""What turns up while a data set is opened: warnings, and reasons to refuse it.

`open_dataset` stops at the first refusal. `unetpp check` collects them, so that one look shows them all.
"""

from __future__ import annotations

from unetpp_cli.errors import UserError


def counted(number: int, noun: str) -> str:
    """`1 image`, `3 images`, `1,200 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class Findings:
    """Collects warnings, and raises or collects refusals.

    Attributes:
        warnings: sentences, in the order found.
        refusals: what would have been raised; stays empty unless `collect`.
        opened: whether there were files to look at, so that what is raised is about the data.
    """

    def __init__(self, collect: bool = False) -> None:
        self.collect = collect
        self.opened = False
        self.warnings: list[str] = []
        self.refusals: list[UserError] = []

    def warn(self, text: str) -> None:
        """Something that the user should know and that does not spoil the data."""
        if text not in self.warnings:
            self.warnings.append(text)

    def refuse(self, problem: str, cure: str = "") -> None:
        """Something that spoils the data, but around which the rest can still be looked at.

        Raises:
            UserError: unless refusals are collected.
        """
        self.add(UserError(problem, cure))

    def add(self, refusal: UserError) -> None:
        """The same for a refusal caught elsewhere."""
        if not self.collect:
            raise refusal
        if str(refusal) not in map(str, self.refusals):
            self.refusals.append(refusal)
