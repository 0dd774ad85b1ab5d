/* Every kernel for every instruction set, the probe that picks one, and the registry as data. */
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <tgmath.h>

#if FLT_EVAL_METHOD != 0
#error "fastopt needs float arithmetic in float (on 32-bit x86: -msse2 -mfpmath=sse)"
#endif

#define ISA baseline
#define TARGET
#include "kernels/instantiate.h"

#if defined(__x86_64__)
#define ISA avx2
#define TARGET __attribute__((target("avx2")))
#include "kernels/instantiate.h"

#define AVX512 "avx512f,avx512vl,avx512dq,avx512bw"
#define ISA avx512
#if defined(__clang__)
#define TARGET __attribute__((target(AVX512)))
#else
#define TARGET __attribute__((target(AVX512 ",prefer-vector-width=512")))
#endif
#include "kernels/instantiate.h"
#endif

typedef struct {
    const char *name;
    const fo_functions *functions[FO_DTYPE_COUNT];
} isa_entry;

#define ISA_ENTRY(isa) {#isa, {&fo_table_f32_##isa, &fo_table_f64_##isa}},
static const isa_entry isas[] = {
    ISA_ENTRY(baseline)
#if defined(__x86_64__)
    ISA_ENTRY(avx2)
    ISA_ENTRY(avx512)
#endif
};
enum { ISA_COUNT = sizeof isas / sizeof isas[0] };

static int active;

int fo_isa_count(void) { return ISA_COUNT; }
const char *fo_isa_name(int isa) { return isas[isa].name; }
int fo_isa_active(void) { return active; }
void fo_isa_use(int isa) { active = isa; }

int fo_isa_available(int isa)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (isa == 1)
        return __builtin_cpu_supports("avx2") != 0;
    if (isa == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
#endif
    return isa == 0;
}

const fo_functions *fo_functions_for(int dtype) { return isas[active].functions[dtype]; }

double fo_run_sum(int sum, int dtype, ptrdiff_t n, const void *const *in) { return fo_functions_for(dtype)->sum[sum](n, in); }

void fo_run_factors(int dtype, ptrdiff_t rows, ptrdiff_t columns, const double *row_sums, const double *column_sums, void *r,
                    void *c, void *a, const double *coef)
{
    fo_functions_for(dtype)->adafactor_factors(rows, columns, row_sums, column_sums, r, c, a, coef);
}

#define COUNT(x) +1
#define NONE(x)
#define NAME(x) #x,
#define INFO(kernel, k) \
    [fo_k_##kernel] = { \
        .name = #kernel, .kind = k, \
        .buffers = 0 FO_##kernel(COUNT, COUNT, NONE), .coefs = 0 FO_##kernel(NONE, NONE, COUNT), \
        .buffer = {FO_##kernel(NAME, NAME, NONE)}, .coef = {FO_##kernel(NONE, NONE, NAME)} },
#define BEFORE(kernel) INFO(kernel, 'b')
#define RULE(kernel) INFO(kernel, 'r')
#define AFTER(kernel) INFO(kernel, 'a')
#define PASS_OF_ITS_OWN(kernel) INFO(kernel, 'p')
const fo_kernel_info fo_registry[FO_KERNEL_COUNT] = {
    FO_STAGES_BEFORE(BEFORE) FO_RULES(RULE) FO_STAGES_AFTER(AFTER) FO_PASSES(PASS_OF_ITS_OWN)
};

#define FITS(kernel) \
    _Static_assert((0 FO_##kernel(COUNT, COUNT, NONE)) <= FO_MAX_BUFFERS, "raise FO_MAX_BUFFERS"); \
    _Static_assert((0 FO_##kernel(NONE, NONE, COUNT)) <= FO_MAX_COEFS, "raise FO_MAX_COEFS");
FO_KERNELS(FITS)
/* A program has every stage but scale at most once, its rule, and the bounds before lookahead too. */
_Static_assert(1 FO_STAGES_BEFORE(COUNT) FO_STAGES_AFTER(COUNT) <= FO_MAX_CALLS, "raise FO_MAX_CALLS");

/* A rule lists p, g and then its state; a stage names p, g or average, and lookahead a slot that the program knows. */
int fo_slot(int kernel, int buffer)
{
    const char *name = fo_registry[kernel].buffer[buffer];
    if (strcmp(name, "p") == 0)
        return FO_SLOT_P;
    if (strcmp(name, "g") == 0 || strcmp(name, "out") == 0)
        return FO_SLOT_G;
    if (strcmp(name, "average") == 0)
        return FO_SLOT_AVERAGE;
    return FO_SLOT_STATE + buffer - 2;
}

#define IS_PLAIN(name) case fo_k_##name:
int fo_plain(int kernel)
{
    switch (kernel) {
        FO_PLAIN_RULES(IS_PLAIN) return 1;
    default: return 0;
    }
}

#define SUM_INFO(sum) \
    [fo_sum_##sum] = {.name = #sum, .buffers = 0 FO_##sum(COUNT), .buffer = {FO_##sum(NAME)}},
const fo_sum_info fo_sums[FO_SUM_COUNT] = {FO_SUMS(SUM_INFO)};

double fo_exp(double x) { return fo_exp_f64_baseline(x); }
double fo_log(double x) { return fo_log_f64_baseline(x); }

double fo_power(double base, int64_t n)
{
    double result = 1.0;
    for (; n > 0; n /= 2) {
        if (n % 2)
            result *= base;
        base *= base;
    }
    return result;
}
