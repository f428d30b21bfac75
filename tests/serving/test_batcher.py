"""The batcher: batches grow with the load, nothing is lost, what is too much is refused at once."""

import asyncio
import threading
import time

import numpy as np
import pytest

from outdo.serving.batcher import Batcher, Busy


class Echo:
    """Answers with what it was given; waits for `gate`, and stumbles over `bad`."""

    def __init__(self):
        self.gate, self.batches = threading.Event(), []
        self.gate.set()

    def decode(self, data):
        if data == "unreadable":
            raise ValueError(data)
        return np.array([len(data)])

    def probabilities(self, items):
        self.gate.wait(10)
        self.batches.append([int(item[0]) for item in items])
        if any(item[0] == len("bad") for item in items):
            raise ArithmeticError("bad")
        return np.array([[item[0], 1.0] for item in items])


@pytest.fixture
def batcher():
    made = []

    def make(**options):
        made.append(Batcher(**options))
        return made[0]

    yield make
    made[0].close()
    assert not made[0]._thread.is_alive()


async def gathered(*work):
    return await asyncio.gather(*work, return_exceptions=True)


def test_requests_that_wait_become_one_batch(batcher):
    model, batch = Echo(), batcher(most=8)

    async def run():
        model.gate.clear()
        first = asyncio.create_task(batch.answer(model, ["x"]))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batch.answer(model, ["x" * n])) for n in range(10, 20)]
        await asyncio.sleep(0.05)
        model.gate.set()
        return await gathered(first, *others)

    answers = asyncio.run(run())
    assert [int(rows[0, 0]) for rows in answers] == [1, *range(10, 20)]
    assert [len(sizes) for sizes in model.batches] == [1, 8, 2]
    assert batch.pending == batch.held == 0


def test_a_large_request_is_cut_and_put_together(batcher):
    model = Echo()
    rows = asyncio.run(batcher(most=4).answer(model, ["x" * n for n in range(10, 20)]))
    assert rows[:, 0].tolist() == [*range(10, 20)]
    assert max(map(len, model.batches)) <= 4


def test_models_are_not_mixed(batcher):
    one, other, batch = Echo(), Echo(), batcher()

    async def run():
        return await gathered(*(batch.answer(one if i % 3 else other, ["x" * (10 + i)]) for i in range(30)))

    assert [int(rows[0, 0]) for rows in asyncio.run(run())] == [*range(10, 40)]
    assert sum(map(len, one.batches)) == 20
    assert sum(map(len, other.batches)) == 10


def test_one_bad_input_spoils_no_other(batcher):
    model, batch = Echo(), batcher()

    async def run():
        model.gate.clear()
        work = [asyncio.create_task(batch.answer(model, [text])) for text in ("long one", "bad", "unreadable", "other")]
        await asyncio.sleep(0.05)
        model.gate.set()
        return await gathered(*work)

    good, bad, unreadable, other = asyncio.run(run())
    assert good[0, 0] == 8
    assert other[0, 0] == 5
    assert isinstance(bad, ArithmeticError)
    assert isinstance(unreadable, ValueError)
    assert batch.pending == batch.held == 0


def test_a_full_queue_refuses_before_decoding(batcher):
    model, batch = Echo(), batcher(queue=4)

    async def run():
        model.gate.clear()
        work = [asyncio.create_task(batch.answer(model, ["xxxxx"])) for _ in range(4)]
        await asyncio.sleep(0.05)
        model.decode = None  # would raise TypeError
        with pytest.raises(Busy) as busy:
            await batch.answer(model, ["y"])
        model.gate.set()
        return busy.value, await gathered(*work)

    busy, answers = asyncio.run(run())
    assert busy.retry_after > 0
    assert all(rows[0, 0] == 5 for rows in answers)


def test_what_would_come_too_late_is_refused_on_arrival(batcher):
    model, batch = Echo(), batcher(deadline=1.0)
    batch.pace, batch.pending = 0.5, 3
    with pytest.raises(Busy):
        asyncio.run(batch.answer(model, ["x"]))
    assert model.batches == []
    batch.pending = 1
    asyncio.run(batch.answer(model, ["x"]))


def test_nobody_waits_longer_than_the_deadline_and_the_late_are_not_computed(batcher):
    model, batch = Echo(), batcher(deadline=0.2, most=1)

    async def run():
        model.gate.clear()
        begin = time.monotonic()
        found = await gathered(*(batch.answer(model, ["x" * n]) for n in (5, 6)))
        waited = time.monotonic() - begin
        async with asyncio.timeout(5):
            while not batch.stuck:  # the batch began a little after its jobs
                await asyncio.sleep(0.01)
        with pytest.raises(Busy):
            await batch.answer(model, ["refused at once"])
        model.gate.set()
        while batch.stuck:
            await asyncio.sleep(0.01)
        return found, waited

    found, waited = asyncio.run(run())
    assert all(isinstance(one, Busy) for one in found)
    assert 0.2 <= waited < 3
    assert model.batches == [[5]]
    assert batch.pending == 0


def test_decoded_inputs_in_memory_are_bounded(batcher):
    batch = batcher(memory=20)
    model = Echo()
    with pytest.raises(Busy):
        asyncio.run(batch.answer(model, ["xxxxx"] * 3))
    assert asyncio.run(batch.answer(model, ["xxxxx"] * 2)).shape == (2, 2)


def test_a_shadow_only_runs_when_nobody_waits(batcher):
    model, rival, batch = Echo(), Echo(), batcher(queue=16, most=1)

    async def run():
        model.gate.clear()
        blocked = asyncio.create_task(batch.answer(model, ["first"]))
        await asyncio.sleep(0.05)
        shadow = asyncio.create_task(batch.shadow(rival, ["watches"]))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(batch.answer(model, ["second"]))
        await asyncio.sleep(0.05)
        second.add_done_callback(lambda _: order.append("second"))
        shadow.add_done_callback(lambda _: order.append("shadow"))
        model.gate.set()
        await gathered(blocked, shadow, second)
        with pytest.raises(Busy):
            await batch.shadow(rival, ["x"] * 5)

    order = []
    asyncio.run(run())
    assert order == ["second", "shadow"]


def test_closing_finishes_what_is_queued():
    model, batch = Echo(), Batcher(most=1)

    async def run():
        model.gate.clear()
        work = [asyncio.create_task(batch.answer(model, ["xxxxx"])) for _ in range(5)]
        await asyncio.sleep(0.05)
        threading.Timer(0.1, model.gate.set).start()
        await asyncio.to_thread(batch.close)
        return await gathered(*work)

    assert all(rows[0, 0] == 5 for rows in asyncio.run(run()))
