# SPDX-License-Identifier: BSD-3-Clause
"""Checker: checks each image once, as long as the budget lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pmem2.testing._image import Image
    from pmem2.testing._pruning import CheckedImages, Path
    from pmem2.testing._runner import CheckRunner


class Checker:
    """Runs the check on images, and knows those that were checked."""

    def __init__(self, runner: CheckRunner, checked: CheckedImages, budget: int) -> None:
        """Check none yet, and at most *budget* images."""
        self._runner = runner
        self._checked = checked
        self.budget = budget
        self.budget_left = budget
        self.images = 0
        self.exceeded = False  # whether an image was left out because no budget was left

    def limit(self, checks: int) -> None:
        """Check at most so many more images."""
        self.budget_left = min(self.budget_left, checks)

    def has_budget(self) -> bool:
        """Whether one more image may be checked; the caller leaves out an image if not."""
        self.exceeded = self.exceeded or not self.budget_left
        return self.budget_left > 0

    def find(self, image: Image, acknowledged: int) -> Path | None:
        """Return the path of an image; `None` if a check of it would see something new."""
        return self._checked.find(image, acknowledged)

    def check(self, image: Image, acknowledged: int) -> Path:
        """Check an image.

        Raises:
            CheckFailed: The check or the recovery rejects the image.
        """
        self.budget_left -= 1
        self.images += 1
        return self.check_uncounted(image, acknowledged)

    def check_uncounted(self, image: Image, acknowledged: int) -> Path:
        """Check an image at no charge to the budget.

        Raises:
            CheckFailed: The check or the recovery rejects the image.
        """
        reads, events = self._runner.run(image.content, acknowledged)
        return self._checked.add(image, acknowledged, reads, events)
