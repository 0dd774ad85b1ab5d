/* stages.h, rules.h, reductions.h, exponential.h and losses.h for float and for double on one instruction set.
 *
 * Expects ISA, the instruction set's name, and TARGET, the attribute that lets a function use it.
 * Leaves one table of functions, fo_<ISA>_table, and undefines both. */

#if !defined(ISA) || !defined(TARGET)
#error "define ISA and TARGET before including instantiate.h"
#endif

#define JOIN_(a, b, c) fo_##a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define FN(name) JOIN(name, REAL, ISA)
#define ENTRY(name) JOIN(name##_entry, REAL, ISA)

/* A kernel is a function of named, non-overlapping buffers and named coefficients ... */
#define IN_PARAMETER(x) , const real *restrict x
#define IO_PARAMETER(x) , real *restrict x
#define COEF_PARAMETER(x) , const real x
#define INLINE static inline __attribute__((always_inline)) TARGET
#define KERNEL(name) \
    INLINE void FN(name)(ptrdiff_t n FO_##name(IN_PARAMETER, IO_PARAMETER, COEF_PARAMETER))
/* gcc takes a loop of one line apart before it thinks of vectors, and selects then stay apart. */
#if defined(__GNUC__) && !defined(__clang__)
#define EACH(i) _Pragma("GCC unroll 1") for (ptrdiff_t i = 0; i < n; i++)
#else
#define EACH(i) for (ptrdiff_t i = 0; i < n; i++)
#endif

/* ... and its entry unpacks them in the order of the registry. */
#define IN_UNPACK(x) const real *x = *buf++;
#define IO_UNPACK(x) real *x = *buf++;
#define COEF_UNPACK(x) const real x = (real)*coef++;
#define PASS(x) , x
#define MAKE_ENTRY(name) \
    static TARGET void ENTRY(name)(ptrdiff_t n, void *const *buf, const double *coef) \
    { \
        FO_##name(IN_UNPACK, IO_UNPACK, COEF_UNPACK) \
        FN(name)(n FO_##name(PASS, PASS, PASS)); \
    }

/* The same for buffers that come from memory: line by line, each asked for FO_AHEAD bytes before its turn, because hardware
 * follows too few streams, and not across pages. */
#define LINE ((ptrdiff_t)(64 / sizeof(real)))
#define BUFFER_AHEAD(x) __builtin_prefetch((const char *)x + FO_AHEAD);
#define BUFFER_ADVANCE(x) x += LINE;
#define BUFFER_PART(x) x += PART;
#define NOTHING_AHEAD(x)
#define MAKE_AHEAD(name) \
    static TARGET void JOIN(name##_ahead, REAL, ISA)(ptrdiff_t n, void *const *buf, const double *coef) \
    { \
        FO_##name(IN_UNPACK, IO_UNPACK, COEF_UNPACK) \
        for (; n >= LINE; n -= LINE) { \
            FO_##name(BUFFER_AHEAD, BUFFER_AHEAD, NOTHING_AHEAD) \
            FN(name)(LINE FO_##name(PASS, PASS, PASS)); \
            FO_##name(BUFFER_ADVANCE, BUFFER_ADVANCE, NOTHING_AHEAD) \
        } \
        FN(name)(n FO_##name(PASS, PASS, PASS)); \
    }

/* Plain rules, with what comes right before them done on each line, in the cache and from memory. */
#define ON_LINE(rule, count, p, g, ...) rule(count, p, line_, __VA_ARGS__)
#define APPLY(macro, ...) macro(__VA_ARGS__)
#define MAKE_LINE(name) \
    INLINE void JOIN(name##_line, REAL, ISA)(ptrdiff_t n, const real scale_, const real keep_ \
                                             FO_##name(IN_PARAMETER, IO_PARAMETER, COEF_PARAMETER)) \
    { \
        real line_[LINE]; \
        EACH(i) { \
            line_[i] = scale_ * g[i]; \
            p[i] = keep_ * p[i]; \
        } \
        APPLY(ON_LINE, FN(name), n FO_##name(PASS, PASS, PASS)); \
    }
#define LAST_OF_LINE(name, part) \
    if (n >= (part)) { \
        enum { PART = part }; \
        JOIN(name##_line, REAL, ISA)(PART, scale_, keep_ FO_##name(PASS, PASS, PASS)); \
        FO_##name(BUFFER_PART, BUFFER_PART, NOTHING_AHEAD) \
        n -= PART; \
    }
#define IN_LAST(x) , const real *x
#define IO_LAST(x) , real *x
#define MAKE_LAST(name) \
    static TARGET void JOIN(name##_last, REAL, ISA)(ptrdiff_t n, const real scale_, const real keep_ \
                                                    FO_##name(IN_LAST, IO_LAST, COEF_PARAMETER)) \
    { \
        LAST_OF_LINE(name, LINE / 2) \
        LAST_OF_LINE(name, LINE / 4) \
        JOIN(name##_line, REAL, ISA)(n, scale_, keep_ FO_##name(PASS, PASS, PASS)); \
    }
#define MAKE_FUSED_FORM(name, form, ASK) \
    static TARGET void JOIN(name##_##form, REAL, ISA)(ptrdiff_t n, void *const *buf, const double *coef, double scale_in, \
                                                      double keep_in) \
    { \
        const real scale_ = (real)scale_in, keep_ = (real)keep_in; \
        FO_##name(IN_UNPACK, IO_UNPACK, COEF_UNPACK) \
        for (; n >= LINE; n -= LINE) { \
            FO_##name(ASK, ASK, NOTHING_AHEAD) \
            JOIN(name##_line, REAL, ISA)(LINE, scale_, keep_ FO_##name(PASS, PASS, PASS)); \
            FO_##name(BUFFER_ADVANCE, BUFFER_ADVANCE, NOTHING_AHEAD) \
        } \
        if (n) \
            JOIN(name##_last, REAL, ISA)(n, scale_, keep_ FO_##name(PASS, PASS, PASS)); \
    }
#define MAKE_FUSED(name) \
    MAKE_LINE(name) MAKE_LAST(name) MAKE_FUSED_FORM(name, fused, NOTHING_AHEAD) \
    MAKE_FUSED_FORM(name, fused_ahead, BUFFER_AHEAD)
#define FUSED_SLOT(name) [fo_k_##name] = JOIN(name##_fused, REAL, ISA),
#define FUSED_AHEAD_SLOT(name) [fo_k_##name] = JOIN(name##_fused_ahead, REAL, ISA),
#define AHEAD_SLOT(name) [fo_k_##name] = JOIN(name##_ahead, REAL, ISA),
#define KERNEL_SLOT(name) [fo_k_##name] = ENTRY(name),
#define REDUCTION_SLOT(name) [fo_r_##name] = FN(name),
#define SUM_SLOT(name) [fo_sum_##name] = FN(name),
#define SLOTS \
    { .kernel = {FO_KERNELS(KERNEL_SLOT)}, .ahead = {FO_BESIDE_PLAIN_RULES(AHEAD_SLOT) FO_STAGES_AT_TIMES(KERNEL_SLOT)}, \
      .fused = {FO_PLAIN_RULES(FUSED_SLOT)}, .fused_ahead = {FO_PLAIN_RULES(FUSED_AHEAD_SLOT)}, \
      .reduce = {FO_REDUCTIONS(REDUCTION_SLOT)}, \
      .sum_squares_ahead = FN(sum_squares_ahead), \
      .sum = {FO_SUMS(SUM_SLOT)}, .add_squares = FN(add_squares), .adafactor_factors = FN(adafactor_factors), \
      .gather = FN(gather), .scatter = FN(scatter), .fill = FN(fill), .widen = FN(widen), \
      .dot = FN(dot), .axpby = FN(axpby), .softmax_cross_entropy = FN(softmax_cross_entropy), \
      .sigmoid_cross_entropy = FN(sigmoid_cross_entropy), .squared_error = FN(squared_error) }

/* Double first: losses.h needs its log1p_any for both. */
#define real double
#define REAL f64
#define REAL_BITS 64
#define word uint64_t
#include "kernels/stages.h"
#include "kernels/rules.h"
#include "kernels/reductions.h"
#include "kernels/factors.h"
#include "kernels/exponential.h"
#include "kernels/losses.h"
FO_KERNELS(MAKE_ENTRY)
FO_BESIDE_PLAIN_RULES(MAKE_AHEAD)
FO_PLAIN_RULES(MAKE_FUSED)
static const fo_functions JOIN(table, REAL, ISA) = SLOTS;
#undef real
#undef REAL
#undef REAL_BITS
#undef word

#define real float
#define REAL f32
#define REAL_BITS 32
#define word uint32_t
#include "kernels/stages.h"
#include "kernels/rules.h"
#include "kernels/reductions.h"
#include "kernels/factors.h"
#include "kernels/exponential.h"
#include "kernels/losses.h"
FO_KERNELS(MAKE_ENTRY)
FO_BESIDE_PLAIN_RULES(MAKE_AHEAD)
FO_PLAIN_RULES(MAKE_FUSED)
static const fo_functions JOIN(table, REAL, ISA) = SLOTS;
#undef real
#undef REAL
#undef REAL_BITS
#undef word

#undef SLOTS
#undef SUM_SLOT
#undef REDUCTION_SLOT
#undef KERNEL_SLOT
#undef AHEAD_SLOT
#undef FUSED_AHEAD_SLOT
#undef FUSED_SLOT
#undef MAKE_FUSED
#undef MAKE_FUSED_FORM
#undef MAKE_LAST
#undef IO_LAST
#undef IN_LAST
#undef LAST_OF_LINE
#undef MAKE_LINE
#undef APPLY
#undef ON_LINE
#undef MAKE_AHEAD
#undef NOTHING_AHEAD
#undef LINE
#undef BUFFER_PART
#undef BUFFER_ADVANCE
#undef BUFFER_AHEAD
#undef MAKE_ENTRY
#undef PASS
#undef COEF_UNPACK
#undef IO_UNPACK
#undef IN_UNPACK
#undef EACH
#undef KERNEL
#undef INLINE
#undef COEF_PARAMETER
#undef IO_PARAMETER
#undef IN_PARAMETER
#undef ENTRY
#undef FN
#undef JOIN
#undef JOIN_
#undef TARGET
#undef ISA
