/* Puts the script in the place of the kernel's patience: preloaded into the process that is counted.
 *
 * While a script is given, the worker's epoll_wait does not sleep: when nothing is ready it asks the script to
 * do the next thing a client or an upstream does, on the same thread. So one thread does everything, in the
 * same order in every run, and the loop that is counted is the worker's own. Its clock begins at the same place
 * and stands still but for TURN_NS a wake-up. What is to be counted is told to callgrind from here.
 *
 * The other threads of the process, and every call with another epoll descriptor, get what libc gives.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <time.h>
#include <valgrind/callgrind.h>

#define BEGIN_SHIFT 37 /* the clock begins at a multiple of 2^37 ns: at the first slot of the timer wheel,
                          which has 2^12 of 2^25 ns (parts/timers.pyx) */
#define TURN_NS 20000 /* as the clock sees it, a wake-up takes that long */
#define LATE_MS 5     /* how long to wait for a packet that loopback has not delivered yet */

enum { SCRIPT_ENDS, SCRIPT_ACTED, SCRIPT_WAITS }; /* as in script.py */

typedef int (*script_t)(void);
typedef int (*wait_t)(int, struct epoll_event *, int, int);
typedef int (*gettime_t)(clockid_t, struct timespec *);

static wait_t real_wait;
static gettime_t real_gettime;
static script_t script;
static char worker_name[16];
static __thread unsigned long long frozen_ns; /* 0: this thread's clock is the machine's */

__attribute__((constructor)) static void find(void) {
    real_wait = (wait_t)dlsym(RTLD_NEXT, "epoll_wait");
    real_gettime = (gettime_t)dlsym(RTLD_NEXT, "clock_gettime");
}

static unsigned long long machine_ns(void) {
    struct timespec now;
    real_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static int is_worker(void) {
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof(name));
    return __builtin_strcmp(name, worker_name) == 0;
}

/* The thread of that name runs the script from its next epoll_wait on. */
void steps_begin(const char *thread, script_t given) {
    __builtin_strncpy(worker_name, thread, sizeof(worker_name) - 1);
    __atomic_store_n(&script, given, __ATOMIC_SEQ_CST);
}

void steps_count(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void steps_counted(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}

static int next_step(void) {
    unsigned long long kept_ns = frozen_ns;
    frozen_ns = 0; /* the script lives in the machine's time */
    int said = script();
    frozen_ns = kept_ns;
    return said;
}

int epoll_wait(int epoll, struct epoll_event *events, int capacity, int timeout_ms) {
    int count;
    if (__atomic_load_n(&script, __ATOMIC_SEQ_CST) == NULL || !is_worker())
        return real_wait(epoll, events, capacity, timeout_ms);
    if (frozen_ns == 0)
        frozen_ns = ((machine_ns() >> BEGIN_SHIFT) + 1) << BEGIN_SHIFT;
    count = real_wait(epoll, events, capacity, 0);
    while (count == 0 && timeout_ms != 0) {
        int said = next_step();
        if (said == SCRIPT_ENDS) {
            __atomic_store_n(&script, NULL, __ATOMIC_SEQ_CST);
            frozen_ns = 0;
            return 0;
        }
        count = real_wait(epoll, events, capacity, said == SCRIPT_WAITS ? LATE_MS : 0);
    }
    frozen_ns += TURN_NS;
    return count;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (frozen_ns == 0 || clock != CLOCK_MONOTONIC)
        return real_gettime(clock, now);
    now->tv_sec = frozen_ns / 1000000000ull;
    now->tv_nsec = frozen_ns % 1000000000ull;
    return 0;
}
