/* The TLS server that all TLS clients are measured against: OpenSSL, blocking, a thread for each connection.
 *
 *   tlsserver CERTIFICATE_AND_KEY      echoes packages with a 2-byte header
 *
 * TLS 1.3 with one cipher, so that everybody pays for the same cryptography. Prints its port; ends when stdin ends. */
#include "wire.h"

#include <openssl/ssl.h>
#include <pthread.h>

enum { HEADER = 2, ROOM = HEADER + 65535 };

static SSL_CTX *context;

static size_t whole_packages(const unsigned char *buffer, size_t have) {
    size_t end = 0;
    while (have - end >= HEADER) {
        size_t need = HEADER + get_length(buffer + end, HEADER);
        if (have - end < need)
            break;
        end += need;
    }
    return end;
}

static void *serve(void *argument) {
    int fd = (int)(intptr_t)argument;
    unsigned char *buffer = allocate(ROOM);
    SSL *tls = SSL_new(context);
    SSL_set_fd(tls, fd);
    size_t have = 0;
    if (SSL_accept(tls) == 1) {
        for (int n; (n = SSL_read(tls, buffer + have, (int)(ROOM - have))) > 0;) {
            have += (size_t)n;
            size_t ready = whole_packages(buffer, have);
            if (ready > 0 && SSL_write(tls, buffer, (int)ready) <= 0)
                break;
            memmove(buffer, buffer + ready, have - ready);
            have -= ready;
        }
    }
    SSL_free(tls);
    close(fd);
    free(buffer);
    return NULL;
}

static void *end_with_stdin(void *unused) {
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    _exit(0);
    return unused;
}

static void start(void *(*run)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, argument) != 0)
        die("pthread_create");
    pthread_detach(thread);
}

int main(int argc, char **argv) {
    context = SSL_CTX_new(TLS_server_method());
    if (argc != 2 || SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, argv[1], SSL_FILETYPE_PEM) != 1) {
        fprintf(stderr, "usage: tlsserver CERTIFICATE_AND_KEY\n");
        return 2;
    }
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_read_ahead(context, 1);

    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 1024) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) < 0)
        die("listen");
    start(end_with_stdin, NULL);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        set_nodelay(fd);
        start(serve, (void *)(intptr_t)fd);
    }
}
