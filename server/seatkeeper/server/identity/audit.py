"""The log of administrative acts: who, what, before and after."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from seatkeeper.core.serving.call_origin import request_id
from seatkeeper.core.serving.failure import Context
from seatkeeper.server.identity.principal import principal_of
from seatkeeper.server.store import StoreError

logger = logging.getLogger(__name__)


@contextmanager
def administrative_act(
    event: str, context: Context, **facts: object
) -> Iterator[dict[str, object]]:
    """Log one act of an administrator as ``event`` when the block has ended.

    Facts that are known only then, such as what was there before, are put into what this yields. An act
    that is refused is not logged as done; one during which the store failed, or whose caller did not
    wait for its end, is logged as ``<event>_unknown``, because it may have happened.
    """
    principal = principal_of(context)
    facts |= {"by": str(principal), "peer": principal.address}
    facts |= {"request_id": request_id(context)}
    try:
        yield facts
    except StoreError as error:
        logger.warning(event + "_unknown", extra=facts | {"error": str(error)})
        raise
    except asyncio.CancelledError:
        why = "the caller did not wait for the answer"
        logger.warning(event + "_unknown", extra=facts | {"error": why})
        raise
    logger.info(event, extra=facts)
