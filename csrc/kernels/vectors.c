/* Vectors in blocks of FO_CHUNK: dot products, and the two loops of L-BFGS (Nocedal & Wright, algorithm 7.4).
 *
 * Each pass adds a multiple of one vector and takes the dot product with the next while the block is in L1. Dot
 * products of blocks are added in index order, so the bits depend on nothing but the data. */
#include <float.h>
#include <math.h>

#include "run/fpu.h"
#include "kernels/kernels.h"

static const double epsilon[FO_DTYPE_COUNT] = {[FO_F32] = (double)FLT_EPSILON, [FO_F64] = DBL_EPSILON};

/* Does BODY for the blocks of n elements: `at` is a block's first byte in a vector, `count` its elements. */
#define FOR_EACH_BLOCK(dtype, n, BODY) \
    for (ptrdiff_t start_ = 0; start_ < (n); start_ += FO_CHUNK) { \
        const ptrdiff_t left_ = (n) - start_, count = left_ < FO_CHUNK ? left_ : FO_CHUNK; \
        const ptrdiff_t at = start_ * fo_item_size(dtype); \
        BODY \
    }

static double dot(int dtype, ptrdiff_t n, const char *a, const char *b)
{
    const fo_functions *f = fo_functions_for(dtype);
    double total = 0;
    FOR_EACH_BLOCK(dtype, n, total += f->dot(count, a + at, b + at);)
    return total;
}

static void scale(const fo_functions *f, ptrdiff_t n, char *out, const char *in, double factor)
{
    void *const buf[] = {out, (void *)in};
    f->kernel[fo_k_scale](n, buf, &factor);
}

/* d = a d + b x, and returns d.w */
static double pass(const fo_vectors *v, double a, double b, const char *x, const char *w)
{
    const fo_functions *f = fo_functions_for(v->dtype);
    double total = 0;
    FOR_EACH_BLOCK(v->dtype, v->n, {
        f->axpby(count, v->d + at, a, x + at, b);
        total += f->dot(count, v->d + at, w + at);
    })
    return total;
}

/* The slot of the pair that came `age` pairs before the newest, and its two vectors. */
static int slot_of(const fo_vectors *v, int age) { return (v->newest - age + v->slots) % v->slots; }
static char *step_in(const fo_vectors *v, int slot) { return v->pairs + 2 * slot * v->stride; }
static char *change_in(const fo_vectors *v, int slot) { return step_in(v, slot) + v->stride; }

static double direction(fo_vectors *v)
{
    const fo_functions *f = fo_functions_for(v->dtype);
    const int oldest = v->count - 1;
    FOR_EACH_BLOCK(v->dtype, v->n, scale(f, count, v->d + at, v->g + at, -1);)
    if (v->count == 0)
        return dot(v->dtype, v->n, v->d, v->g);
    double total = dot(v->dtype, v->n, v->d, step_in(v, v->newest));
    for (int age = 0; age <= oldest; age++) {
        const int slot = slot_of(v, age);
        const char *next = age < oldest ? step_in(v, slot_of(v, age + 1)) : change_in(v, slot);
        v->alpha[slot] = v->rho[slot] * total;
        total = pass(v, 1, -v->alpha[slot], change_in(v, slot), next);
    }
    for (int age = oldest; age >= 0; age--) {
        const int slot = slot_of(v, age);
        const char *next = age > 0 ? change_in(v, slot_of(v, age - 1)) : v->g;
        const double a = age == oldest ? v->gamma : 1, beta = v->rho[slot] * (a * total);
        total = pass(v, a, v->alpha[slot] - beta, step_in(v, slot), next);
    }
    return total;
}

double fo_direction(fo_vectors *v)
{
    const uint64_t control = fpu_begin(0);
    const double slope = direction(v);
    fpu_end(control);
    return slope;
}

/* out = a + factor * b */
static void add(const fo_functions *f, ptrdiff_t n, char *out, const char *a, const char *b, double factor)
{
    scale(f, n, out, a, 1);
    f->axpby(n, out, 1, b, factor);
}

void fo_move(fo_vectors *v, double alpha)
{
    const fo_functions *f = fo_functions_for(v->dtype);
    const uint64_t control = fpu_begin(0);
    FOR_EACH_BLOCK(v->dtype, v->n, add(f, count, v->trial_x + at, v->x + at, v->d + at, alpha);)
    fpu_end(control);
}

double fo_dot(int dtype, ptrdiff_t n, const void *a, const void *b)
{
    const uint64_t control = fpu_begin(0);
    const double total = dot(dtype, n, a, b);
    fpu_end(control);
    return total;
}

int fo_spare(const fo_vectors *v) { return (v->newest + 1) % v->slots; }

/* Safely positive: larger than what rounding alone makes of s.y, and small enough a reciprocal. */
int fo_remember(fo_vectors *v, int given)
{
    const fo_functions *f = fo_functions_for(v->dtype);
    const int slot = fo_spare(v);
    char *const s = step_in(v, slot), *const y = change_in(v, slot);
    double ss = 0, sy = 0, yy = 0;
    const uint64_t control = fpu_begin(0);
    FOR_EACH_BLOCK(v->dtype, v->n, {
        if (!given) {
            add(f, count, s + at, v->trial_x + at, v->x + at, -1);
            add(f, count, y + at, v->trial_g + at, v->g + at, -1);
        }
        ss += f->dot(count, s + at, s + at);
        sy += f->dot(count, s + at, y + at);
        yy += f->dot(count, y + at, y + at);
    })
    const int keep = sy > epsilon[v->dtype] * (sqrt(ss) * sqrt(yy)) && 1 / sy <= DBL_MAX;
    if (keep) {
        v->newest = slot;
        v->count += v->count < v->slots - 1;
        v->rho[slot] = 1 / sy;
        v->gamma = sy / yy;
    }
    fpu_end(control);
    return keep;
}
