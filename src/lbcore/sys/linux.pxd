"""What the core takes from Linux and from libc. Declarations only.

Everything here is `noexcept nogil`: results are checked where they are used.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "errno.h" nogil:
    int errno
    int EAGAIN, EINTR, EIO, EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EINPROGRESS, ETIMEDOUT
    int ECONNRESET, EPIPE, EADDRNOTAVAIL, EPERM, EINVAL, EPROTO, EMSGSIZE, ECONNREFUSED

cdef extern from "string.h" nogil:
    void *memcpy(void *target, const void *source, size_t length)
    void *memmove(void *target, const void *source, size_t length)
    void *memset(void *target, int value, size_t length)
    int memcmp(const void *a, const void *b, size_t length)
    size_t strlen(const char *text)

cdef extern from "stdlib.h" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "sys/mman.h" nogil:
    void *mmap(void *where, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *memory, size_t length)
    void *MAP_FAILED
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC, CLOCK_REALTIME
    int clock_gettime(int clock, timespec *now)
    struct tm:
        pass
    tm *gmtime_r(const int64_t *seconds, tm *out)      # time_t
    size_t strftime(char *out, size_t room, const char *format, const tm *when)

cdef extern from "unistd.h" nogil:
    int close(int fd)
    ssize_t read(int fd, void *buffer, size_t length)
    ssize_t write(int fd, const void *buffer, size_t length)
    int pipe2(int *fds, int flags)
    int O_NONBLOCK, O_CLOEXEC

cdef extern from "fcntl.h" nogil:
    int fcntl(int fd, int command, ...)
    ssize_t splice(int source, void *source_offset, int target, void *target_offset, size_t length,
                   unsigned int flags)
    unsigned int SPLICE_F_MOVE, SPLICE_F_NONBLOCK
    int F_SETPIPE_SZ, F_GETPIPE_SZ, F_GETFL, F_SETFL

cdef extern from "signal.h" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_SETMASK
    int sigfillset(sigset_t *signals)
    int pthread_sigmask(int how, const sigset_t *signals, sigset_t *old)

cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_create(pthread_t *thread, void *attributes, void *(*entry)(void *) noexcept nogil,
                       void *argument)
    int pthread_join(pthread_t thread, void **result)
    int pthread_setname_np(pthread_t thread, const char *name)
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef extern from "sys/eventfd.h" nogil:
    int eventfd(unsigned int value, int flags)
    int EFD_NONBLOCK, EFD_CLOEXEC

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int capacity, int timeout_ms)
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLEXCLUSIVE, EPOLLET

cdef extern from "poll.h" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *watched, unsigned long count, int timeout_ms)
    short POLLRDHUP, POLLHUP, POLLERR

cdef extern from "sys/ioctl.h" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "linux/sockios.h" nogil:
    unsigned long SIOCOUTQ

cdef extern from "netinet/in.h" nogil:
    struct in6_addr:
        uint8_t s6_addr[16]
    struct in_addr:
        uint32_t s_addr
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
    int AF_INET, AF_INET6, AF_UNIX, IPPROTO_TCP, IPPROTO_IPV6, IPV6_V6ONLY
    uint16_t ntohs(uint16_t value)
    uint16_t htons(uint16_t value)

cdef extern from "netinet/tcp.h" nogil:
    int TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_USER_TIMEOUT, TCP_CONGESTION

cdef extern from "sys/socket.h" nogil:
    struct linger:
        int l_onoff
        int l_linger
    ctypedef uint32_t socklen_t
    int SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SO_LINGER, SO_ERROR, SO_KEEPALIVE
    int SHUT_WR, SHUT_RDWR, MSG_NOSIGNAL, MSG_DONTWAIT, MSG_PEEK
    int socket(int family, int kind, int protocol)
    int connect(int fd, const sockaddr *address, socklen_t length)
    int accept4(int fd, sockaddr *address, socklen_t *length, int flags)
    int getpeername(int fd, sockaddr *address, socklen_t *length)
    int getsockname(int fd, sockaddr *address, socklen_t *length)
    int getsockopt(int fd, int level, int option, void *value, socklen_t *length)
    int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
    int shutdown(int fd, int how)
    ssize_t recv(int fd, void *buffer, size_t length, int flags)
    ssize_t send(int fd, const void *buffer, size_t length, int flags)


cdef inline uint64_t monotonic_ns() noexcept nogil:
    """Nanoseconds on the clock that never steps; every deadline is on it."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


cdef inline uint64_t wall_ns() noexcept nogil:
    """Nanoseconds since the epoch, for stamps that people read; never for a deadline."""
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec

cdef extern from "arpa/inet.h" nogil:
    const char *inet_ntop(int family, const void *address, char *text, socklen_t room)
    int inet_pton(int family, const char *text, void *address)
