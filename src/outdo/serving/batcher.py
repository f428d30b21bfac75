"""The dynamic batcher: a few threads decode, one thread runs the models on whatever has gathered meanwhile.

No request waits for a batch to fill. While one batch runs the next one gathers, so batches grow with the load and a
lone request is answered at once. What cannot be answered in time is refused on arrival, before anything is decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from outdo.errors import DataError

T = TypeVar("T")
AHEAD = 32  # requests that are decoded before their turn: decoded they take more memory


class Model(Protocol):
    """What the batcher needs of a predictor."""

    def decode(self, data: bytes | str) -> np.ndarray: ...
    def probabilities(self, items: Sequence[np.ndarray]) -> np.ndarray: ...


class Busy(Exception):
    """Too much to do. `retry_after` are the seconds after which it is worth trying again."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("the server is busy")
        self.retry_after = retry_after


@dataclass(eq=False)
class Job:
    """One request's decoded items, or a part of them: they share a fate."""

    model: Model
    items: Sequence[np.ndarray]
    future: asyncio.Future[np.ndarray]
    since: float  # when its inputs were let in


class Batcher:
    """Answers for several models: `await answer(model, inputs)` gives (N, C) probabilities.

    At most `queue` inputs are pending, of at most `memory` decoded bytes, and none for longer than `deadline` seconds.
    `most` is the size of a batch. A model is told apart by identity, so one that was replaced answers what it decoded.
    """

    def __init__(self, *, most: int = 8, queue: int = 256, deadline: float = 10.0, memory: int = 512 << 20,
                 decoders: int = 2) -> None:
        self.most, self.queue, self.deadline, self.memory = most, queue, deadline, memory
        self.check: Callable[[bytes | str], None] = lambda data: None  # raises for what must not even be decoded
        self.observe: Callable[[int, float], None] = lambda items, seconds: None  # told of every batch
        self.pending, self.held = 0, 0  # inputs admitted and not answered; bytes of them decoded
        self.pace = 0.01  # seconds an input, while there is a backlog
        self._ahead = asyncio.Semaphore(AHEAD)
        self._decoders = ThreadPoolExecutor(decoders, "decode")
        self._jobs: deque[Job] = deque()
        self._spare: deque[Job] = deque()  # taken only while there is nothing else to do
        self._wake = threading.Condition()
        self._closed = False
        self._since: float | None = None  # when the batch that runs now was begun
        self._last = 0.0  # when the last one ended
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    # ── the loop's side ──────────────────────────────────────────────────────────────────────────────────────────────

    async def answer(self, model: Model, inputs: Sequence[bytes | str]) -> np.ndarray:
        """(N, C) float. Raises Busy, and whatever `model.decode` raises."""
        return await self._admitted(len(inputs), self._decode_and_run(model, inputs))

    async def run(self, model: Model, items: Sequence[np.ndarray]) -> np.ndarray:
        """As `answer`, for items that are decoded already."""
        return await self._admitted(len(items), self._enqueue(model, items, self._jobs, time.monotonic()))

    async def decode(self, model: Model, data: bytes | str) -> np.ndarray:
        """One decoded input."""
        return await self.aside(self._decode, model, data)

    async def aside(self, function: Callable[..., T], *args: Any) -> T:
        """`function(*args)` on a thread of the decoders."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *args)

    async def shadow(self, model: Model, inputs: Sequence[bytes | str]) -> np.ndarray:
        """As `answer`, when there is nothing else to do; Busy as soon as a quarter of the queue is taken."""
        if self.pending + len(self._spare) + len(inputs) > self.queue // 4:
            raise Busy(self.wait())
        items = [await self.decode(model, data) for data in inputs]
        return await self._enqueue(model, items, self._spare, time.monotonic())

    def wait(self) -> float:
        """Seconds until what is pending now will have been answered."""
        return self.pending * self.pace

    def full(self, count: int = 1) -> bool:
        """Whether so many inputs more would not be let in."""
        return self.pending + count > self.queue or self.wait() > self.deadline or self.stuck

    @property
    def stuck(self) -> bool:
        """Whether a batch has been running for longer than anybody waits."""
        since = self._since
        return since is not None and time.monotonic() - since > self.deadline

    def close(self) -> None:
        """Finish what is queued, then end the threads."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._thread.join(timeout=self.deadline)

    async def _admitted(self, count: int, work) -> np.ndarray:
        if self.full(count):
            work.close()
            raise Busy(self.wait())
        self.pending += count
        try:
            async with asyncio.timeout(self.deadline):
                return await work
        except TimeoutError:
            raise Busy(self.wait()) from None
        finally:
            self.pending -= count

    async def _decoded(self, model: Model, inputs: Sequence[bytes | str], at: int) -> np.ndarray:
        try:
            return await self.decode(model, inputs[at])
        except DataError as error:
            if len(inputs) == 1:
                raise
            raise DataError(f"input {at + 1} of {len(inputs)}: {error}") from None

    def _decode(self, model: Model, data: bytes | str) -> np.ndarray:
        self.check(data)
        return model.decode(data)

    async def _decode_and_run(self, model: Model, inputs: Sequence[bytes | str]) -> np.ndarray:
        since = time.monotonic()
        async with self._ahead:
            items = await asyncio.gather(*(self._decoded(model, inputs, at) for at in range(len(inputs))))
            size = sum(item.nbytes for item in items)
            if self.held + size > self.memory:
                raise Busy(self.wait())
            self.held += size
            try:
                return await self._enqueue(model, items, self._jobs, since)
            finally:
                self.held -= size

    async def _enqueue(self, model: Model, items: Sequence[np.ndarray], queue: deque[Job], since: float) -> np.ndarray:
        loop = asyncio.get_running_loop()
        jobs = [Job(model, items[i : i + self.most], loop.create_future(), since)
                for i in range(0, len(items), self.most)]
        with self._wake:
            queue.extend(jobs)
            self._wake.notify()
        return np.concatenate(await asyncio.gather(*(job.future for job in jobs)))

    # ── the model thread's side ──────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while batch := self._next():
            start = self._since = time.monotonic()
            outcomes = answers(batch)
            now, self._since = time.monotonic(), None
            self._keep_pace(batch, now)
            self.observe(sum(len(job.items) for job in batch), now - start)
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any longer
                batch[0].future.get_loop().call_soon_threadsafe(deliver, batch, outcomes)

    def _next(self) -> list[Job]:
        """The oldest job and those of the same model that fit beside it; none when closed and done."""
        with self._wake:
            while True:
                queue = self._jobs or self._spare
                batch: list[Job] = []
                room = self.most
                while queue and (not batch or (queue[0].model is batch[0].model and len(queue[0].items) <= room)):
                    job = queue.popleft()
                    if not job.future.done():  # given up meanwhile
                        batch.append(job)
                        room -= len(job.items)
                if batch or (self._closed and not queue):
                    return batch
                if not queue:
                    self._wake.wait()

    def _keep_pace(self, batch: list[Job], now: float) -> None:
        busy_since = max(self._last, min(job.since for job in batch))
        measured = (now - busy_since) / sum(len(job.items) for job in batch)
        self.pace += 0.2 * (measured - self.pace)
        self._last = now


def answers(batch: Sequence[Job]) -> list[np.ndarray | Exception]:
    """What each job gets. One input that a model stumbles over must not spoil the answers of its neighbours."""
    try:
        rows = batch[0].model.probabilities([item for job in batch for item in job.items])
    except Exception as error:
        return [error] if len(batch) == 1 else [outcome for job in batch for outcome in answers([job])]
    ends = np.cumsum([len(job.items) for job in batch])
    return list(np.split(rows, ends[:-1]))


def deliver(batch: Sequence[Job], outcomes: Sequence[np.ndarray | Exception]) -> None:
    for job, outcome in zip(batch, outcomes, strict=True):
        if job.future.done():
            continue
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
