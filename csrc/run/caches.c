#define _GNU_SOURCE /* for the sizes of caches */

/* What the caches hold, because memory that they do not hold is asked for ahead, and what they do is slower for it. */
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "fastopt.h"

enum { UNKNOWN = -2, BY_SIZE = -1, USUAL = 8 << 20 };
/* Several threads may look at once, and find the same; `held` is there before `forced` says so. */
static atomic_int forced = UNKNOWN;
static atomic_long held;

static long size_of(int name)
{
    const long size = sysconf(name);
    return size > 0 ? size : 0;
}

static void look(void)
{
    const char *given = getenv("FASTOPT_PREFETCH");
    long size = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
    size = size_of(_SC_LEVEL2_CACHE_SIZE);
#endif
    atomic_store(&held, size ? 4 * size : USUAL);
    atomic_store(&forced, given && (given[0] == '0' || given[0] == '1') && !given[1] ? given[0] - '0' : BY_SIZE);
}

void fo_prefetch(int always) { atomic_store(&forced, always < 0 ? UNKNOWN : always); }

int fo_asks_ahead(ptrdiff_t bytes)
{
    if (atomic_load_explicit(&forced, memory_order_acquire) == UNKNOWN)
        look();
    const int how = atomic_load_explicit(&forced, memory_order_acquire);
    return how == BY_SIZE ? bytes > atomic_load_explicit(&held, memory_order_relaxed) : how == 1;
}
