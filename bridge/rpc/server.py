"""A pair of descriptors and a table of handlers -> a JSON-RPC server that survives whatever the other side does.

Reads lines, begins requests in the order in which they came, answers in the order in which they end. What is wrong with
a line stays with that line. A shell that does not read what it is told is asked nothing more, yet listened to for a
while: first requests wait here, then in the pipe. Framing is in `core.lines`, meaning in `rpc.messages` and
`rpc.dispatch`, what waits to be written in `rpc.outbox`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from ..contract import CANCEL_REQUEST
from ..core.lines import LineSplitter, LineTooLong
from .batch import STAND_IN_BYTES, Batch
from .dispatch import CANCELLED, NO_ID_TO_CANCEL, Dispatcher, Handler, Outcome, Success, Work, encode
from .hangup import wait_broken
from .messages import ABSENT, INVALID_REQUEST, NULL_ID, Fault, Request, cancelled_id, id_key, parse
from .outbox import Outbox
from .stdio import Output, open_input, open_output

RUNNING_MAX: Final = 1024
"""Requests that wait for something at the same time; each is a task of some kilobytes. Further ones wait their turn,
while those that need not wait for anything are answered."""

URGENT: Final = frozenset({"stop_sidecar", "shutdown"})
"""What must not queue behind the starts that it ends."""

URGENT_RUNNING_MAX: Final = 2 * RUNNING_MAX
"""Up to which those begin all the same."""

BULKY_RUNNING_MAX: Final = 2
"""Requests with long answers that are in the making at a time: a page of logs takes many times its line in memory."""

QUEUE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Requests that are kept, not begun, while the shell does not read. A client that writes all it wants to ask before it
reads would otherwise wait for the bridge, which waits for the client. Beyond it reading stops."""

CALL_BYTES: Final = 512
"""Allowance for what a waiting request costs beyond its line."""

WORK_BYTES: Final = 1024
"""Allowance for one whose params are read: its line is gone, but a coroutine waits."""

INLINE_MAX: Final = 256
"""Requests that are answered in one go before others get a turn of the event loop: one or two milliseconds."""

LAST_ANSWERS_S: Final = 2.0
"""After the end of input, how long to wait for requests that still run. Whoever closes the input and goes on reading
gets quick answers; what takes longer is not worth delaying the end of the sidecars."""

MESSAGE_BYTES_MIN: Final = 64 * 1024
"""The least message limit: every error of the bridge fits into it with an id of half a line, and so does every state of
a sidecar, if need be without its last lines of stderr."""


class _Call:
    """A request on its way: waiting for its turn, or running."""

    __slots__ = ("batch", "cancelled", "given_id", "message", "scope", "size", "work")

    def __init__(self, message: Request | Outcome, given_id: bytes | None, size: int) -> None:
        self.message = message
        self.given_id = given_id
        self.size = size
        self.batch: Batch | None = None
        self.cancelled = False
        self.work: Work | None = None  # what waits to be begun
        self.scope: anyio.CancelScope | None = None  # of what runs


class RpcServer:
    """Serves one client on two descriptors, which stay open when it ends.

    `handlers` are by method name; see `rpc.dispatch` for what one may be. `max_message_bytes` bounds a line either way.
    """

    def __init__(
        self, in_fd: int, out_fd: int, *, outbox: Outbox, handlers: Mapping[str, Handler], max_message_bytes: int
    ) -> None:
        """Created inside the running event loop."""
        if max_message_bytes < MESSAGE_BYTES_MIN:
            raise ValueError(f"max_message_bytes must be at least {MESSAGE_BYTES_MIN}")
        self._in_fd = in_fd
        self._out_fd = out_fd
        self._outbox = outbox
        self._dispatcher = Dispatcher(handlers)
        self._line_bytes_max = max_message_bytes
        self._answer_bytes_max = max_message_bytes - 1  # its line end counts too
        self._output: Output | None = None
        self._tasks: TaskGroup | None = None
        self._reading = anyio.CancelScope()
        self._broken = False
        self._blocked = False  # the output takes nothing at the moment
        self._queue: deque[_Call] = deque()  # until the shell reads
        self._ordinary: deque[_Call] = deque()  # until fewer run
        self._bulky: deque[_Call] = deque()  # until fewer bulky ones run
        self._queue_bytes = 0  # of all three
        self._held_bytes = 0  # answers of batches that are not complete
        self._running = 0
        self._running_bulky = 0
        self._inline = 0
        self._known: dict[bytes | str, list[_Call]] = {}  # calls that can be cancelled, by the key of their id
        self._pending = anyio.Event()  # there is something to write
        self._changed = anyio.Event()  # room was made, or a call ended
        self.messages_in = 0

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup | None = None) -> Literal["eof", "broken"]:
        """Serve until the input ends or nobody reads the output.

        Requests that still run at the end get LAST_ANSWERS_S and are then cancelled, unless they run in `tasks`, the
        caller's own group: then this returns at once, and they and the writing go on until that group ends.
        """
        if tasks is not None:
            return await self._serve(tasks)
        async with anyio.create_task_group() as own:
            reason = await self._serve(own)
            await self.finish(LAST_ANSWERS_S)
            own.cancel_scope.cancel()
        return "broken" if self._broken else reason

    async def finish(self, timeout_s: float) -> bool:
        """Wait until every request is answered and every answer written, for at most that long; whether it is so."""
        with anyio.move_on_after(timeout_s):
            await self._finish()
            return not self._broken
        return False

    async def drain(self, timeout_s: float) -> bool:
        """Write what waits, for at most that long. True when everything is written."""
        with anyio.move_on_after(timeout_s):
            async with anyio.create_task_group() as own:
                if self._output is None and not self._broken:
                    await own.start(self._write)
                while self._outbox.pending_bytes:
                    await self._change()
                own.cancel_scope.cancel()
        return not self._outbox.pending_bytes and not self._broken

    async def _serve(self, tasks: TaskGroup) -> Literal["eof", "broken"]:
        self._tasks = tasks
        await tasks.start(self._write)
        tasks.start_soon(self._begin_waiting)
        tasks.start_soon(self._watch)
        with self._reading:
            await self._read()
        return "broken" if self._broken else "eof"

    async def _finish(self) -> None:
        """After the end of input: until everything is answered, or nobody is there to read it."""
        while not self._broken and (
            self._running or self._queue or self._ordinary or self._bulky or self._outbox.pending_bytes
        ):
            await self._change()

    async def _change(self) -> None:
        await self._changed.wait()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        splitter = LineSplitter(self._line_bytes_max)
        source = open_input(self._in_fd)
        try:
            while chunk := await source.read():
                self._inline = 0
                for line in splitter.feed(chunk):
                    for call in self._calls(line):
                        if self._admit(call):
                            await self._give_way()
                self._write_now()
                # Others get their turn, also from a client that never lets the input run dry.
                await checkpoint()
            last = splitter.end()
            if last is not None:
                for call in self._calls(last):
                    self._admit(call)
                self._write_now()
        finally:
            source.close()

    def _calls(self, line: bytes | LineTooLong) -> Sequence[_Call]:
        """What one line asks for."""
        if isinstance(line, LineTooLong):
            self.messages_in += 1
            message = f"The line is longer than the message limit of {self._line_bytes_max} bytes."
            return (_Call(Fault(INVALID_REQUEST, "invalid_request", message), NULL_ID, 0),)
        line = line.strip(b" \t\r")
        if not line:
            return ()
        self.messages_in += 1
        parsed = parse(line)
        if isinstance(parsed, Request):
            return (self._call(parsed, len(line)),)
        if parsed is None:
            return ()
        if isinstance(parsed, Fault):
            return (self._call(parsed, len(line)),)
        return self._batch(parsed, len(line))

    def _batch(self, members: list[Request | Fault | None], size: int) -> Sequence[_Call]:
        calls = [self._call(member, size // len(members)) for member in members if member is not None]
        ids = [len(call.given_id) for call in calls if call.given_id is not None]
        batch = Batch(ids, self._answer_bytes_max)
        if not batch.fits:
            message = f"The answers to a batch of {len(members)} requests do not fit into the message limit."
            return (_Call(Fault(INVALID_REQUEST, "invalid_request", message), NULL_ID, 0),)
        for call in calls:
            call.batch = batch
        return calls

    def _call(self, message: Request | Fault, size: int) -> _Call:
        if isinstance(message, Fault):
            given_id = message.id
        elif message.id is ABSENT:
            return _Call(message, None, size)
        else:
            given_id = bytes(message.id)
        if len(given_id) > self._answer_bytes_max // 2:
            message = Fault(INVALID_REQUEST, "invalid_request", "The id is longer than half the message limit.")
            given_id = NULL_ID
        return _Call(message, given_id, size)

    def _admit(self, call: _Call) -> bool:
        """Begin a request, or keep it for later. True when others should get a turn before the next one."""
        message = call.message
        if isinstance(message, Request) and message.method == CANCEL_REQUEST:
            # Overtakes what waits, or it could never cancel it. Its own answer has to wait like any other.
            key = cancelled_id(message.params)
            call.message = NO_ID_TO_CANCEL if key is None else Success(CANCEL_REQUEST, None)
            self._cancel(key)
        if not self._queue and not self._outbox.full:
            return self._begin(call) or self._queue_bytes > QUEUE_BYTES_MAX
        self._queue.append(call)
        self._queue_bytes += call.size + CALL_BYTES
        self._know(call)
        return self._queue_bytes > QUEUE_BYTES_MAX

    async def _give_way(self) -> None:
        await self._take_turns()
        while self._queue_bytes > QUEUE_BYTES_MAX:
            await self._change()

    # --- running -----------------------------------------------------------------------------------------------------

    def _may_start(self, work: Work) -> bool:
        if self._outbox.full:
            return False
        if work.bulky:
            return self._running_bulky < BULKY_RUNNING_MAX
        return self._running < (URGENT_RUNNING_MAX if work.method in URGENT else RUNNING_MAX)

    async def _begin_waiting(self) -> None:
        """Begin the requests that had to wait, as soon as there is room."""
        try:
            while True:
                while self._queue and not self._outbox.full:
                    call = self._queue.popleft()
                    self._queue_bytes -= call.size + CALL_BYTES
                    self._forget(call)
                    if self._begin(call):
                        await self._take_turns()
                for queue in (self._bulky, self._ordinary):
                    while queue and (work := queue[0].work) is not None and self._may_start(work):
                        call = queue.popleft()
                        self._queue_bytes -= WORK_BYTES
                        self._start(call, work)
                        await self._take_turns()
                self._write_now()
                self._note_change()
                await self._change()
        finally:
            for call in (*self._bulky, *self._ordinary):
                self._withdraw(call)
            self._bulky.clear()
            self._ordinary.clear()

    async def _take_turns(self) -> None:
        self._inline = 0
        self._write_now()
        await checkpoint()

    def _begin(self, call: _Call) -> bool:
        """Answer a request, or have a task do so. True when others should get a turn before the next one."""
        message = call.message
        if isinstance(message, Request):
            outcome = CANCELLED if call.cancelled else self._dispatcher.begin(message)
            if isinstance(outcome, Work):
                call.message = CANCELLED  # lets go of the line that the request is a view of
                self._know(call)
                queue = self._bulky if outcome.bulky else self._ordinary
                if (not queue or outcome.method in URGENT) and self._may_start(outcome):
                    self._start(call, outcome)
                    # It takes its first step before the next request begins: requests begin in the order they came.
                    return True
                call.work = outcome
                queue.append(call)
                self._queue_bytes += WORK_BYTES
                return False
        else:
            outcome = message
        self._answer(call, outcome)
        self._inline += 1
        return self._inline >= INLINE_MAX

    def _start(self, call: _Call, work: Work) -> None:
        call.work = None
        call.scope = anyio.CancelScope()
        self._running += 1
        self._running_bulky += work.bulky
        if self._tasks is not None:
            self._tasks.start_soon(self._wait_for, call, call.scope, work)

    async def _wait_for(self, call: _Call, scope: anyio.CancelScope, work: Work) -> None:
        outcome: Outcome = CANCELLED
        try:
            with scope:
                outcome = await work.finish()
            # However many end while the shell does not read, what they answer becomes lines only as it reads.
            while self._outbox.full:
                await self._change()
        finally:
            # Also when the cancellation came from elsewhere: every request is answered.
            self._answer(call, outcome)
            self._pending.set()
            self._running -= 1
            self._running_bulky -= work.bulky
            self._forget(call)
            self._note_change()

    def _know(self, call: _Call) -> None:
        if call.given_id is not None:
            self._known.setdefault(id_key(call.given_id), []).append(call)

    def _forget(self, call: _Call) -> None:
        if call.given_id is None:
            return
        key = id_key(call.given_id)
        calls = self._known[key]
        calls.remove(call)
        if not calls:
            del self._known[key]

    def _cancel(self, key: bytes | str | None) -> None:
        if key is None:
            return
        for call in tuple(self._known.get(key, ())):
            call.cancelled = True
            if call.scope is not None:
                call.scope.cancel()
            elif call.work is not None:
                (self._bulky if call.work.bulky else self._ordinary).remove(call)
                self._queue_bytes -= WORK_BYTES
                self._withdraw(call)

    def _withdraw(self, call: _Call) -> None:
        """Take back what waits to be begun, and say so."""
        if call.work is not None:
            call.work.drop()
            call.work = None
            self._answer(call, CANCELLED)
            self._forget(call)
            self._note_change()

    def _answer(self, call: _Call, outcome: Outcome) -> None:
        given_id, batch = call.given_id, call.batch
        if given_id is None:
            return
        if batch is None:
            self._outbox.answer(encode(outcome, given_id, self._answer_bytes_max))
            return
        room = batch.room(len(given_id))
        if self._held_bytes > self._answer_bytes_max:
            room = min(room, STAND_IN_BYTES + len(given_id))  # batches that wait hold a whole line of answers already
        answer = encode(outcome, given_id, room)
        self._held_bytes += len(answer)
        line = batch.put(answer, len(given_id))
        if line is not None:
            self._held_bytes -= batch.held_bytes
            self._outbox.answer(line)

    # --- writing -----------------------------------------------------------------------------------------------------

    def _write_now(self) -> bool:
        """Write what goes without waiting; the writer does the rest. True when nothing is left."""
        output = self._output
        if output is None or self._blocked:
            return False
        try:
            while data := self._outbox.peek():
                written = output.write_now(data)
                self._outbox.wrote(written)
                if written < len(data):
                    self._blocked = True
                    self._pending.set()
                    return False
        except OSError:
            self._break()
        return True

    async def _write(self, *, task_status: TaskStatus[None]) -> None:
        """Write what others have not written at once, for as long as there is somebody who reads."""
        self._output = output = open_output(self._out_fd)
        self._outbox.on_pending = self._wake
        task_status.started()
        try:
            while not self._broken:
                if self._blocked:
                    await output.ready()
                    self._blocked = False
                done = self._write_now()
                self._note_change()
                if done and not self._broken:
                    self._pending = anyio.Event()
                    await self._pending.wait()
        finally:
            self._output = None
            self._blocked = False
            self._outbox.on_pending = None
            output.close()

    async def _watch(self) -> None:
        """Notice that nobody reads any more, also while there is nothing to write."""
        await wait_broken(self._out_fd)
        self._break()

    def _wake(self) -> None:
        self._pending.set()

    def _break(self) -> None:
        """Nobody reads any more: the shell is gone."""
        self._broken = True
        self._outbox.abandon()
        self._reading.cancel()
        self._note_change()
        self._pending.set()
