/* The only functions that the binding calls. Nothing here allocates, locks or touches Python, and
 * nothing checks: the door (fastopt/core/_core.pyx) has refused every bad buffer before. */
#ifndef FASTOPT_H
#define FASTOPT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/registry.h"

#if defined(__FAST_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__ASSOCIATIVE_MATH__)
#error "fastopt promises exact bits: build it without -ffast-math and its parts"
#endif
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "fastopt promises exact bits: build it without -ffinite-math-only"
#endif

/* FO_CHUNK is the block of the reductions, and part of the promise of equal bits: changing it changes norms.
 * FO_WALK is what one stage hands to the next in L1, in bytes: measured, with six streams of it aliasing least.
 * FO_AHEAD and, of sums, FO_SUM_AHEAD are how far memory is asked for before its turn, in bytes: see
 * docs/decisions/prefetch.md.
 * FO_PER_THREAD is measured too: see docs/decisions/pool.md. */
enum { FO_CHUNK = 1024, FO_LANES = 16, FO_WALK = 2048, FO_AHEAD = 2048, FO_SUM_AHEAD = 4096, FO_PER_THREAD = 16384 };
enum { FO_MAX_BUFFERS = 8, FO_MAX_COEFS = 14, FO_MAX_CALLS = 14, FO_MAX_SUM_BUFFERS = 3, FO_MAX_OUTS = 8 };

#define FO_KERNEL_ID(name) fo_k_##name,
#define FO_REDUCTION_ID(name) fo_r_##name,
enum { FO_KERNELS(FO_KERNEL_ID) FO_KERNEL_COUNT };
enum { FO_REDUCTIONS(FO_REDUCTION_ID) FO_REDUCTION_COUNT };

enum { FO_F32, FO_F64, FO_DTYPE_COUNT };

/* registry.h as data: kind is 'r' for a rule, 'b' for a stage before it, 'a' for one after it,
 * 'p' for a kernel of passes outside the step. */
typedef struct {
    const char *name;
    char kind;
    int buffers, coefs;
    const char *buffer[FO_MAX_BUFFERS], *coef[FO_MAX_COEFS];
} fo_kernel_info;
extern const fo_kernel_info fo_registry[FO_KERNEL_COUNT];

/* Sums over several buffers, of a walk; and scalar functions between walks: in and out by name. */
#define FO_SUM_ID(name) fo_sum_##name,
#define FO_SCALAR_ID(name) fo_scalar_##name,
enum { FO_SUMS(FO_SUM_ID) FO_SUM_COUNT };
enum { FO_SCALARS(FO_SCALAR_ID) FO_SCALAR_COUNT };
typedef struct {
    const char *name;
    int buffers;
    const char *buffer[FO_MAX_SUM_BUFFERS];
} fo_sum_info;
extern const fo_sum_info fo_sums[FO_SUM_COUNT];
typedef struct {
    const char *name;
    int ins, outs;
    const char *in[FO_MAX_COEFS], *out[FO_MAX_OUTS];
    void (*run)(const double *in, double *out);
} fo_scalar_info;
extern const fo_scalar_info fo_scalars[FO_SCALAR_COUNT];

/* Runs kernel `id` once over n elements of non-overlapping contiguous buffers. */
void fo_run(int id, int dtype, ptrdiff_t n, void *const *buf, const double *coef, int flush);

/* A sum of a walk over one block, and Adafactor's vectors of one matrix (see factors.h), in the caller's floating-point mode. */
double fo_run_sum(int sum, int dtype, ptrdiff_t n, const void *const *in);
void fo_run_factors(int dtype, ptrdiff_t rows, ptrdiff_t columns, const double *row_sums, const double *column_sums, void *r,
                    void *c, void *a, const double *coef);

/* Instruction sets: names by index, whether this CPU has one, and the one in use. */
int fo_isa_count(void);
const char *fo_isa_name(int isa);
int fo_isa_available(int isa);
int fo_isa_active(void);
void fo_isa_use(int isa);

/* base^n by binary powering in double: the same bits on every machine, as libm's pow is not. */
double fo_power(double base, int64_t n);

/* exp(x) and, of positive normal x, log(x): by csrc/kernels/exponential.h, so that no bit depends on libm. */
double fo_exp(double x);
double fo_log(double x);

/* fo_flush(1) flushes subnormals to zero on this thread, fo_flush(0) keeps them; both return the floating-point
 * control word to give back to fo_restore. fo_control is that word without its record of exceptions. */
uint64_t fo_flush(int on);
void fo_restore(uint64_t control);
uint64_t fo_control(void);

/* An array as its owner holds it: strides in bytes, walked in C order or in Fortran order. `dense`
 * says that it is contiguous in that order and aligned. data is NULL where there is none. */
typedef struct {
    char *data;
    char *checked;                      /* the door's: where the last gradient that was checked lay */
    const ptrdiff_t *shape, *strides;   /* of one that is not dense */
    ptrdiff_t *extents;                 /* the door's: memory for these, of `room` dimensions */
    ptrdiff_t size;
    int room, ndim, fortran, dense, dtype;
    int group;                          /* of a plan's gradients: whose norm they are in beside that of all */
} fo_view;

/* kind is a reduction: sum_squares gives the 2-norm, sum_abs the 1-norm, max_abs the maximum norm.
 * *finite says whether every element is; the norm of finite elements may still overflow. */
double fo_norm(const fo_view *views, ptrdiff_t count, int kind, int flush, int *finite);

/* view *= max_norm / norm where that is below 1, then clamped to [-bound, bound] (bound may be infinite), in place. */
void fo_rewrite(const fo_view *views, ptrdiff_t count, double max_norm, double norm, double bound, int flush);

/* A loss and its gradient, all arrays contiguous and of one type where it is not said. `prediction` is logits or
 * a prediction, (rows, columns) for softmax, else of `rows` elements; target is of the same shape, or for softmax NULL
 * and `classes` one for each row; weights and gradient may be NULL. */
typedef struct {
    int dtype, flush, threads;
    ptrdiff_t rows, columns;
    const void *prediction, *target;
    const int64_t *classes;
    const double *weights;
    double scale;
    void *gradient;
    double *losses;
} fo_loss;

/* losses[row] = -sum of p log softmax; gradient = weights[row] (softmax - p). Returns 0, with some rows not written, where
 * a class is out of range. */
int fo_softmax_cross_entropy(const fo_loss *loss);

/* gradient = scale (sigmoid(prediction) - target); a loss for each element, not scaled. */
void fo_sigmoid_cross_entropy(const fo_loss *loss);

/* gradient = scale (prediction - target); returns the sum of squared differences, its parts by FO_CHUNK in losses. */
double fo_squared_error(const fo_loss *loss);

/* What a tensor has, by place: p, g and the average, the rule's state, then scratch of one chunk, which nobody keeps. */
enum { FO_SLOT_P, FO_SLOT_G, FO_SLOT_AVERAGE, FO_SLOT_STATE };
enum { FO_MAX_STATE = 8, FO_SLOT_SCRATCH = FO_SLOT_STATE + FO_MAX_STATE, FO_MAX_SCRATCH = 3 };
int fo_slot(int kernel, int buffer);

/* Whether a kernel is a rule of one walk. */
int fo_plain(int kernel);

/* How many elements a slot of state has: as many as p, or one for each row or each column of its matrices, as they lie
 * in memory: a walk spreads these out over the elements. */
enum { FO_LIKE_P, FO_ROWS, FO_COLUMNS };

/* A register is a double that a sum or a scalar function leaves: one for each tensor or, from FO_ALL on, one for all
 * tensors of a rule. A number of a call may be a register: `reg` is it + 1, or 0 for what stands in `coef`. */
enum { FO_MAX_REGISTERS = 16, FO_ALL = FO_MAX_REGISTERS };

/* A kernel with its buffers, by slot, and its coefficients; `registers` says that some are registers. */
typedef struct {
    int kernel, buffers, coefs, registers;
    int slot[FO_MAX_BUFFERS], reg[FO_MAX_COEFS];
    double coef[FO_MAX_COEFS];
} fo_call;

/* A sum over buffers of a walk as its kernels leave them. */
typedef struct {
    int reduction, buffers, reg;
    int slot[FO_MAX_SUM_BUFFERS];
} fo_sum;

/* A walk takes each chunk through its calls, then adds up its sums. `reads` says that they read the gradient, `edits` that
 * they change it, `copies` that p decays in scratch, because a later walk is to write it, `fuses` that one call is to a plain
 * rule, whose loop scales the gradient and lets p decay, and `wide` that after the calls comes one more, to `average`, which
 * is kept in double whatever p is. A factored walk goes by rows, and adds up the squares of the gradient over each row and
 * each column: its last call is to `factors`. A scalar pass is one call of a scalar function, for each tensor or, with `all`,
 * for the rule; `out` are registers, and where the `go`-th of them, from 1, is 0, the rule takes the step back. */
enum { FO_WALK_PASS, FO_FACTORED_PASS, FO_SCALAR_PASS };
enum { FO_MAX_SUMS = 3 };
typedef struct {
    int kind, calls, edits, fuses, reads, copies, wide, sums, all, outs, go;
    fo_call call[FO_MAX_CALLS];
    fo_sum sum[FO_MAX_SUMS];
    int out[FO_MAX_OUTS];
} fo_pass;

/* What the tensors of one cohort go through, the rule whose registers they share, and what of `extent` their state has.
 * The last pass is a walk, and the only one that writes p. */
typedef struct {
    int passes, rule, group, all; /* all: it has registers of all tensors */
    char extent[FO_SLOT_SCRATCH];
    fo_pass *pass;
} fo_program;

/* The registers of all tensors of a rule. Its scalar function may set `go` to 0 before p is written: then its tensors
 * stay as they are. */
typedef struct {
    double reg[FO_MAX_REGISTERS];
    int go;
} fo_rule;

/* Into how many bands a factored walk cuts this many rows, whatever the number of threads. */
int fo_bands(ptrdiff_t rows);

/* How the gradients of a group are taken. */
typedef struct {
    double sign;         /* -1 to maximize */
    double max_norm;     /* of its own gradients together; infinite: do not clip */
    double first, second; /* step.c's: the factors that clip it */
} fo_group;

/* A parameter with its state, contiguous and aligned; its gradient is views[same index]. */
typedef struct {
    char *slot[FO_SLOT_SCRATCH];
    ptrdiff_t size;          /* this and dtype, by NumPy's number, are the door's: as it found the parameter */
    int dtype;
    ptrdiff_t first_block;   /* of its blocks in parts */
    ptrdiff_t position;      /* step.c's: where it begins when all tensors lie end to end */
    int program;
    ptrdiff_t matrices, rows, columns; /* where the state has such slots, as they lie in memory */
    double *lines;           /* there too: a sum for each row, then one for each column and band of rows */
    double *reg;             /* its registers, where its program has any */
} fo_tensor;

/* trial.c's: steps on the pool in a row that took longer than the caller alone would have, how long it last went alone for
 * that, and how many such steps are left. */
typedef struct {
    int slow, rest, left;
} fo_trial;

typedef struct {
    fo_tensor *tensors;
    fo_view *grads;
    ptrdiff_t count;
    fo_program *programs;
    fo_rule *rules;
    fo_group *groups;
    int program_count, rule_count, group_count;
    int phases, all;     /* of the longest program, and of any */
    double *parts;       /* one for every block of every tensor, FO_MAX_SUMS times over */
    ptrdiff_t blocks;    /* of all tensors */
    ptrdiff_t elements;  /* of all tensors */
    ptrdiff_t per_thread; /* fewer elements are not worth a thread */
    ptrdiff_t chunk;     /* at most FO_CHUNK; changes no bit */
    int threads;         /* at most */
    int always_pool;     /* for tests: do not ask whether threads pay */
    fo_trial trial;
    double max_norm;     /* of all gradients together; infinite: do not clip */
    int by_group;        /* some group has a norm of its own; then the norm of all is measured too */
    double unscale;      /* what gradients are multiplied by first; their norm is measured after that */
    int ahead;           /* step.c's: its memory is more than the caches hold */
    ptrdiff_t bytes;     /* that a step touches, each once */
    int flush;
    int measure;         /* compute the norm first, and refuse the step where it is not finite */
    double norm;         /* out: the norm, where measured */
    int claimed;         /* a thread is preparing or running a step */
} fo_plan;

/* A plan belongs to one thread from fo_claim, which returns 0 where another has it, to fo_yield. */
int fo_claim(fo_plan *plan);
void fo_yield(fo_plan *plan);

/* One step over all tensors whose grads[i].data is not NULL. Returns 1 when it was applied, 0 when it
 * was refused with nothing written. */
int fo_step(fo_plan *plan);

/* The vectors of a descent by line searches, all of one type: where it is, where it tries to go, and what L-BFGS
 * remembers, `slots` pairs of a step s and the change y of the gradient over it, `stride` bytes from vector to vector.
 * One slot is spare: a pair is written there before it is known whether it is kept. Subnormals are kept. */
typedef struct {
    char *x, *g, *d, *trial_x, *trial_g;
    char *pairs;
    double *rho, *alpha;      /* one for every slot: 1 / s.y, and room for the two loops */
    double gamma;             /* s.y / y.y of the newest pair: the first guess at the inverse Hessian */
    ptrdiff_t n, stride;
    int dtype, slots, count, newest;
} fo_vectors;

/* d = -H g, H the inverse Hessian as the pairs tell it, by the two loops of L-BFGS; without pairs d = -g.
 * Returns g.d. */
double fo_direction(fo_vectors *v);

/* trial_x = x + alpha d. */
void fo_move(fo_vectors *v, double alpha);

/* A dot product by the blocks and lanes of the norms. */
double fo_dot(int dtype, ptrdiff_t n, const void *a, const void *b);

/* Keeps the pair of the step from x to trial_x, or with `given` the one that stands in the spare slot, if s.y is
 * safely positive; returns whether. */
int fo_remember(fo_vectors *v, int given);
int fo_spare(const fo_vectors *v);

/* The control words of up to `threads` threads of the pool, the caller's first; returns how many. */
int fo_controls(uint64_t *words, int threads);

/* Whether steps of so many bytes ask for their memory ahead: of more than the caches hold, as the system gives their sizes,
 * or as FASTOPT_PREFETCH=0 or 1 says, or fo_prefetch(0 or 1); fo_prefetch(-1) asks the caches again. No bit changes. */
int fo_asks_ahead(ptrdiff_t bytes);
void fo_prefetch(int always);

/* Threads that the pool has started, and whether this build can have any. */
int fo_threads_started(void);
int fo_threads_available(void);

#endif
