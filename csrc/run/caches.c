#define _GNU_SOURCE /* for the sizes of caches */

/* What the caches hold, because memory that they do not hold is asked for ahead, and what they do is slower for it. */
#include <stdlib.h>
#include <unistd.h>

#include "fastopt.h"

enum { UNKNOWN = -2, BY_SIZE = -1, USUAL = 8 << 20 };
static int forced = UNKNOWN;
static long held;

static long size_of(int name)
{
    const long size = sysconf(name);
    return size > 0 ? size : 0;
}

static void look(void)
{
    const char *given = getenv("FASTOPT_PREFETCH");
    forced = given && (given[0] == '0' || given[0] == '1') && !given[1] ? given[0] - '0' : BY_SIZE;
#if defined(_SC_LEVEL2_CACHE_SIZE)
    held = size_of(_SC_LEVEL2_CACHE_SIZE);
#endif
    held = held ? 4 * held : USUAL;
}

void fo_prefetch(int always) { forced = always < 0 ? UNKNOWN : always; }

int fo_asks_ahead(ptrdiff_t bytes)
{
    if (forced == UNKNOWN)
        look();
    return forced == BY_SIZE ? bytes > held : forced;
}
