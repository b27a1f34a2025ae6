/* The limit over TLS: a blocking OpenSSL client with a kernel timeout of five seconds.
 *
 *   tlsclient PORT exchange SIZE CA_FILE      package exchange, 2-byte header */
#include "wire.h"

#include <openssl/ssl.h>

enum { HEADER = 2, TIMEOUT_S = 5 };

static SSL *handshake(int fd, const char *authorities) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_read_ahead(context, 1); /* one recv for a record, not one for its header and one for the rest */
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (SSL_CTX_load_verify_locations(context, authorities, NULL) != 1)
        die(authorities);
    SSL *tls = SSL_new(context);
    SSL_set_tlsext_host_name(tls, "localhost");
    SSL_set1_host(tls, "localhost");
    SSL_set_fd(tls, fd);
    if (SSL_connect(tls) != 1) {
        fprintf(stderr, "tlsclient: the handshake failed\n");
        exit(1);
    }
    return tls;
}

static void exchange(SSL *tls, unsigned char *out, unsigned char *in, int frame, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        put_length(out, HEADER, (uint64_t)(frame - HEADER));
        if (SSL_write(tls, out, frame) != frame)
            die("SSL_write");
        for (int have = 0; have < frame;) {
            int got = SSL_read(tls, in + have, frame - have);
            if (got <= 0)
                die("SSL_read");
            have += got;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: tlsclient PORT exchange SIZE CA_FILE\n");
        return 2;
    }
    int frame = HEADER + atoi(argv[3]), fd = dial(atoi(argv[1]));
    set_timeout(fd, TIMEOUT_S);
    SSL *tls = handshake(fd, argv[4]);
    unsigned char *out = allocate((size_t)frame), *in = allocate((size_t)frame);
    char line[64];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        int64_t wall = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        exchange(tls, out, in, frame, atoll(line));
        printf("%lld %lld\n", (long long)(clock_ns(CLOCK_MONOTONIC) - wall),
               (long long)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu));
        fflush(stdout);
    }
    return 0;
}
