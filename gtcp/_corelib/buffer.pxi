# Bytes on their way: received and not taken yet, or gathered and not sent yet. One block, a head and a tail.
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from gtcp._corelib.limits cimport PY_SSIZE_T_MAX

cdef enum:
    # The block of a connection that talks. Larger units do not pass through it: they are received
    # straight into their result, so the block never needs to be large to be fast.
    BLOCK = 16384

    # Blocks that were given back and are kept for the next, as many as one call needs: what comes and what leaves.
    SPARES = 2

# Connections that are idle between two packages share them.
cdef (char*)[<int>SPARES] spare_blocks
cdef int spares = 0


cdef inline char* new_block(Py_ssize_t size) noexcept:
    global spares
    if size == BLOCK and spares:
        spares -= 1
        return spare_blocks[spares]
    return <char*>malloc(size)


cdef inline void drop_block(char* block, Py_ssize_t size) noexcept:
    global spares
    if size == BLOCK and spares < SPARES:
        spare_blocks[spares] = block
        spares += 1
    else:
        free(block)


@cython.final
cdef class ByteBuffer:
    # The block, its size, and the unread bytes block[head:tail]. NULL while nothing is buffered and
    # the connection is idle.
    cdef char* block
    cdef Py_ssize_t size
    cdef Py_ssize_t head
    cdef Py_ssize_t tail

    def __dealloc__(self):
        drop_block(self.block, self.size)

    cdef inline char* data(self) noexcept:
        return self.block + self.head

    cdef inline Py_ssize_t unread(self) noexcept:
        return self.tail - self.head

    cdef inline void consume(self, Py_ssize_t n) noexcept:
        self.head += n
        if self.head == self.tail:
            self.head = self.tail = 0

    cdef bytes take(self, Py_ssize_t n):
        """The first n unread bytes, copied out."""
        cdef bytes result = PyBytes_FromStringAndSize(self.block + self.head, n)
        self.consume(n)
        return result

    cdef int reserve(self, Py_ssize_t more, Py_ssize_t most=PY_SSIZE_T_MAX) except -1:
        """Room for `more` bytes behind the tail: slides when that is enough, else doubles, up to `most` bytes."""
        cdef Py_ssize_t unread = self.tail - self.head
        cdef Py_ssize_t size = self.size
        cdef char* block
        if more <= size - self.tail:
            return 0
        if more > PY_SSIZE_T_MAX - unread:
            raise MemoryError("the buffer cannot hold that much")
        if self.head:
            memmove(self.block, self.block + self.head, unread)
            self.head = 0
            self.tail = unread
        if more <= size - unread:
            return 0
        size = max(<Py_ssize_t>BLOCK, size)
        while size - unread < more:
            size = size * 2 if size <= PY_SSIZE_T_MAX // 2 else PY_SSIZE_T_MAX
        size = min(size, max(most, unread + more, <Py_ssize_t>BLOCK))
        block = new_block(size) if self.block == NULL else <char*>realloc(self.block, size)
        if block == NULL:
            raise MemoryError("no memory for the buffer")
        self.block = block
        self.size = size
        return 0

    cdef int append(self, const char* data, Py_ssize_t n) except -1:
        if n:
            self.reserve(n)
            self.put(data, n)
        return 0

    cdef inline void put(self, const char* data, Py_ssize_t n) noexcept:
        """`append` where there is room."""
        memcpy(self.block + self.tail, data, n)
        self.tail += n

    cdef int prepend(self, const char* data, Py_ssize_t n) except -1:
        """Puts bytes back in front of the unread ones."""
        cdef Py_ssize_t unread = self.tail - self.head
        if n == 0:
            return 0
        if n <= self.head:
            self.head -= n
        else:
            self.reserve(n)
            memmove(self.block + self.head + n, self.block + self.head, unread)
            self.tail += n
        memcpy(self.block + self.head, data, n)
        return 0

    cdef inline void relax(self) noexcept:
        """Called before a wait: an empty buffer gives its memory back."""
        if self.head == self.tail and self.block != NULL:
            self.release()

    cdef void release(self) noexcept:
        """Gives the memory back, with what is in it."""
        drop_block(self.block, self.size)
        self.block = NULL
        self.size = self.head = self.tail = 0
