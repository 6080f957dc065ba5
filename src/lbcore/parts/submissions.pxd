"""Sockets from Python on their way in, and how their connections ended on the way back."""

from lbcore.structs cimport completion_t, node_t, submission_t

# Zeroed, or NULL.
cdef submission_t *submission_new() noexcept nogil
# With every reference it still holds, and its completion. The socket is somebody else's.
cdef void submission_free(submission_t *submission) noexcept nogil

# Zeroed, or NULL.
cdef completion_t *completion_new() noexcept nogil
cdef void completion_free(completion_t *completion) noexcept nogil
# Any worker. Never fails; the reader owns it from here.
cdef void completions_push(node_t *node, completion_t *completion) noexcept nogil
# All that were pushed since, the oldest first, linked by `next`; or NULL.
cdef completion_t *completions_take(node_t *node) noexcept nogil
