"""The epoll set of a worker.

Level-triggered: a stage may stop after a bounded amount of work and is called again. Interest changes
only when it really changes, since each change is a system call. EPOLLERR and EPOLLHUP are reported
whatever the interest is, so a leg that has hung up and has nothing to read now is taken out of the set
and put back when it wants something again.

Any thread may call this on its own epoll descriptor.
"""

from lbcore.parts.poller cimport event_tag
from lbcore.structs cimport LEG_HUNG_UP
from lbcore.sys.linux cimport EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, epoll_ctl, epoll_event, errno


cdef int poller_control(int epoll_fd, int operation, int fd, uint32_t events, uint64_t tag) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = tag
    if epoll_ctl(epoll_fd, operation, fd, &event) != 0:
        return errno
    return 0


cdef int poller_add(int epoll_fd, int fd, uint32_t events, uint64_t tag) noexcept nogil:
    return poller_control(epoll_fd, EPOLL_CTL_ADD, fd, events, tag)


cdef void poller_remove(int epoll_fd, int fd) noexcept nogil:
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL)


cdef int poller_want(int epoll_fd, conn_t *conn, leg_t *leg, uint32_t wanted) noexcept nogil:
    cdef int operation
    cdef int problem
    cdef uint64_t tag
    if leg.fd < 0:
        return 0
    if wanted == 0 and leg.flags & LEG_HUNG_UP:
        if leg.watched:
            poller_remove(epoll_fd, leg.fd)
            leg.watched = False
            leg.interest = 0
        return 0
    if leg.watched and leg.interest == wanted:
        return 0
    tag = event_tag(EVENT_UPSTREAM if leg is &conn.upstream else EVENT_CLIENT, conn.index, conn.generation)
    operation = EPOLL_CTL_MOD if leg.watched else EPOLL_CTL_ADD
    problem = poller_control(epoll_fd, operation, leg.fd, wanted, tag)
    if problem == 0:
        leg.watched = True
        leg.interest = wanted
    return problem
