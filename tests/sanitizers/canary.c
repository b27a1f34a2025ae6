/* What a sanitizer has to see. Compiled with the flags of the core and run before the suite: a job whose
 * canary survives watches nothing. */
#include <pthread.h>
#include <stdlib.h>

static volatile int shared;

int read_after_free(void)
{
    volatile char *block = malloc(16);
    free((void *)block);
    return block[3];
}

int write_past_end(int at)
{
    volatile char *block = malloc(16);
    block[at] = 1;
    int value = block[at];
    free((void *)block);
    return value;
}

int overflow(int x)
{
    return x + 0x7fffffff;
}

/* Its name says "gtcp", as those of the core do. The pointer goes where nobody finds it. */
__attribute__((noinline)) int gtcp_leak(void)
{
    volatile char *block = malloc(100);
    block[0] = 1;
    int value = block[0];
    block = NULL;
    return value;
}

static void *increment(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100000; i++)
        shared++;
    return NULL;
}

int race(void)
{
    pthread_t other;
    pthread_create(&other, NULL, increment, NULL);
    increment(NULL);
    pthread_join(other, NULL);
    return shared;
}
