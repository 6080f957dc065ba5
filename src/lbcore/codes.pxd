"""The vocabulary: stages, what a stage answers, and why a connection ended.

One order everywhere: in these enums, in path/, in the log, in the documents.
"""


cdef enum stage_t:
    STAGE_ACCEPT = 1
    STAGE_HANDSHAKE
    STAGE_AUTHENTICATE
    STAGE_AUTHORIZE
    STAGE_LIMIT
    STAGE_PICK
    STAGE_DIAL
    STAGE_FORWARD
    STAGE_CLOSE
    STAGES_END


cdef enum step_t:
    STEP_NEXT      # this stage is done, go on with the next
    STEP_WAIT      # armed a descriptor, a timer or an answer; called again when it comes
    STEP_REPICK    # this upstream failed, pick another one
    STEP_CLOSE     # over: `reason` says why
    STEP_FREED     # close only: the connection does not exist any more


cdef enum reason_t:
    REASON_NONE = 0
    # accept
    REASON_NODE_FULL
    REASON_UNAUTHENTICATED_FULL
    # handshake
    REASON_BAD_PROXY_HEADER
    REASON_NOT_TLS
    REASON_HANDSHAKE_TOO_BIG
    REASON_TLS_VERSION
    REASON_HANDSHAKE_FAILED
    REASON_HANDSHAKE_TIMEOUT
    # any stage before forward
    REASON_CLIENT_GONE
    # authenticate
    REASON_NO_CERTIFICATE
    REASON_UNKNOWN_CA
    REASON_BAD_CERTIFICATE
    REASON_WEAK_KEY
    REASON_BAD_SERIAL
    REASON_WRONG_ISSUER
    REASON_EXPIRED
    REASON_NOT_YET_VALID
    REASON_REVOKED
    REASON_CRL_EXPIRED
    REASON_WRONG_PURPOSE
    # authorize
    REASON_UNKNOWN_SERIAL
    REASON_CLIENT_DISABLED
    REASON_CLIENT_BLOCKED
    REASON_APP_NOT_ALLOWED
    REASON_AUTHZ_TIMEOUT
    REASON_AUTHZ_ERROR
    # limit
    REASON_RATE
    REASON_WINDOW
    REASON_CONCURRENT
    REASON_APP_FULL
    REASON_LIMIT_WAIT
    # pick, dial
    REASON_NO_UPSTREAM
    REASON_CONNECT_FAILED
    REASON_UPSTREAM_TLS
    # forward: normal ends
    REASON_CLIENT_CLOSED
    REASON_UPSTREAM_CLOSED
    # forward: aborts of a peer
    REASON_CLIENT_RESET
    REASON_UPSTREAM_RESET
    REASON_UPSTREAM_TRUNCATED
    REASON_CLIENT_TRUNCATED
    # forward: ended by us
    REASON_IDLE
    REASON_HALF_CLOSE_TIMEOUT
    REASON_MAX_LIFETIME
    REASON_DRAINED
    REASON_UPSTREAM_DOWN
    REASON_KICKED
    REASON_REPLACED
    REASON_REVOKED_WHILE_OPEN
    REASON_ERROR
    REASONS_END


cdef enum ending_t:
    ENDING_CLOSE       # plain close of the socket
    ENDING_CLEAN       # close_notify, then FIN: "come back later", or a normal end
    ENDING_RESET       # RST: a permanent refusal or an abort; never looks like a clean end


cdef inline ending_t reason_ending(reason_t reason) noexcept nogil:
    """How the client's side ends. One exception: a node that filled up while a client shook hands ends
    cleanly over its TLS (path/close.pyx, `must_linger`)."""
    if reason in (REASON_NODE_FULL, REASON_UNAUTHENTICATED_FULL, REASON_BAD_PROXY_HEADER, REASON_NOT_TLS,
                  REASON_HANDSHAKE_TOO_BIG, REASON_TLS_VERSION, REASON_HANDSHAKE_FAILED,
                  REASON_HANDSHAKE_TIMEOUT):
        return ENDING_CLOSE
    if REASON_RATE <= reason <= REASON_UPSTREAM_CLOSED:
        return ENDING_CLEAN
    return ENDING_RESET
