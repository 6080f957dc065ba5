"""Socket options, each with its reason. Any thread."""

from libc.stdint cimport uint32_t

from lbcore.sys.linux cimport (
    IPPROTO_TCP,
    POLLERR,
    POLLHUP,
    POLLRDHUP,
    SIOCOUTQ,
    SO_ERROR,
    SO_KEEPALIVE,
    SO_LINGER,
    SOL_SOCKET,
    TCP_CONGESTION,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_NODELAY,
    TCP_USER_TIMEOUT,
    errno,
    getpeername,
    getsockopt,
    ioctl,
    linger,
    memcmp,
    poll,
    pollfd,
    setsockopt,
    sockaddr,
    sockaddr_in6,
    socklen_t,
)

cdef enum:
    PROBES = 3
    PROBE_INTERVAL_S = 10


cdef int set_option(int fd, int level, int option, int value) noexcept nogil:
    return 0 if setsockopt(fd, level, option, &value, sizeof(value)) == 0 else errno


cdef int socket_tune(int fd) noexcept nogil:
    """No delay for small writes."""
    return set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1)


cdef int socket_keep_alive(int fd, uint32_t keepalive_s) noexcept nogil:
    """A peer that vanished is noticed by keep-alive when nothing is sent and by the user timeout (RFC 5482)
    when something is; with that one set, the number of probes counts for nothing (tcp(7)). On a listening
    socket, every accepted one inherits it, which spares four system calls a connection."""
    cdef int problem
    if keepalive_s == 0:
        return 0
    problem = set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
    if problem == 0:
        problem = set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, <int>keepalive_s)
    if problem == 0:
        problem = set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, PROBE_INTERVAL_S)
    if problem == 0:
        problem = set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
                             <int>(keepalive_s + PROBES * PROBE_INTERVAL_S) * 1000)
    return problem


cdef bint socket_is_connected(int fd) noexcept nogil:
    """Whether a dial that is in progress has succeeded: getpeername(2), the cheapest question to a socket."""
    cdef sockaddr_in6 peer
    cdef socklen_t length = sizeof(peer)
    return getpeername(fd, <sockaddr *>&peer, &length) == 0


cdef bint socket_is_paced(int fd) noexcept nogil:
    """BBR, of whatever version, is the one in Linux that does so."""
    cdef char name[16]                   # TCP_CA_NAME_MAX
    cdef socklen_t length = sizeof(name)
    return getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length) == 0 and memcmp(name, b"bbr", 3) == 0


cdef void socket_will_reset(int fd) noexcept nogil:
    cdef linger option
    option.l_onoff = 1
    option.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &option, sizeof(option))


cdef int socket_unacknowledged(int fd) noexcept nogil:
    cdef int bytes_left = 0
    if ioctl(fd, SIOCOUTQ, &bytes_left) != 0:
        return 0
    return bytes_left


cdef bint socket_has_ended(int fd) noexcept nogil:
    """A peek cannot tell: it finds the bytes before the end again and again."""
    cdef pollfd watched
    watched.fd = fd
    watched.events = POLLRDHUP
    watched.revents = 0
    return poll(&watched, 1, 0) == 1 and watched.revents & (POLLRDHUP | POLLHUP | POLLERR) != 0


cdef int socket_error(int fd) noexcept nogil:
    cdef int problem = 0
    cdef socklen_t length = sizeof(problem)
    if getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &length) != 0:
        return errno
    return problem
