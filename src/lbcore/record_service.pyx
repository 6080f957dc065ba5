"""Empties the workers' record rings into lines or `on_records`, in batches, on a thread of its own."""

import logging
import select
import threading
import time

from libc.stdint cimport uint32_t
from libc.stdlib cimport free

from lbcore.codes import REASONS

from lbcore.from_core cimport read_record, show_name
from lbcore.parts.cells cimport name_unref
from lbcore.parts.rings cimport ring_awake, ring_may_sleep, ring_pop, ring_wake
from lbcore.record_lines cimport LineBuffer
from lbcore.record_selection cimport Selector
from lbcore.structs cimport record_t
from lbcore.sys.atomics cimport word_write

LOG = logging.getLogger("lbcore")

PAUSE = 0.1                      # seconds to gather a batch in: each wake-up costs the workers their caches


cdef class RecordService:
    """Made with the engine, started and closed by it. Without `on_records` and `lines` there is no thread."""

    def __init__(self, on_records, lines, selection, boot, app_names):
        self.on_records = on_records
        self.lines = None if lines is None else LineBuffer(lines)
        self.selector = Selector(selection, time.monotonic())
        self.on_sums = selection.on_sums
        self.boot = boot
        self.boot_text = boot.encode()
        self.app_names = app_names
        self.stopping = threading.Event()

    cdef start(self, node_t *node):
        self.node = node
        if self.on_records is not None or self.lines is not None:
            self.thread = threading.Thread(target=self._serve, name="lbcore-records", daemon=True)
            self.thread.start()

    def owns(self, thread):
        """Whether it is the service's own thread."""
        return thread is self.thread

    cdef bint close(self, double timeout) except -1:
        """After the workers have ended: delivers what is left. False: `on_records` does not return."""
        cdef uint32_t i
        if self.thread is None:
            return True
        self.stopping.set()
        for i in range(self.node.worker_count):
            word_write(&self.node.workers[i].records.sleeping, 1)
            ring_wake(&self.node.workers[i].records)
        self.thread.join(timeout)
        return not self.thread.is_alive()

    def _serve(self):
        cdef uint32_t i
        poll = select.poll()
        for i in range(self.node.worker_count):
            poll.register(self.node.workers[i].records.wake_fd, select.POLLIN)
        while True:
            stopping = self.stopping.is_set()
            self._deliver_sums(self.selector.roll(time.monotonic()))
            batch = []
            for i in range(self.node.worker_count):
                self._drain(self.node.workers[i], batch)
            self._deliver(batch)
            if stopping:
                self._deliver_sums(self.selector.flush(time.monotonic()))
                return
            self._sleep(poll)

    def _sleep(self, poll):
        cdef uint32_t i
        asleep = True
        for i in range(self.node.worker_count):
            asleep = ring_may_sleep(&self.node.workers[i].records) and asleep
        if asleep:
            poll.poll(self._patience_ms())
        for i in range(self.node.worker_count):
            ring_awake(&self.node.workers[i].records)
        self.stopping.wait(PAUSE)

    def _patience_ms(self):
        """Sums are due though nothing more comes."""
        return 1000 * self.selector.left(time.monotonic()) if self.selector.summed else None

    def _deliver(self, batch):
        if self.lines is not None:
            self.lines.flush()
        if not batch:
            return
        try:
            self.on_records(batch)
        except BaseException:            # SystemExit too: the records after it are wanted
            LOG.exception("on_records failed; %d records are lost", len(batch))

    def _deliver_sums(self, sums):
        if not sums or self.on_sums is None:
            return
        try:
            self.on_sums(sums)
        except BaseException:
            LOG.exception("on_sums failed; %d sums are lost", len(sums))

    cdef _drain(self, worker_t *worker, list batch):
        cdef record_t entry
        while ring_pop(&worker.records, &entry):
            try:
                if self._is_wanted(&entry):
                    self._take(&entry, batch)
            except BaseException:        # `line` is somebody else's too
                LOG.exception("a record could not be made; it is lost")
            finally:
                name_unref(entry.client)
                name_unref(entry.upstream)
                free(entry.leaf)

    cdef bint _is_wanted(self, const record_t *entry) except -1:
        """A name that was claimed and not proven is a stranger's."""
        if entry.forwarded:
            return self.selector.finished()
        client = None if entry.claimed else show_name(entry.client)
        return self.selector.refused(self.app_names.get(entry.app_id), client, REASONS[<int>entry.reason])

    cdef _take(self, const record_t *entry, list batch):
        if self.lines is None:
            batch.append(read_record(entry, self.boot, self.app_names))
        elif not self.lines.take(entry, self.boot_text, self.app_names.get(entry.app_id)):
            self.lines.put_text_of(read_record(entry, self.boot, self.app_names))
