"""What is done to a socket besides reading and writing."""

from libc.stdint cimport uint32_t

# 0 or an errno.
cdef int socket_tune(int fd) noexcept nogil
# The same; 0 seconds: no keep-alive.
cdef int socket_keep_alive(int fd, uint32_t keepalive_s) noexcept nogil
cdef bint socket_is_connected(int fd) noexcept nogil
# Whether its congestion control lets bytes out by timers.
cdef bint socket_is_paced(int fd) noexcept nogil
# The next close sends RST and forgets what is unsent.
cdef void socket_will_reset(int fd) noexcept nogil
# Bytes the peer has not acknowledged.
cdef int socket_unacknowledged(int fd) noexcept nogil
# Whether the peer has ended, or the connection is broken: no byte will come but those that are here.
cdef bint socket_has_ended(int fd) noexcept nogil
# The pending error, cleared.
cdef int socket_error(int fd) noexcept nogil
