# What a receive can ask for, and where its bytes go.
from libc.stdint cimport int64_t

cdef enum UnitKind:
    SOME        # what one read gives
    BURST       # what comes until a read leaves room, or until silence
    EXACT       # a number of bytes
    INTO        # the same, or what one read gives, into the caller's memory
    LINE        # up to a newline, which is dropped
    TILL        # up to a delimiter, which is kept
    PKG         # a length and that many bytes


cdef struct Unit:
    UnitKind kind
    Py_ssize_t size             # EXACT: bytes wanted; INTO: bytes wanted or the target's size
    Py_ssize_t limit            # of the result, in bytes
    int header_size             # PKG
    const char* needle          # TILL and LINE, owned by the caller
    Py_ssize_t needle_size
    char* target                # INTO, owned by the caller
    Py_ssize_t got              # INTO: bytes in the target
    bint one_read               # INTO: any number of bytes will do
    bint patient                # BURST: only silence ends it, however small the reads
    bint final                  # SOME, BURST: nothing more comes now, give what is there
    int64_t gap                 # BURST: the silence that ends it, in nanoseconds


cdef struct Room:
    # Where the next bytes of the stream go: `size` of them to `where`, then `more` of them to `then`.
    char* where
    Py_ssize_t size
    char* then
    Py_ssize_t more
