/* Flushing of subnormals: a bit in a per-thread control word. MXCSR's FTZ and DAZ on x86, FPCR's FZ
 * on Arm. Elsewhere nothing is flushed, and both backends agree on that. */
#ifndef FASTOPT_FPU_H
#define FASTOPT_FPU_H

#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#define FO_FLUSH_BITS UINT64_C(0x8040)
#define FO_STICKY_BITS UINT64_C(0x3f) /* what arithmetic has met, and not how it is done */
static inline uint64_t fpu_get(void) { return _mm_getcsr(); }
static inline void fpu_set(uint64_t word) { _mm_setcsr((unsigned)word); }
#elif defined(__aarch64__)
#define FO_FLUSH_BITS (UINT64_C(1) << 24)
#define FO_STICKY_BITS UINT64_C(0)
static inline uint64_t fpu_get(void)
{
    uint64_t word;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(word));
    return word;
}
static inline void fpu_set(uint64_t word) { __asm__ __volatile__("msr fpcr, %0" : : "r"(word)); }
#else
#define FO_FLUSH_BITS UINT64_C(0)
#define FO_STICKY_BITS UINT64_C(0)
static inline uint64_t fpu_get(void) { return 0; }
static inline void fpu_set(uint64_t word) { (void)word; }
#endif

/* The arithmetic between fpu_begin and fpu_end must be behind a function pointer or a call: the
 * compiler does not know that it depends on the control word. */
static inline uint64_t fpu_begin(int flush)
{
    const uint64_t before = fpu_get();
    fpu_set(flush ? before | FO_FLUSH_BITS : before & ~FO_FLUSH_BITS);
    return before;
}
static inline void fpu_end(uint64_t before) { fpu_set(before); }

#endif
