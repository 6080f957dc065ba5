/* The system calls of every byte, without glibc's wrappers: recv, send, splice and epoll_wait are cancellation
 * points (pthreads(7)), and in a process with threads each costs two atomic operations. Nobody cancels a
 * worker. Results and errno are those of the wrappers. */
#ifndef LBCORE_DIRECT_H
#define LBCORE_DIRECT_H

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

/* The sanitizers look at what goes through the wrappers. */
#define lbcore_recv recv
#define lbcore_send send
#define lbcore_splice splice
#define lbcore_epoll_wait epoll_wait

#else

static inline ssize_t lbcore_recv(int fd, void *buffer, size_t length, int flags)
{
    return syscall(SYS_recvfrom, fd, buffer, length, flags, NULL, NULL);
}

static inline ssize_t lbcore_send(int fd, const void *buffer, size_t length, int flags)
{
    return syscall(SYS_sendto, fd, buffer, length, flags, NULL, 0);
}

static inline ssize_t lbcore_splice(int source, void *source_offset, int target, void *target_offset,
                                    size_t length, unsigned int flags)
{
    return syscall(SYS_splice, source, source_offset, target, target_offset, length, flags);
}

/* epoll_pwait: newer architectures have no epoll_wait. */
static inline int lbcore_epoll_wait(int epoll, struct epoll_event *events, int capacity, int timeout_ms)
{
    return (int)syscall(SYS_epoll_pwait, epoll, events, capacity, timeout_ms, NULL, 0);
}

#endif
#endif
