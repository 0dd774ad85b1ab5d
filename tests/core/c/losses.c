/* Equal bits: the losses' kernels on every instruction set, and the same hashes from every compiler and machine. */
#include "check.h"

#include <string.h>

static const ptrdiff_t columns[] = {1, 2, 10, 16, 33, 67, 1000};
enum { COLUMNS = sizeof columns / sizeof columns[0], ROWS = 19 };

typedef enum { CLASSES, PROBABILITIES, SIGMOID, SQUARES } loss;
static const char *const loss_name[] = {"classes", "probabilities", "sigmoid", "squares"};

typedef struct {
    loss loss;
    int dtype, flush;
    data_kind kind;
} loss_case;

/* Classes that have changed since the door looked at them. */
static void refuse_strays(const fo_loss *l, int64_t *classes)
{
    const int64_t strays[] = {-1, l->columns, INT64_MIN, INT64_MAX};
    for (int k = 0; k < 4; k++) {
        classes[ROWS / 2] = strays[k];
        expect(!fo_softmax_cross_entropy(l), "class %lld of %td is refused", (long long)strays[k], l->columns);
    }
}

static uint64_t loss_hash(const void *context)
{
    const loss_case *c = context;
    uint64_t h = HASH_START;
    for (int k = 0; k < COLUMNS; k++) {
        const ptrdiff_t n = ROWS * columns[k];
        void *x = allocate(n, c->dtype, k % 16), *target = allocate(n, c->dtype, 2 * k % 16);
        void *gradient = allocate(n, c->dtype, 3 * k % 16);
        double *losses = allocate(n, FO_F64, 0), *weights = allocate(ROWS, FO_F64, 0), total = 0;
        int64_t *classes = allocate(ROWS, FO_F64, 0);
        fill(x, c->dtype, n, c->kind, (uint64_t)k);
        fill(target, c->dtype, n, c->kind == SPECIAL ? SPECIAL : POSITIVE, (uint64_t)(100 + k));
        fill(weights, FO_F64, ROWS, POSITIVE, (uint64_t)(200 + k));
        for (int r = 0; r < ROWS; r++)
            classes[r] = 7 * r % columns[k];
        const int rowwise = c->loss == CLASSES || c->loss == PROBABILITIES;
        const fo_loss l = {
            .dtype = c->dtype, .flush = c->flush, .threads = 1, .rows = rowwise ? ROWS : n,
            .columns = rowwise ? columns[k] : 1, .prediction = x, .target = c->loss == CLASSES ? NULL : target,
            .classes = c->loss == CLASSES ? classes : NULL, .weights = k % 2 ? weights : NULL, .scale = 0.3,
            .gradient = gradient, .losses = losses};
        if (c->loss == SIGMOID)
            fo_sigmoid_cross_entropy(&l);
        else if (c->loss == SQUARES)
            total = fo_squared_error(&l);
        else
            expect(fo_softmax_cross_entropy(&l), "%s are in range", loss_name[c->loss]);
        h = hash_array(hash_array(h, c->dtype, n, gradient), FO_F64, n, losses);
        h = hash_array(h, FO_F64, 1, &total);
        if (c->loss == CLASSES)
            refuse_strays(&l, classes);
        release_all();
    }
    return h;
}

void check_losses(void)
{
    for (loss l = CLASSES; l <= SQUARES; l++)
        for (int dtype = 0; dtype < FO_DTYPE_COUNT; dtype++)
            for (data_kind kind = ORDINARY; kind <= SPECIAL; kind += SPECIAL - ORDINARY) {
                const loss_case kept = {l, dtype, 0, kind}, flushed = {l, dtype, 1, kind};
                show(on_every_isa(loss_hash, &kept, loss_name[l]), "loss %s %s %s", loss_name[l], dtype_name[dtype],
                     kind == SPECIAL ? "special" : "ordinary");
                on_every_isa(loss_hash, &flushed, loss_name[l]);
            }
}
