/* What the parts of the check share: data that is the same on every machine, a hash of its bits, a tally. */
#ifndef FASTOPT_CHECK_H
#define FASTOPT_CHECK_H

#include "fastopt.h"

enum { MAX_NDIM = 2 };

/* ORDINARY data has signed zeros, subnormals and small numbers, and gives no NaN; SPECIAL data has every bit
 * pattern there is; POSITIVE is ORDINARY without minus signs, but for -0. */
typedef enum { ORDINARY, POSITIVE, SPECIAL } data_kind;

extern const char *const dtype_name[FO_DTYPE_COUNT];
extern const ptrdiff_t item_size[FO_DTYPE_COUNT];

/* Memory for n elements `offset` elements past a 64-byte boundary, zero; let go of with release_all. */
void *allocate(ptrdiff_t n, int dtype, ptrdiff_t offset);
void release_all(void);

void fill(void *out, int dtype, ptrdiff_t n, data_kind kind, uint64_t seed);

/* FNV-1a over bytes, low byte first; of an array, every NaN counts as the same one. */
#define HASH_START UINT64_C(0xcbf29ce484222325)
uint64_t hash_word(uint64_t h, uint64_t word, int bytes);
uint64_t hash_array(uint64_t h, int dtype, ptrdiff_t n, const void *data);

/* How many elements are NaN, or infinite or NaN. */
enum { NOT_FINITE = 1, NOT_A_NUMBER };
int count_of(int what, int dtype, ptrdiff_t n, const void *data);

/* Counts a check as passed or failed, and says which one failed. From any thread. */
void expect(int good, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints a hash that must be the same on every machine. */
void show(uint64_t h, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Calls f(context) on every available instruction set; its hash must be the same on each. */
typedef uint64_t hash_of(const void *context);
uint64_t on_every_isa(hash_of *f, const void *context, const char *what);

/* A small plan: tensors of many lengths, of one type or of both (dtype FO_DTYPE_COUNT), a gradient that is
 * strided, one that is absent at every third step; two programs, both Adam amid every stage. */
typedef struct example example;
example *example_make(int dtype, double max_norm, int flush);
fo_plan *example_plan(example *e);
void example_gradients(example *e, uint64_t step, data_kind kind);
uint64_t example_hash(const example *e);
/* Gradients, a step and the check that it was applied, `steps` times; the hash of all that was written. */
uint64_t example_run(example *e, int steps, int threads, ptrdiff_t chunk);

void check_kernels(void);
void check_norms(void);
void check_vectors(void);
void check_losses(void);
void check_steps(void);
void check_control_word(int flushes);
void check_trial(void);
void check_pool(int rounds, int forks);

#endif
