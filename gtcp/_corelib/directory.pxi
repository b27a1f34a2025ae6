# The shared pools by what users write as an address: the way from `PoolConn(addr)` to a connection.
cimport cython
from cpython.unicode cimport PyUnicode_CheckExact


@cython.final
cdef class Directory:
    """The shared pools by what users write as an address, and who knows the others."""
    cdef dict pools
    cdef object find

    def __cinit__(self):
        self.pools = {}

    def serve(self, find):
        """`find(addr, tls, server_hostname)` answers the pool of an address that is not written here."""
        self.find = find

    def learn(self, addr, pool):
        """From now on, users who write `addr` get this pool."""
        self.pools[addr] = pool

    def forget(self, addr, pool):
        """Users who write `addr` are no longer sent to this pool."""
        if self.pools.get(addr) is pool:
            del self.pools[addr]


directory = Directory()
cdef Directory the_directory = directory


def open_lease(BaseConn self not None, addr, timeout=NOT_GIVEN, *, tls=None, server_hostname=None):
    """PoolConn.__init__: fills the handle with a connection of the shared pool of `addr`."""
    cdef object pool = None
    if self.stream is not None or self.home is not None:
        self._check_new()
    if (tls is None or tls is False) and server_hostname is None and PyUnicode_CheckExact(addr):
        pool = the_directory.pools.get(addr)
    if pool is None or (<BasePool>pool).closed:
        pool = the_directory.find(addr, tls, server_hostname)
    (<BasePool?>pool).lend(self, timeout)
