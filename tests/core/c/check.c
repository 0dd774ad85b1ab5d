/* The C core without Python: bits on every instruction set, whole steps on several threads, the control word,
 * and the pool under load. Prints hashes that must be the same on every machine, then how many checks passed.
 *
 *     check [rounds [forks [flushes]]]
 *
 * The pool is driven for `rounds` steps of each of several threads, and forked `forks` times meanwhile; `flushes`
 * is 0 on a machine that cannot flush subnormals, as valgrind's cannot.
 *
 * tests/core/test_c.py builds and runs it; tools/sanitize.sh does under sanitizers and valgrind. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const dtype_name[FO_DTYPE_COUNT] = {[FO_F32] = "float32", [FO_F64] = "float64"};
const ptrdiff_t item_size[FO_DTYPE_COUNT] = {[FO_F32] = 4, [FO_F64] = 8};

static atomic_int passed, failed;

void expect(int good, const char *format, ...)
{
    if (good) {
        atomic_fetch_add(&passed, 1);
        return;
    }
    atomic_fetch_add(&failed, 1);
    char text[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    printf("FAILED %s\n", text);
    fflush(stdout);
}

void show(uint64_t h, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("hash ");
    vprintf(format, arguments);
    printf(" %016llx\n", (unsigned long long)h);
    fflush(stdout);
    va_end(arguments);
}

static void **blocks;
static size_t block_count;

/* Ends where the elements do, for tools that watch what lies beyond. */
void *allocate(ptrdiff_t n, int dtype, ptrdiff_t offset)
{
    const size_t bytes = (size_t)((n + offset) * item_size[dtype]);
    void *data = NULL, **more = realloc(blocks, (block_count + 1) * sizeof *blocks);
    if (!more || posix_memalign(&data, 64, bytes ? bytes : 1)) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    blocks = more;
    blocks[block_count++] = data;
    memset(data, 0, bytes);
    return (char *)data + offset * item_size[dtype];
}

void release_all(void)
{
    while (block_count)
        free(blocks[--block_count]);
    free(blocks);
    blocks = NULL;
}

/* Knuth's linear congruential generator, of which only high bits are used. */
static uint64_t next(uint64_t *state)
{
    const uint64_t high = *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (high & UINT64_C(0xffffffff00000000)) | *state >> 32;
}

/* One value's bits, put together of sign, biased exponent and mantissa. */
static uint64_t value(uint64_t *state, data_kind kind, int mantissa_bits, int exponent_bits)
{
    const uint64_t ones = (UINT64_C(1) << exponent_bits) - 1, bias = ones >> 1;
    const uint64_t random = next(state), choice = next(state);
    uint64_t sign = random >> 63, mantissa = random & ((UINT64_C(1) << mantissa_bits) - 1);
    uint64_t exponent = bias - 12 + choice / 8 % 16;
    switch (choice % 8) {
    case 0: exponent = mantissa = 0; break; /* zero */
    case 1: exponent = 0; break;            /* subnormal */
    case 2: exponent = bias - choice / 8 % 100; break;
    case 3: if (kind == SPECIAL) { exponent = ones; mantissa = 0; } break;               /* infinity */
    case 4: if (kind == SPECIAL) { exponent = ones - choice / 8 % 3; } break;            /* NaN, huge */
    case 5: case 6: if (kind == SPECIAL) { exponent = choice / 8 & ones; } break;        /* anything */
    default: break;
    }
    if (kind == POSITIVE && (exponent || mantissa))
        sign = 0;
    return sign << (mantissa_bits + exponent_bits) | exponent << mantissa_bits | mantissa;
}

void fill(void *out, int dtype, ptrdiff_t n, data_kind kind, uint64_t seed)
{
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint64_t bits = dtype == FO_F32 ? value(&state, kind, 23, 8) : value(&state, kind, 52, 11);
        const uint32_t low = (uint32_t)bits;
        if (dtype == FO_F32)
            memcpy((char *)out + 4 * i, &low, 4);
        else
            memcpy((char *)out + 8 * i, &bits, 8);
    }
}

uint64_t hash_word(uint64_t h, uint64_t word, int bytes)
{
    for (; bytes > 0; bytes--, word >>= 8)
        h = (h ^ (word & 0xff)) * UINT64_C(0x100000001b3);
    return h;
}

/* Element i's bits, and what it is; a NaN's are those of the one that has no sign and no payload. */
static uint64_t bits_of(int dtype, const void *data, ptrdiff_t i, int *what)
{
    uint64_t bits = 0, infinite = UINT64_C(0x7ff) << 52, nan = UINT64_C(0xfff) << 51, sign = UINT64_C(1) << 63;
    if (dtype == FO_F32) {
        uint32_t word;
        memcpy(&word, (const char *)data + 4 * i, 4);
        bits = word, infinite = UINT64_C(0xff) << 23, nan = UINT64_C(0x1ff) << 22, sign = UINT64_C(1) << 31;
    } else {
        memcpy(&bits, (const char *)data + 8 * i, 8);
    }
    const uint64_t size = bits & ~sign;
    *what = size > infinite ? NOT_A_NUMBER : size == infinite ? NOT_FINITE : 0;
    return *what == NOT_A_NUMBER ? nan : bits;
}

uint64_t hash_array(uint64_t h, int dtype, ptrdiff_t n, const void *data)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        int what;
        const uint64_t bits = bits_of(dtype, data, i, &what);
        h = hash_word(h, bits, (int)item_size[dtype]);
    }
    return h;
}

int count_of(int what, int dtype, ptrdiff_t n, const void *data)
{
    int count = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        int found;
        bits_of(dtype, data, i, &found);
        count += found >= what;
    }
    return count;
}

int main(int argc, char **argv)
{
    const int rounds = argc > 1 ? atoi(argv[1]) : 2000, forks = argc > 2 ? atoi(argv[2]) : 20;
    const int flushes = argc > 3 ? atoi(argv[3]) : 1;
    check_kernels();
    check_norms();
    check_vectors();
    check_losses();
    check_steps();
    check_control_word(flushes);
    check_trial();
    check_pool(rounds, forks);
    release_all();
    printf("%d passed, %d failed (", atomic_load(&passed), atomic_load(&failed));
    for (int isa = 0; isa < fo_isa_count(); isa++)
        if (fo_isa_available(isa))
            printf("%s ", fo_isa_name(isa));
    printf("with %d pool threads)\n", fo_threads_started());
    return atomic_load(&failed) != 0;
}
