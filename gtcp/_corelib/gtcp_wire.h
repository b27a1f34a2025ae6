/* Big-endian lengths of 1 to 4 bytes, by shifts: no alignment is assumed. */
#ifndef GTCP_WIRE_H
#define GTCP_WIRE_H

#include <stdint.h>
#include <string.h>

static inline uint32_t gtcp_get_length(const char *from, int size)
{
    const unsigned char *p = (const unsigned char *)from;
    uint32_t value = 0;
    if (size == 2)      /* the default, and worth a branch of its own: many small packages in one read */
        return (uint32_t)p[0] << 8 | p[1];
    for (int i = 0; i < size; i++)
        value = value << 8 | p[i];
    return value;
}

static inline void gtcp_put_length(char *to, int size, uint32_t value)
{
    unsigned char *p = (unsigned char *)to;
    for (int i = size - 1; i >= 0; i--) {
        p[i] = (unsigned char)(value & 0xff);
        value >>= 8;
    }
}

/* The first place of `needle` in `data`, or -1; linear in the worst case. */
static inline Py_ssize_t gtcp_find(const char *data, Py_ssize_t size,
                                   const char *needle, Py_ssize_t needle_size)
{
    const char *found;
    if (size < needle_size)
        return -1;
    if (needle_size == 1)
        found = (const char *)memchr(data, needle[0], (size_t)size);
    else
        found = (const char *)memmem(data, (size_t)size, needle, (size_t)needle_size);
    return found ? (Py_ssize_t)(found - data) : -1;
}

#endif
