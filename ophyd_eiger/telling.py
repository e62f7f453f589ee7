"""A condition that holds back what is logged with it in hand, until it is let go of.

Whoever handles a log may ask those who log: with a lock of theirs in hand each would wait for the
other.
"""

import logging
import threading
from collections import deque
from typing import Any


class TellingCondition(threading.Condition):
    """A condition with messages of its own, logged by whoever lets go of it next."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: deque[tuple[logging.Logger, int, str, tuple[Any, ...]]] = deque()

    def tell(self, logger: logging.Logger, level: int, text: str, *about: Any) -> None:
        """Log a message once nobody has the condition in hand; the caller has."""
        self._messages.append((logger, level, text, about))

    def __exit__(self, *error: Any) -> None:
        """Let go of it; tell what was held back."""
        super().__exit__(*error)
        while self._messages and not self._is_owned():  # pyright: ignore[reportAttributeAccessIssue]
            try:
                logger, level, text, about = self._messages.popleft()
            except IndexError:
                return  # Another thread was faster.
            logger.log(level, text, *about)
