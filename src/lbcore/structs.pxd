"""Every struct that modules share, and who owns and writes each field.

Cells (app, upstream, limiter, verdict, TLS generation, name, listener, policy) are reference-counted
and live as long as anything points at them; connections reference cells, never a snapshot. A snapshot
only points at cells, so counts and buckets survive a change of configuration.

Modules are compiled apart, and C does not check that they saw the same layout: setup.py gives each
module a hash of the .pxd and .h files, and lbcore/__init__.py refuses modules that disagree.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbcore.codes cimport reason_t, stage_t
from lbcore.sys.atomics cimport counter_t, gauge_t, refs_t, word_t
from lbcore.sys.linux cimport pthread_t, sockaddr_in6
from lbcore.tls.engine cimport tls_engine_t, tls_io_t, tls_pool_t


cdef enum:
    SERIAL_OCTETS_MAX = 20       # RFC 5280, 4.1.2.2
    DIAL_ATTEMPTS_MAX = 8
    WORKERS_MAX = 64
    SCOPE_DEPTH_MAX = 4          # a limiter and the scopes around it
    SCOPES_MAX = 12              # of one connection: the verdict's, the submitter's, the application's


# ---- cells ---------------------------------------------------------------------------------------

cdef struct name_t:              # immutable UTF-8 text, shared by whoever shows it
    refs_t refs
    uint32_t length
    char text[1]                 # `length` bytes and a NUL; allocated to fit


cdef enum scope_t:
    SCOPE_NONE = 0
    SCOPE_CLIENT
    SCOPE_APP
    SCOPE_GLOBAL


cdef enum limit_mode_t:
    MODE_REFUSE = 0
    MODE_DELAY                   # hold the connection until it may
    MODE_SHADOW                  # admit it and count


cdef struct window_t:            # stamps: any thread; the rest: set when made
    word_t head                  # stamps ever written; the next one goes to place head % max
    uint64_t max                 # opens in any period
    uint64_t period_ns
    word_t *stamps               # `max` places, see parts/opening.pyx; owned


cdef struct bandwidth_t:         # due: any thread; the rest: set when made
    word_t due                   # bytes: GCRA on a clock that runs at `rate` bytes a second
    uint64_t rate                # bytes a second; 0: no limit
    uint64_t burst               # bytes that may come at once


cdef struct succession_t:        # who is replaced first: open connections of a limiter, oldest first
    word_t members               # how many, and the node they belong to: see parts/succession.pyx
    word_t oldest[64]            # by worker: id of its oldest connection, 0: none; any thread reads
    conn_t *heads[64]            # by worker, and only that worker's
    conn_t *tails[64]


cdef enum proxy_t:               # the PROXY header an upstream gets
    PROXY_NONE = 0
    PROXY_V1
    PROXY_V2                     # addresses and the connection's id
    PROXY_V2_TLS                 # and who the client is


cdef enum direction_t:
    DIRECTION_IN = 0             # from the client to the upstream
    DIRECTION_OUT = 1


cdef struct limiter_t:           # counters: any thread; the rest: set when made
    gauge_t open                 # admitted and not closed
    word_t next_ns               # GCRA: the theoretical arrival time of the next open
    counter_t admitted
    counter_t refused
    counter_t would_refuse       # admitted only because the mode is shadow
    counter_t bytes_in           # of connections that ended, and what Python reported
    counter_t bytes_out
    word_t waiting               # delayed connections that this scope holds back
    word_t queued                # delayed connections whose innermost scope this is
    bandwidth_t bandwidth[2]     # by direction_t
    refs_t refs
    limiter_t *parent            # the scope around this one, owned (a reference)
    window_t *window             # or NULL; owned
    succession_t *succession     # or NULL: the oldest connection is not replaced; owned
    int64_t open_max             # 0: no cap
    uint64_t interval_ns         # time one open costs; 0: no rate
    uint64_t burst_ns            # time that may be owed at once: burst x interval
    uint64_t lifetime_ns         # 0: no end
    uint64_t wait_max_ns         # for MODE_DELAY
    limit_mode_t mode
    scope_t scope


cdef struct stamp_t:             # what was written into a scope's window, and where
    uint64_t value
    uint32_t place


cdef struct taken_t:             # what one open took in its scopes, to be given back
    uint16_t rated               # bit per scope: a token
    uint16_t windowed            # bit per scope: a stamp
    stamp_t *stamps              # by scope; NULL: none of them has a window


cdef struct scopes_t:            # all limiters one connection counts in, inner to outer, each once
    limiter_t *items[12]         # borrowed
    uint32_t count
    bint windowed                # one of them has a window


cdef enum upstream_flag_t:
    UPSTREAM_DRAINING = 1        # takes no new connections: said by the operator
    UPSTREAM_DOWN = 2            # ... because it fails its checks


cdef struct upstream_t:          # counters and words: any thread; the rest: set when made
    gauge_t in_flight            # picked and not given back: dialling and open connections
    word_t flags                 # upstream_flag_t
    word_t quarantined_until_ns  # 0: not; then one connection may find out. Passive health, monotonic clock
    word_t weight
    word_t ramp_from_ns          # 0: no slow start; when it came into the pool
    int64_t in_flight_max        # 0: no cap
    counter_t picked
    counter_t errors             # failed dials and early resets, all of them
    counter_t quarantines        # times it was taken out of the pool
    word_t failing               # consecutive failed dials
    word_t resetting             # consecutive connections that were reset before they had a byte
    word_t backoff               # quarantines in a row: each is longer than the one before
    word_t returned_ns           # when the last one was over
    refs_t refs
    uint64_t id                  # never reused in this process
    uint64_t hash                # of its name: what affinity goes by
    uint16_t mark                # no other one of its pool has it: for a connection to know whom it has tried
    name_t *name                 # as the operator wrote it; owned
    tls_generation_t *tls        # how to speak TLS to it, or NULL; owned, set before it is in a pool at work
    name_t *tls_name             # what its certificate must say, or NULL; owned
    bint tls_name_is_address
    uint8_t address[110]         # a sockaddr_in, _in6 or _un
    uint32_t address_length


cdef struct pool_t:              # the upstreams of an application, at one time; frozen
    uint32_t count
    uint32_t quarantined_max     # how many may be out at once after failures
    upstream_t *upstreams[1]     # `count` references; allocated to fit


cdef struct app_t:               # counters: any thread; the rest: set when made
    gauge_t open                 # past accept, not closed
    word_t quarantining          # 1 while a thread decides whether to leave one out
    counter_t health_turns       # upstreams that went into quarantine, or came back
    counter_t rotor              # turns handed out: where the next connection starts to look
    counter_t accepted
    counter_t forwarded
    counter_t bytes_in
    counter_t bytes_out
    counter_t ended[64]          # by reason_t
    refs_t refs
    uint64_t id
    name_t *name
    word_t pool                  # pool_t *, owned: see parts/cells.pxd
    limiter_t *limiter           # the application's own scope, or NULL
    uint64_t connect_timeout_ns
    uint64_t idle_timeout_ns
    uint64_t half_close_timeout_ns
    uint64_t quarantine_ns       # how long an upstream that fails is left out the first time
    uint64_t slow_start_ns       # 0: off; until an upstream that came back has its whole weight
    uint32_t connect_attempts
    uint32_t failures_max        # consecutive failures before an upstream is left out; 0: never
    uint32_t keepalive_s
    bint truncated_is_eof
    bint by_client               # a client keeps its upstream
    proxy_t proxy                # what an upstream is told first


cdef struct revoked_t:           # what the CA's revocation lists say; frozen, one block of memory
    uint64_t ends_ns             # wall clock: when the first of the lists is out of date
    uint32_t count
    uint8_t *serials             # SERIAL_OCTETS_MAX each, zeros in front; ascending


cdef struct validity_t:          # of a certificate; seconds since 1970
    int64_t from_s
    int64_t until_s


cdef struct tls_generation_t:    # one certificate, key, CA and its revocation lists; frozen
    refs_t refs
    revoked_t *revoked           # owned; NULL: no lists
    const tls_engine_t *engine
    void *config
    uint64_t id                  # part of the verdict cache's key
    validity_t ca_validity       # of the one CA of clients; all zero: not known


cdef struct verdict_t:           # one answer of the policy; frozen
    refs_t refs
    name_t *client               # or NULL
    limiter_t *limiter           # or NULL
    reason_t reason              # REASON_NONE: allowed
    uint64_t listener_id
    uint64_t epoch
    uint64_t tls_id
    uint64_t expires_ns          # monotonic; 0: with the epoch
    uint64_t hash                # of `key`
    uint32_t key_length
    uint8_t key[1]               # the leaf's DER, or a source address; allocated to fit


cdef struct policy_entry_t:
    uint8_t serial[20]           # big endian, no leading zeros, `serial_length` octets
    uint8_t serial_length        # 0: an empty slot
    bint disabled
    uint32_t client              # index into names and rows


cdef struct policy_t:            # the native table: strangers are refused without Python; frozen
    refs_t refs
    policy_entry_t *entries      # open addressing, a power of two
    uint32_t mask
    name_t **clients
    uint32_t client_count
    name_t **apps
    uint32_t app_count
    uint8_t *allowed             # client_count x app_count


cdef struct network_t:
    uint8_t address[16]          # the first `octets` of it
    uint8_t octets               # 4 or 16: a network holds addresses of its own family only
    uint8_t bits                 # how many of them all its addresses share


cdef struct networks_t:          # frozen, one block of memory
    uint32_t count
    network_t items[1]           # `count` of them; allocated to fit


cdef struct listener_t:          # frozen but for the counters of its app
    refs_t refs
    uint64_t id
    int fd                       # shared by all workers; closed when the last reference goes
    app_t *app
    tls_generation_t *tls        # NULL: plaintext
    networks_t *fronts           # whose connections begin with a PROXY header; owned; NULL: nobody's
    bint asks                    # whether Python decides who passes (plaintext without limits: no)
    bint uses_policy             # whether the native table speaks for this listener


cdef struct snapshot_t:          # one configuration; frozen
    refs_t refs
    uint64_t epoch
    policy_t *policy             # or NULL
    listener_t **listeners
    uint32_t listener_count


# ---- buffers -------------------------------------------------------------------------------------

cdef struct chunk_t:             # bytes the kernel would not take; pooled by the worker
    chunk_t *next                # in the pool
    uint32_t room
    uint32_t start
    uint32_t length
    uint8_t size_class
    uint8_t data[1]              # `room` bytes


cdef struct pipe_t:              # a borrowed kernel pipe for splice
    pipe_t *next                 # in the pool
    int read_fd
    int write_fd
    uint32_t room
    uint32_t length              # bytes inside; only an empty pipe may go back


# ---- a connection --------------------------------------------------------------------------------

ctypedef uint8_t flag_t          # a truth value in one byte: there are many connections

cdef enum leg_flag_t:
    LEG_READABLE = 1             # epoll said so and nothing was read since
    LEG_ENDED = 2                # read side: no more bytes will come
    LEG_CLEAN = 4                # ... and that was a proper end (close_notify, or FIN on a plain leg)
    LEG_FINISHED = 8             # write side: our FIN (and close_notify) was sent
    LEG_BROKEN = 16              # the socket reported an error: nothing can be written
    LEG_HUNG_UP = 32             # epoll reports HUP or ERR, which cannot be masked
    LEG_BULK = 64                # much came in one read: worth a pipe, while it does; over TLS for good
    LEG_WRITABLE = 128           # epoll said so and nothing was written since
    LEG_NOTIFIED = 256           # close_notify was written; the FIN follows when all is sent
    LEG_GARBLED = 512            # its TLS could not be read any further
    LEG_SHRUNK = 1024            # its TLS state has given back what an idle one does not need
    LEG_KEPT_ALIVE = 2048        # its socket notices a peer that has vanished
    LEG_PIECEMEAL = 4096         # its socket lets bytes out by timers: it is given little at once
    LEG_CUT = 8192               # the last bytes of TLS were part of a record's header or of its body


cdef struct leg_t:               # one side of a connection; the worker's
    int fd                       # -1: not owned
    uint32_t flags               # leg_flag_t
    uint32_t interest            # what epoll watches; 0 with a descriptor: watched for nothing
    flag_t watched               # whether the descriptor is in the epoll set at all
    uint32_t batch               # how much the next read asks for
    uint32_t barren              # bytes of TLS records in a row that carried no data
    uint32_t barren_before       # of these, without the last record, which may still have some
    uint32_t owed                # an abort waits: what its peer had not acknowledged at the last look
    void *tls                    # engine connection, or NULL
    chunk_t *out                 # accepted from the other leg, not yet taken by the kernel
    pipe_t *pipe                 # bytes of *this* leg on their way to the other one, or NULL
    uint64_t bytes               # payload received from this leg
    int64_t lease                # bytes it may read before it asks its scopes' bandwidth again
    uint64_t ready_ns            # paused until then; 0: not paused


cdef struct flight_t:            # how far a client's plaintext handshake was looked at: parts/flight.pyx
    uint32_t message_left        # bytes of the message that are still to come
    uint16_t record_left         # of the record
    uint8_t header[9]            # of the next record, and of a message that begins in it
    uint8_t header_length        # how much of it is here
    uint8_t begun                # flag: the first record was seen
    uint8_t sealed               # flag: from here on records are encrypted


cdef struct conn_t:              # one slot of the slab; the worker's own
    uint32_t index
    uint32_t generation          # grows each time the slot is given back
    stage_t stage
    stage_t ended_at             # stage that ended it
    reason_t reason
    int sys_errno
    const char *tls_error        # static text of the TLS library, or NULL

    leg_t client
    leg_t upstream
    chunk_t *early               # what the client said before it was forwarded, for the upstream; or NULL

    # cells, each one reference
    listener_t *listener
    app_t *app
    tls_generation_t *tls        # NULL after go_idle and on plaintext
    verdict_t *verdict           # what the policy said, or NULL
    name_t *client_name          # or NULL
    upstream_t *picked           # counted in its in_flight while not NULL
    name_t *upstream_name        # of the last one that was picked
    limiter_t *limiter           # the submitter's, or NULL
    taken_t taken                # what it took in its scopes; `stamps` is owned
    limiter_t *held_by           # the scope that holds it back; or NULL. Borrowed, like the next
    limiter_t *succeeds          # linked in that one's succession; or NULL
    uint64_t asked_ns            # when it came to stage 5
    uint64_t waited_ns           # how long a limit held it back; 0: not at all
    uint64_t round               # its turn among the delayed
    uint64_t ends_ns             # its longest life ends; 0: no limit
    uint64_t leaves_ns           # it has to have left its upstream by then: `leaves_for`; 0: it may stay
    reason_t leaves_for
    reason_t would_deny          # what a shadow limit would have refused it with
    completion_t *completion     # who submitted it wants to know how it ends; or NULL

    # one byte each, side by side, or they would cost eight
    flag_t in_use
    flag_t fronted               # what comes first is a PROXY header, and it is not here yet
    flag_t limited               # counted in all its scopes: parts/scopes.pyx
    flag_t paced                 # one of them has a bandwidth
    flag_t delayed               # linked in worker.delayed, waiting for a limit
    flag_t replacing             # asked for the oldest connection of a scope to end
    flag_t unauthenticated       # counted in node.unauthenticated, linked in worker.strangers
    flag_t proven                # possession of the certificate's key was shown
    flag_t parked                # linked in worker.parked, waiting for the policy
    flag_t asked                 # the question is out; else it found the ring full
    flag_t counted               # counted in node.open
    flag_t alerted               # a fatal alert was written: it must arrive
    flag_t doomed                # in worker.doomed: nothing may touch it but the worker that closes it
    flag_t expired               # its deadline has passed; the stage that sees it clears it
    flag_t forwarding            # reached stage 8
    flag_t lingering             # everything is released but the socket
    flag_t quiet                 # silent for a while: record buffers and pipes were given back
    flag_t probing               # it finds out whether a quarantined upstream is back
    uint8_t attempts             # upstreams that were dialled
    uint8_t serial_length        # 0: no certificate was seen
    uint8_t serial[20]           # big endian, no leading zeros

    scope_t refused_by
    uint32_t turn                # where its scans of the upstreams start
    uint16_t tried[8]            # marks of the upstreams that were dialled; the last one may still be
    reason_t dial_failure        # of the last attempt that failed
    flight_t flight
    uint32_t handshake_bytes
    sockaddr_in6 source          # holds sockaddr_in as well
    sockaddr_in6 target          # where it wanted to, by its PROXY header; family 0: nobody said
    reason_t first_end           # who ended first, once somebody did

    uint64_t id                  # unique in this process
    uint64_t accepted_ns
    uint64_t handshaken_ns
    uint64_t dialled_ns
    uint64_t connected_ns
    uint64_t active_ns           # last time a payload byte moved

    uint64_t deadline_ns         # 0: none
    conn_t *timer_next
    conn_t *timer_prev
    uint32_t timer_slot          # of the wheel; TIMER_NONE when not in it
    conn_t *stranger_next        # accept order, for evicting the oldest
    conn_t *stranger_prev
    conn_t *parked_next          # in worker.parked or worker.delayed
    conn_t *parked_prev
    conn_t *older                # in its limiter's succession
    conn_t *younger
    conn_t *free_next            # in slab.free, or in worker.doomed


# ---- between threads -----------------------------------------------------------------------------

cdef struct ring_t:              # bounded, many writers, many readers (D. Vyukov's queue)
    gauge_t head                 # next to read
    gauge_t tail                 # next to write
    uint8_t *cells               # (word_t sequence, item) x capacity
    uint64_t mask
    uint32_t item_bytes
    uint32_t stride
    int wake_fd                  # eventfd, -1: the reader polls
    word_t sleeping              # the reader may be asleep: the next writer must wake it
    counter_t dropped


cdef enum message_kind_t:
    MESSAGE_SOCKET = 1           # an accepted socket: fd, listener
    MESSAGE_SUBMISSION           # a socket from Python: submission
    MESSAGE_VERDICT              # an answer: verdict
    MESSAGE_REPLACE              # the oldest connection of this limiter has to go: limiter
    MESSAGE_ORDER                # from the engine: order


cdef struct message_t:           # what a worker's inbox holds
    message_kind_t kind
    int fd
    void *cell                   # one reference travels with the message
    sockaddr_in6 source


cdef struct ask_t:               # what the policy is asked
    uint64_t listener_id
    uint64_t epoch
    uint64_t tls_id
    uint64_t deadline_ns
    uint8_t serial[20]
    uint8_t serial_length
    sockaddr_in6 source
    uint32_t key_length
    uint8_t *key                 # malloc'ed copy, the reader frees it


cdef struct submission_t:        # what travels with a socket from Python; the message's, then the worker's
    uint64_t id
    listener_t *door             # one reference: application, TLS and authorizer, without a socket
    limiter_t *limiter           # one reference, or NULL
    name_t *client               # one reference, or NULL
    completion_t *completion     # or NULL


cdef enum order_kind_t:
    ORDER_ADOPT = 1              # swap the snapshot, re-judge
    ORDER_LIST                   # write the open connections down
    ORDER_ABORT                  # end every connection: `reason`
    ORDER_LEAVE                  # those of an upstream have to end: `upstream_id`, `deadline_ns`, `reason`
    ORDER_SETTLE                 # nothing: who carries it out holds no pool from before
    ORDER_STOP                   # leave the loop


cdef struct conn_info_t:         # one open connection, as told to Python
    uint64_t id
    uint64_t app_id
    stage_t stage
    name_t *client               # one reference
    name_t *upstream             # one reference, or NULL
    uint8_t serial[20]
    uint8_t serial_length
    sockaddr_in6 source
    sockaddr_in6 upstream_local
    uint64_t age_ns
    uint64_t bytes_in
    uint64_t bytes_out


cdef struct order_t:             # made by the engine, carried out by every worker, acknowledged
    refs_t refs                  # the engine's and one for each worker that still has it
    order_kind_t kind
    snapshot_t *snapshot         # one reference
    reason_t reason
    uint64_t upstream_id
    uint64_t deadline_ns         # 0: they may stay after all
    word_t pending               # workers that have not acknowledged
    int done_fd                  # the engine's eventfd, written by the last one
    conn_info_t *infos[64]       # by worker
    uint32_t info_counts[64]


cdef struct record_t:            # one per connection, fixed size; read by the record thread
    uint64_t id
    uint64_t app_id
    uint64_t wall_ns
    uint64_t handshake_ns        # 0: not reached
    uint64_t connect_ns
    uint64_t duration_ns
    uint64_t waited_ns           # 0: no limit held it back
    uint64_t bytes_in
    uint64_t bytes_out
    stage_t stage
    reason_t reason
    reason_t would_deny
    scope_t scope
    int sys_errno
    const char *tls_error        # static text
    const char *cipher           # static text, or NULL
    name_t *client               # one reference, or NULL
    name_t *upstream             # one reference, or NULL
    uint8_t *leaf                # malloc'ed copy, or NULL
    uint32_t leaf_length
    uint32_t attempts
    uint8_t serial[20]
    uint8_t serial_length
    uint8_t worker
    bint forwarded
    bint claimed
    bint tls
    sockaddr_in6 source


cdef struct completion_t:        # made with the submission, so telling how it ended cannot fail
    completion_t *next           # in node.completions
    record_t record


# ---- a worker ------------------------------------------------------------------------------------

cdef enum:
    TIMER_SLOTS = 4096
    TIMER_NONE = 0xffffffff

cdef struct wheel_t:             # hashed timer wheel; see parts/timers.pyx
    conn_t *slots[4096]
    uint64_t occupied[64]        # a bit per slot
    uint64_t now_tick
    uint32_t armed


cdef enum:
    CHUNK_CLASSES = 6


cdef struct chunk_pool_t:        # free chunks by size class
    chunk_t *free[CHUNK_CLASSES]
    uint32_t kept[CHUNK_CLASSES]


cdef struct slab_t:
    conn_t **blocks
    uint32_t block_count
    uint32_t block_max
    conn_t *free
    uint32_t in_use
    uint32_t next_index          # slots ever handed out


cdef struct node_t:              # what all workers share; the engine's
    uint32_t number              # of this engine in the process, from 1
    char boot[32]                # the first part of every connection's id; NUL-terminated
    gauge_t open                 # connections of known clients, and plaintext ones; lingering included
    gauge_t unauthenticated      # sockets that were not let in, or not yet; lingering included
    word_t pipes                 # splice pipes that exist
    counter_t next_id
    counter_t accept_errors
    int64_t open_max             # of `open`
    int64_t unauthenticated_max  # of `unauthenticated`; a socket counts in one of the two
    int64_t pipes_max
    uint64_t handshake_timeout_ns
    uint64_t authorize_timeout_ns
    bint records_wanted
    uint32_t worker_count
    worker_t *workers[64]
    ring_t asks                  # workers -> policy thread
    word_t completions           # workers -> completion thread: a stack of completion_t
    int completions_fd           # eventfd, written when the stack is empty no more


cdef struct worker_t:            # one thread; its own but for the fields marked shared
    gauge_t load                 # shared: connections this worker holds or was promised
    word_t stamp_ns              # shared: last time round the loop
    ring_t inbox                 # shared: messages in
    ring_t records               # shared: records out
    node_t *node
    pthread_t thread
    uint32_t number
    bint stopping
    bint simulated               # time is what `now_ns` says: see simulation.pyx
    int epoll_fd
    uint64_t now_ns              # read once per wake-up
    snapshot_t *snapshot
    slab_t slab
    wheel_t wheel
    chunk_pool_t chunks
    pipe_t *pipes_free
    uint32_t pipes_kept
    conn_t *strangers_head       # oldest unauthenticated connection
    conn_t *strangers_tail
    conn_t *parked               # waiting for the policy
    conn_t *delayed              # held back by a limit, in the order of their rounds
    conn_t *delayed_tail
    uint64_t delayed_round       # of the last one that was let through
    uint64_t delayed_due_ns      # when to try them again
    conn_t *doomed               # to be closed after this batch of events: `reason` is set
    uint32_t lingering
    uint32_t headroom_left       # connections to accept before it is looked for memory again
    uint64_t accept_paused_until_ns
    bint accept_paused
    tls_io_t io                  # what engines read from and write to
    tls_pool_t *tls_pool         # of the engine in use
    const tls_engine_t *tls_engine
    uint8_t *scratch_in          # SCRATCH_BYTES: what recv gave
    uint8_t *scratch_plain       # SCRATCH_BYTES: plaintext
    uint8_t *scratch_out         # SCRATCH_BYTES: ciphertext to send
    verdict_t **verdicts         # private cache, open addressing
    uint32_t verdict_mask
    uint32_t verdict_count
    counter_t wakeups            # shared, for tests and stats
    counter_t accepted           # shared
    counter_t handed_over        # shared


cdef enum:
    RECORD_MAX = 16384           # payload of a TLS record: RFC 8446, 5.1
    BATCH_MIN = 16384
    BATCH_MAX = 196608           # what one direction reads at once
    FRAGMENT_MIN = 512           # the smallest records a peer may ask for: RFC 6066, 4; OpenSSL grants them
    SEALING_SHARE = 24           # of what encrypting gives, headers and tags are one in so many at most
    SEALING_MAX = 4096           # what else encrypting adds
    ANSWERS_MAX = 11264          # what TLS itself may have to say to what one read brings: parts/legs.pyx
    SCRATCH_BYTES = 212992       # what one direction holds: a batch and what TLS adds, or what is in its pipe
    CONN_BYTES_MAX = 262144      # what both hold; how that adds up: path/move.pyx
    LINGERING_MAX = 1024         # sockets per worker that wait for last words to be read; more close at once
    HELD_MAX = 16384             # early bytes of a client: with so many, no more is read
