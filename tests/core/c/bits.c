/* Equal bits: every kernel, norm and whole step, on every instruction set, for any number of threads. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Around the tails of vectors, and around the chunk. */
static const ptrdiff_t lengths[] = {0, 1, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 67, 130, 1007, 1024, 1041};
enum { LENGTHS = sizeof lengths / sizeof lengths[0], LONGEST = 1041 };

uint64_t on_every_isa(hash_of *f, const void *context, const char *what)
{
    const int before = fo_isa_active();
    uint64_t first = 0;
    for (int isa = 0; isa < fo_isa_count(); isa++) {
        if (!fo_isa_available(isa))
            continue;
        fo_isa_use(isa);
        const uint64_t h = f(context);
        if (isa == 0)
            first = h;
        expect(h == first, "%s: %s and %s give different bits", what, fo_isa_name(0), fo_isa_name(isa));
    }
    fo_isa_use(before);
    return first;
}

typedef struct {
    int kernel, dtype, flush;
    data_kind kind;
} kernel_case;

/* Coefficients that keep a rule finite: `one` is 1 by contract, an epsilon is small, the rest are fractions. */
static void coefficients(int kernel, double *coef)
{
    const fo_kernel_info *info = &fo_registry[kernel];
    for (int k = 0; k < info->coefs; k++)
        coef[k] = strcmp(info->coef[k], "one") == 0 ? 1 : strncmp(info->coef[k], "eps", 3) == 0 ? 1e-8 : 0.9 / (k + 1);
}

static uint64_t kernel_hash(const void *context)
{
    const kernel_case *c = context;
    const fo_kernel_info *info = &fo_registry[c->kernel];
    double coef[FO_MAX_COEFS];
    void *buf[FO_MAX_BUFFERS];
    uint64_t h = HASH_START;
    int nans = 0;
    coefficients(c->kernel, coef);
    for (int k = 0; k < LENGTHS; k++) {
        const ptrdiff_t n = lengths[k];
        for (int b = 0; b < info->buffers; b++) {
            /* The state of a rule holds squares: it is not negative. */
            const data_kind kind = info->kind == 'r' && b >= 2 && c->kind == ORDINARY ? POSITIVE : c->kind;
            buf[b] = allocate(n, c->dtype, (k + 3 * b) % 16);
            fill(buf[b], c->dtype, n, kind, (uint64_t)(1000 * k + b));
        }
        fo_run(c->kernel, c->dtype, n, buf, coef, c->flush);
        for (int b = 0; b < info->buffers; b++) {
            h = hash_array(h, c->dtype, n, buf[b]);
            nans += count_of(NOT_A_NUMBER, c->dtype, n, buf[b]);
        }
        release_all();
    }
    expect(c->kind == SPECIAL || nans == 0, "%s made NaN of finite numbers", info->name);
    expect(c->kind == ORDINARY || nans > 0, "%s met no NaN among special values", info->name);
    return h;
}

/* Hashes are shown of runs that keep subnormals. Flushing gives the same bits on every instruction set of a machine,
 * not of all: a result that rounds up to the smallest normal number is tiny to Arm, which looks before it rounds. */
void check_kernels(void)
{
    for (int k = 0; k < FO_KERNEL_COUNT; k++)
        for (int dtype = 0; dtype < FO_DTYPE_COUNT; dtype++)
            for (data_kind kind = ORDINARY; kind <= SPECIAL; kind += SPECIAL - ORDINARY) {
                const char *name = fo_registry[k].name;
                const kernel_case kept = {k, dtype, 0, kind}, flushed = {k, dtype, 1, kind};
                show(on_every_isa(kernel_hash, &kept, name), "kernel %s %s %s", name, dtype_name[dtype],
                     kind == SPECIAL ? "special" : "ordinary");
                on_every_isa(kernel_hash, &flushed, name);
            }
    uint64_t h = HASH_START;
    for (int64_t n = 0; n < 2000; n += 7) {
        const double power = fo_power(0.999, n);
        h = hash_array(h, FO_F64, 1, &power);
    }
    show(h, "power float64 ordinary");
}

/* A view with its shape and strides, of a matrix of `rows` times `columns`. */
typedef struct {
    fo_view view;
    ptrdiff_t shape[MAX_NDIM], strides[MAX_NDIM];
} matrix;

enum { DENSE, TRANSPOSED, EVERY_SECOND, REVERSED, OFF_BY_A_BYTE, LAYOUTS };
static const char *const layout_name[LAYOUTS] = {"dense", "transposed", "every second", "reversed", "off by a byte"};

static char *element(const matrix *m, ptrdiff_t row, ptrdiff_t column)
{
    return m->view.data + row * m->strides[0] + column * m->strides[1];
}

/* Copies rows * columns elements, which lie in C order, into memory of this layout; m views them. */
static void lay_out(matrix *m, int layout, int dtype, ptrdiff_t rows, ptrdiff_t columns, const char *elements)
{
    const ptrdiff_t size = item_size[dtype];
    char *data = allocate(2 * rows * columns + 1, dtype, 0);
    memset(m, 0, sizeof *m);
    m->shape[0] = rows, m->shape[1] = columns;
    m->strides[0] = columns * size, m->strides[1] = size;
    if (layout == TRANSPOSED)
        m->strides[0] = size, m->strides[1] = rows * size;
    if (layout == EVERY_SECOND)
        m->strides[0] = 2 * columns * size, m->strides[1] = 2 * size;
    if (layout == REVERSED) {
        data += rows * columns > 0 ? (rows * columns - 1) * size : 0;
        m->strides[0] = -columns * size, m->strides[1] = -size;
    }
    if (layout == OFF_BY_A_BYTE)
        data++;
    m->view = (fo_view){.data = data, .shape = m->shape, .strides = m->strides, .size = rows * columns,
                        .ndim = 2, .dense = layout == DENSE, .dtype = dtype};
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < columns; c++)
            memcpy(element(m, r, c), elements + (r * columns + c) * size, (size_t)size);
}

static uint64_t hash_matrix(uint64_t h, const matrix *m)
{
    for (ptrdiff_t r = 0; r < m->shape[0]; r++)
        for (ptrdiff_t c = 0; c < m->shape[1]; c++)
            h = hash_array(h, m->view.dtype, 1, element(m, r, c));
    return h;
}

typedef struct {
    int reduction, dtype, layout, flush;
    data_kind kind;
    double scale;
} norm_case;

/* Of many lengths, alone and all together; then the same matrices rewritten. */
static uint64_t norm_hash(const void *context)
{
    const norm_case *c = context;
    uint64_t h = HASH_START;
    fo_view views[LENGTHS];
    matrix m[LENGTHS];
    int all_finite = 1, finite_here = 1;
    for (int k = 0; k <= LENGTHS; k++) {
        if (k < LENGTHS) {
            const ptrdiff_t n = 3 * lengths[k];
            char *elements = allocate(n, c->dtype, 0);
            fill(elements, c->dtype, n, c->kind, (uint64_t)k);
            if (c->scale != 1)
                fo_run(fo_k_decay, c->dtype, n, (void *[]){elements}, &c->scale, 0);
            all_finite &= finite_here = !count_of(NOT_FINITE, c->dtype, n, elements);
            lay_out(&m[k], c->layout, c->dtype, 3, lengths[k], elements);
            views[k] = m[k].view;
        }
        int finite = -1;
        const double norm = k < LENGTHS ? fo_norm(&views[k], 1, c->reduction, c->flush, &finite)
                                        : fo_norm(views, LENGTHS, c->reduction, c->flush, &finite);
        expect(finite == (k < LENGTHS ? finite_here : all_finite), "a norm says %d to whether all is finite", finite);
        h = hash_word(hash_array(h, FO_F64, 1, &norm), (uint64_t)finite, 1);
    }
    fo_rewrite(views, LENGTHS, 0.3, 1, 0.25, c->flush);
    fo_rewrite(views, LENGTHS, 1, 0x1p140, HUGE_VAL, c->flush);
    for (int k = 0; k < LENGTHS; k++)
        h = hash_matrix(h, &m[k]);
    release_all();
    return h;
}

void check_norms(void)
{
    static const char *const name[FO_REDUCTION_COUNT] = {
        [fo_r_sum_squares] = "2-norm", [fo_r_sum_abs] = "1-norm", [fo_r_max_abs] = "maximum norm"};
    for (int r = 0; r < FO_REDUCTION_COUNT; r++)
        for (int dtype = 0; dtype < FO_DTYPE_COUNT; dtype++)
            for (int k = 0; k < 4; k++) {
                static const char *const data[] = {"ordinary", "special", "huge", "tiny"};
                static const double scale[] = {1, 1, 0x1p1000, 0x1p-1000};
                uint64_t first = 0;
                if (k >= 2 && dtype == FO_F32)
                    continue;
                for (int layout = 0; layout < LAYOUTS; layout++) {
                    norm_case c = {r, dtype, layout, 0, k == 1 ? SPECIAL : ORDINARY, scale[k]};
                    const uint64_t h = on_every_isa(norm_hash, &c, name[r]);
                    if (layout == DENSE)
                        show(first = h, "%s %s %s", name[r], dtype_name[dtype], data[k]);
                    expect(h == first, "%s: %s and dense give different bits", name[r], layout_name[layout]);
                    c.flush = 1;
                    on_every_isa(norm_hash, &c, name[r]);
                }
            }
}

enum { PAIRS = 3, ROUNDS = 5 };
typedef struct {
    int dtype;
    data_kind kind;
} vector_case;

/* The vectors of a descent that goes down x^2 / 2, scaled by another vector; more rounds than pairs are kept. */
static uint64_t vectors_hash(const void *context)
{
    const vector_case *c = context;
    uint64_t h = HASH_START;
    for (int k = 0; k < LENGTHS; k++) {
        const ptrdiff_t n = lengths[k];
        double scalars[2 * (PAIRS + 1)] = {0};
        fo_vectors v = {.rho = scalars, .alpha = scalars + PAIRS + 1, .n = n, .dtype = c->dtype, .slots = PAIRS + 1};
        v.x = allocate(n, c->dtype, 0), v.trial_x = allocate(n, c->dtype, 3), v.d = allocate(n, c->dtype, 0);
        v.g = allocate(n, c->dtype, 1), v.trial_g = allocate(n, c->dtype, 0);
        v.stride = (n + 1) * item_size[c->dtype], v.pairs = allocate(2 * (PAIRS + 1) * (n + 1), c->dtype, 0);
        for (int round = 0; round < ROUNDS; round++) {
            fill(v.g, c->dtype, n, c->kind, (uint64_t)(100 * k + round));
            const fo_view g = {.data = v.g, .size = n, .dense = 1, .dtype = c->dtype};
            int finite;
            double seen[5] = {
                fo_direction(&v), fo_norm(&g, 1, fo_r_max_abs, 0, &finite), fo_dot(c->dtype, n, v.x, v.g)};
            fo_move(&v, 0.375);
            fill(v.trial_g, c->dtype, n, c->kind, (uint64_t)(100 * k + round + 1));
            seen[3] = fo_remember(&v, 0), seen[4] = v.gamma;
            h = hash_array(hash_array(h, c->dtype, n, v.d), c->dtype, n, v.trial_x);
            h = hash_array(h, FO_F64, 5, seen);
            expect(c->kind == SPECIAL || count_of(NOT_FINITE, FO_F64, 5, seen) == 0, "a direction is not finite");
            char *const x = v.x;
            v.x = v.trial_x, v.trial_x = x;
        }
        expect(c->kind == SPECIAL || n < 15 || v.count > 0, "no pair of %td elements was kept", n);
        release_all();
    }
    return h;
}

void check_vectors(void)
{
    for (int dtype = 0; dtype < FO_DTYPE_COUNT; dtype++)
        for (data_kind kind = ORDINARY; kind <= SPECIAL; kind += SPECIAL - ORDINARY) {
            const vector_case c = {dtype, kind};
            show(on_every_isa(vectors_hash, &c, "vectors"), "vectors %s %s", dtype_name[dtype],
                 kind == SPECIAL ? "special" : "ordinary");
        }
}

/* Long, short, empty and many small tensors. */
static const ptrdiff_t tensor_size[] = {1, 5000, 0, 100, 17, 3333, 2800, 1024, 2049, 30, 30, 30, 30, 30, 30, 30, 7};
enum { TENSORS = sizeof tensor_size / sizeof tensor_size[0], STRIDED = 6, ABSENT = 5, STATES = 2 };

struct example {
    fo_plan plan;
    fo_tensor tensors[TENSORS];
    fo_view grads[TENSORS];
    fo_program programs[2];
    fo_pass passes[2];
    fo_rule rule;
    fo_group group;
    char *elements[TENSORS];
    matrix strided;
    int dtype[TENSORS];
    uint64_t step;
};

fo_plan *example_plan(example *e) { return &e->plan; }

static void add_call(fo_pass *pass, int kernel)
{
    const fo_kernel_info *info = &fo_registry[kernel];
    fo_call *call = &pass->call[pass->calls];
    call->kernel = kernel;
    call->buffers = info->buffers;
    call->coefs = info->coefs;
    for (int b = 0; b < info->buffers; b++)
        call->slot[b] = fo_slot(kernel, b);
    coefficients(kernel, call->coef);
    if (info->kind == 'b' && strcmp(info->buffer[0], "g") == 0)
        pass->edits = 1;
    pass->fuses |= fo_plain(kernel);
    pass->calls++;
}

example *example_make(int dtype, double max_norm, int flush)
{
    static const int first[] = {fo_k_l2, fo_k_adam, fo_k_average};
    static const int second[] = {fo_k_clamp, fo_k_l1, fo_k_decay, fo_k_adam, fo_k_prox_l1};
    example *e = allocate((ptrdiff_t)(sizeof *e / 8 + 1), FO_F64, 0);
    ptrdiff_t blocks = 0;
    for (size_t k = 0; k < sizeof first / sizeof first[0]; k++)
        add_call(&e->passes[0], first[k]);
    for (size_t k = 0; k < sizeof second / sizeof second[0]; k++)
        add_call(&e->passes[1], second[k]);
    for (int k = 0; k < 2; k++) {
        e->passes[k].reads = 1;
        e->programs[k] = (fo_program){.passes = 1, .pass = &e->passes[k]};
    }
    e->rule.go = 1;
    e->group = (fo_group){.sign = -1, .max_norm = HUGE_VAL};
    e->plan = (fo_plan){.tensors = e->tensors, .grads = e->grads, .count = TENSORS, .programs = e->programs,
                        .program_count = 2, .rules = &e->rule, .rule_count = 1, .groups = &e->group, .group_count = 1,
                        .phases = 1,
                        .per_thread = 1, .chunk = FO_CHUNK, .threads = 1, .always_pool = 1, .max_norm = max_norm,
                        .unscale = 1, .flush = flush, .measure = 1};
    for (int t = 0; t < TENSORS; t++) {
        fo_tensor *tensor = &e->tensors[t];
        const ptrdiff_t n = tensor_size[t];
        e->dtype[t] = dtype == FO_DTYPE_COUNT ? t % 2 : dtype;
        tensor->program = t % 3 == 2;
        tensor->first_block = blocks;
        blocks += (n + FO_CHUNK - 1) / FO_CHUNK;
        e->plan.elements += n;
        for (int slot = 0; slot < FO_SLOT_STATE + STATES; slot++)
            if (slot != FO_SLOT_G)
                tensor->slot[slot] = allocate(n, e->dtype[t], t % 5);
        fill(tensor->slot[FO_SLOT_P], e->dtype[t], n, ORDINARY, (uint64_t)t);
        e->elements[t] = allocate(n, e->dtype[t], 0);
        e->grads[t] = (fo_view){.data = e->elements[t], .shape = &tensor_size[t], .strides = &item_size[e->dtype[t]],
                                .size = n, .ndim = 1, .dense = 1, .dtype = e->dtype[t]};
    }
    lay_out(&e->strided, EVERY_SECOND, e->dtype[STRIDED], 40, tensor_size[STRIDED] / 40, e->elements[STRIDED]);
    e->grads[STRIDED] = e->strided.view;
    e->plan.parts = allocate(blocks, FO_F64, 0);
    return e;
}

void example_gradients(example *e, uint64_t step, data_kind kind)
{
    for (int t = 0; t < TENSORS; t++)
        fill(e->elements[t], e->dtype[t], tensor_size[t], kind, 100 * step + (uint64_t)t);
    for (ptrdiff_t r = 0; r < e->strided.shape[0]; r++)
        for (ptrdiff_t c = 0; c < e->strided.shape[1]; c++) {
            const ptrdiff_t size = item_size[e->dtype[STRIDED]];
            memcpy(element(&e->strided, r, c), e->elements[STRIDED] + (r * e->strided.shape[1] + c) * size,
                   (size_t)size);
        }
    e->grads[ABSENT].data = step % 3 == 2 ? NULL : e->elements[ABSENT];
}

uint64_t example_hash(const example *e)
{
    uint64_t h = HASH_START;
    for (int t = 0; t < TENSORS; t++)
        for (int slot = 0; slot < FO_SLOT_STATE + STATES; slot++)
            if (slot != FO_SLOT_G)
                h = hash_array(h, e->dtype[t], tensor_size[t], e->tensors[t].slot[slot]);
    return h;
}

uint64_t example_run(example *e, int steps, int threads, ptrdiff_t chunk)
{
    uint64_t h = HASH_START;
    e->plan.threads = threads;
    e->plan.chunk = chunk;
    for (int k = 0; k < steps; k++) {
        example_gradients(e, e->step++, ORDINARY);
        expect(fo_step(&e->plan) == 1, "a step over finite gradients was refused");
        h = hash_array(h, FO_F64, 1, &e->plan.norm);
    }
    return hash_word(h, example_hash(e), 8);
}

typedef struct {
    int dtype, threads, flush;
    ptrdiff_t chunk;
    double max_norm;
} step_case;

static uint64_t step_hash(const void *context)
{
    const step_case *c = context;
    example *e = example_make(c->dtype, c->max_norm, c->flush);
    const uint64_t h = example_run(e, 5, c->threads, c->chunk);
    const uint64_t before = example_hash(e);
    example_gradients(e, 0, SPECIAL);
    expect(fo_step(&e->plan) == 0, "a step over NaN was not refused");
    expect(example_hash(e) == before, "a step that was refused has written");
    release_all();
    return h;
}

void check_steps(void)
{
    static const int threads[] = {1, 2, 3, 7};
    static const ptrdiff_t chunks[] = {FO_CHUNK, 1, 100, 1023};
    static const double max_norms[] = {0.5, 1e30, HUGE_VAL};
    for (int dtype = 0; dtype <= FO_DTYPE_COUNT; dtype++)
        for (int clip = 0; clip < 3; clip++)
            for (int flush = 0; flush <= 1; flush++) {
                step_case c = {dtype, 1, flush, FO_CHUNK, max_norms[clip]};
                const uint64_t first = on_every_isa(step_hash, &c, "a step");
                if (!flush)
                    show(first, "step %s %s", dtype < FO_DTYPE_COUNT ? dtype_name[dtype] : "mixed",
                         clip == 0 ? "clipped" : clip == 1 ? "measured" : "plain");
                for (int k = 0; k < 16; k++) {
                    c.threads = threads[k / 4], c.chunk = chunks[k % 4];
                    expect(step_hash(&c) == first, "%d threads and chunks of %d give different bits", c.threads,
                           (int)c.chunk);
                }
            }
    if (fo_threads_available())
        expect(fo_threads_started() >= 6, "7 threads were asked for and the pool has %d", fo_threads_started());
    else
        expect(fo_threads_started() == 0, "a build without threads has started %d", fo_threads_started());
}
