"""Empties the workers' record rings into lines and `on_records`, in batches, on a thread of its own."""

import logging
import select
import threading

from libc.stdint cimport uint32_t
from libc.stdlib cimport free

from lbcore.from_core cimport read_record
from lbcore.parts.cells cimport name_unref
from lbcore.parts.rings cimport ring_awake, ring_may_sleep, ring_pop, ring_wake
from lbcore.record_lines cimport LineBuffer
from lbcore.structs cimport record_t
from lbcore.sys.atomics cimport word_write

LOG = logging.getLogger("lbcore")

PAUSE = 0.1                      # seconds to gather a batch in: each wake-up costs the workers their caches


cdef class RecordService:
    """Made with the engine, started and closed by it. Without `on_records` and `lines` there is no thread."""

    def __init__(self, on_records, lines, boot, app_names):
        self.on_records = on_records
        self.lines = None if lines is None else LineBuffer(lines)
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
            batch = []
            for i in range(self.node.worker_count):
                batch = self._drain(self.node.workers[i], batch)
            self._deliver(batch)
            self._write_lines()
            if stopping:
                return
            self._sleep(poll)

    def _sleep(self, poll):
        cdef uint32_t i
        asleep = True
        for i in range(self.node.worker_count):
            asleep = ring_may_sleep(&self.node.workers[i].records) and asleep
        if asleep:
            poll.poll()
        for i in range(self.node.worker_count):
            ring_awake(&self.node.workers[i].records)
        self.stopping.wait(PAUSE)

    def _deliver(self, batch):
        if not batch or self.on_records is None:
            return
        try:
            self.on_records(batch)
        except BaseException:            # SystemExit too: the records after it are wanted
            LOG.exception("on_records failed; %d records are lost", len(batch))

    def _write_lines(self):
        if self.lines is None:
            return
        try:
            self.lines.flush()
        except BaseException:
            LOG.exception("record_lines.write failed; some records are lost")

    cdef list _drain(self, worker_t *worker, list batch):
        """Records that came after a line wait until it is written, and the other way round."""
        cdef record_t entry
        while ring_pop(&worker.records, &entry):
            try:
                if self._take_line(&entry):
                    if batch:
                        self._deliver(batch)
                        batch = []
                elif self.on_records is not None:
                    self._write_lines()
                    batch.append(read_record(&entry, self.boot, self.app_names))
            except Exception:
                LOG.exception("a record could not be read")
            finally:
                name_unref(entry.client)
                name_unref(entry.upstream)
                free(entry.leaf)
        return batch

    cdef bint _take_line(self, const record_t *entry) except -1:
        if self.lines is None:
            return False
        if self.lines.is_full():
            self._write_lines()
        return self.lines.take(entry, self.boot_text, self.app_names.get(entry.app_id))
