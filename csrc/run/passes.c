/* Programs of several passes: see passes.h. */
#include "run/passes.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "run/reduce.h"
#include "run/views.h"
#include "run/walk.h"

enum { BANDS = 16, BAND_ROWS = 64, SPREAD = 2 };

/* Memory of one chunk for what lies nowhere: the gradient as stages leave it, scratch slots, vectors spread out. */
typedef struct {
    _Alignas(64) char gradient[FO_CHUNK * sizeof(double)];
    _Alignas(64) char slot[FO_MAX_SCRATCH][FO_CHUNK * sizeof(double)];
    _Alignas(64) char spread[SPREAD][FO_CHUNK * sizeof(double)];
} chunk_memory;

typedef struct {
    const fo_program *program;
    const fo_pass *pass;
    const fo_tensor *tensor;
    const fo_view *grad;
    const fo_functions *functions;
    fo_kernel *const *kernels;
    fo_fused *const *fused; /* of plain rules, which are no kernels ahead of their memory */
    factor scale;
    double coef[FO_MAX_CALLS][FO_MAX_COEFS];
    int ahead, direct, spreads, spread_slot[SPREAD];
    ptrdiff_t size;
    chunk_memory *memory;
} walker;

static double value_of(const fo_rule *rule, const fo_tensor *tensor, int reg)
{
    return reg >= FO_ALL ? rule->reg[reg - FO_ALL] : tensor->reg[reg];
}

/* The numbers of a call, with registers in their places. */
static void resolve(const fo_rule *rule, const fo_tensor *tensor, const fo_call *call, double *coef)
{
    for (int i = 0; i < call->coefs; i++)
        coef[i] = call->reg[i] ? value_of(rule, tensor, call->reg[i] - 1) : call->coef[i];
}

static void note_spread(walker *w, const int *slots, int count)
{
    for (int b = 0; b < count; b++) {
        const int slot = slots[b];
        if (slot >= FO_SLOT_SCRATCH || w->program->extent[slot] == FO_LIKE_P)
            continue;
        int k = 0;
        while (k < w->spreads && w->spread_slot[k] != slot)
            k++;
        if (k == w->spreads)
            w->spread_slot[w->spreads++] = slot;
    }
}

/* The elements [start, start + n) of a vector of rows or columns, each as often as its row or column has elements. */
static void spread(const walker *w, int k, ptrdiff_t start, ptrdiff_t n)
{
    const fo_tensor *t = w->tensor;
    const int slot = w->spread_slot[k];
    const char *vector = t->slot[slot];
    char *out = w->memory->spread[k];
    for (ptrdiff_t done = 0; done < n;) {
        const ptrdiff_t row = (start + done) / t->columns, column = (start + done) % t->columns;
        const ptrdiff_t room = t->columns - column, count = room < n - done ? room : n - done;
        if (w->program->extent[slot] == FO_ROWS)
            w->functions->fill(count, out + done * w->size, vector + row * w->size);
        else
            memcpy(out + done * w->size, vector + (row / t->rows * t->columns + column) * w->size,
                   (size_t)(count * w->size));
        done += count;
    }
}

static void *place(const walker *w, int slot, ptrdiff_t start)
{
    if (slot == FO_SLOT_G)
        return w->direct ? w->grad->data + start * w->size : w->memory->gradient;
    if (slot == FO_SLOT_P && w->pass->copies)
        return w->memory->slot[0];
    if (slot >= FO_SLOT_SCRATCH)
        return w->memory->slot[slot - FO_SLOT_SCRATCH];
    for (int k = 0; k < w->spreads; k++)
        if (w->spread_slot[k] == slot)
            return w->memory->spread[k];
    return w->tensor->slot[slot] + start * w->size;
}

static void run_calls(const walker *w, int calls, ptrdiff_t start, ptrdiff_t n)
{
    if (w->pass->reads && !w->direct)
        view_load(w->functions, w->grad, start, n, w->scale, w->ahead, w->memory->gradient);
    if (w->pass->copies)
        memcpy(w->memory->slot[0], w->tensor->slot[FO_SLOT_P] + start * w->size, (size_t)(n * w->size));
    for (int k = 0; k < w->spreads; k++)
        spread(w, k, start, n);
    for (int c = 0; c < calls; c++) {
        const fo_call *call = &w->pass->call[c];
        void *buf[FO_MAX_BUFFERS];
        for (int b = 0; b < call->buffers; b++)
            buf[b] = place(w, call->slot[b], start);
        const double *coef = call->registers ? w->coef[c] : call->coef;
        if (w->fused[call->kernel])
            w->fused[call->kernel](n, buf, coef, 1, 1);
        else
            w->kernels[call->kernel](n, buf, coef);
    }
    if (w->pass->wide)
        walk_average(w->pass, w->tensor, w->grad->dtype, start, n, w->ahead);
}

static double sum_of(const walker *w, const fo_sum *sum, ptrdiff_t start, ptrdiff_t n)
{
    const void *in[FO_MAX_SUM_BUFFERS];
    for (int b = 0; b < sum->buffers; b++)
        in[b] = place(w, sum->slot[b], start);
    if (sum->reduction < FO_REDUCTION_COUNT)
        return w->functions->reduce[sum->reduction](n, in[0], 1.0);
    return w->functions->sum[sum->reduction - FO_REDUCTION_COUNT](n, in);
}

int fo_bands(ptrdiff_t rows)
{
    const ptrdiff_t worth = rows / BAND_ROWS;
    return worth < 1 ? 1 : worth < BANDS ? (int)worth : BANDS;
}

/* Sums of squares of the gradient for each row of a band, and for each column over the band's rows. */
static void add_up_band(const walker *w, ptrdiff_t matrix, int band, int bands)
{
    const fo_tensor *t = w->tensor;
    double *row_sums = t->lines + matrix * t->rows;
    double *columns = t->lines + t->matrices * t->rows + (matrix * bands + band) * t->columns;
    memset(columns, 0, (size_t)t->columns * sizeof *columns);
    for (ptrdiff_t row = t->rows * band / bands; row < t->rows * (band + 1) / bands; row++) {
        const ptrdiff_t first = (matrix * t->rows + row) * t->columns;
        double total = 0;
        for (ptrdiff_t column = 0; column < t->columns; column += FO_CHUNK) {
            const ptrdiff_t left = t->columns - column, n = left < FO_CHUNK ? left : FO_CHUNK;
            run_calls(w, w->pass->calls - 1, first + column, n);
            const void *g = place(w, FO_SLOT_G, first + column);
            total += w->functions->reduce[fo_r_sum_squares](n, g, 1.0);
            w->functions->add_squares(n, columns + column, g);
        }
        row_sums[row] = total;
    }
}

static void add_up_lines(const walker *w, ptrdiff_t begin, ptrdiff_t end)
{
    const fo_tensor *t = w->tensor;
    const int bands = fo_bands(t->rows);
    const ptrdiff_t matrix_size = t->rows * t->columns;
    for (ptrdiff_t matrix = begin / matrix_size; matrix < t->matrices && matrix * matrix_size < end; matrix++)
        for (int band = 0; band < bands; band++) {
            const ptrdiff_t first = matrix * matrix_size + t->rows * band / bands * t->columns;
            if (first >= begin && first < end)
                add_up_band(w, matrix, band, bands);
        }
}

void passes_walk(const fo_plan *plan, ptrdiff_t t, int pass, factor scale, ptrdiff_t begin, ptrdiff_t end)
{
    chunk_memory memory;
    const fo_tensor *tensor = &plan->tensors[t];
    const fo_program *program = &plan->programs[tensor->program];
    walker w = {.program = program, .pass = &program->pass[pass], .tensor = tensor, .grad = &plan->grads[t],
                .functions = fo_functions_for(plan->grads[t].dtype), .scale = scale, .ahead = plan->ahead, .memory = &memory,
                .size = fo_item_size(plan->grads[t].dtype)};
    w.kernels = plan->ahead ? w.functions->ahead : w.functions->kernel;
    w.fused = plan->ahead ? w.functions->fused_ahead : w.functions->fused;
    w.direct = w.grad->dense && scale.first == 1 && scale.second == 1 && !w.pass->edits;
    for (int c = 0; c < w.pass->calls; c++) {
        const fo_call *call = &w.pass->call[c];
        if (call->registers)
            resolve(&plan->rules[program->rule], tensor, call, w.coef[c]);
        if (w.pass->kind != FO_FACTORED_PASS)
            note_spread(&w, call->slot, call->buffers);
    }
    if (w.pass->kind == FO_FACTORED_PASS && tensor->size)
        add_up_lines(&w, begin, end);
    const int calls = w.pass->kind == FO_FACTORED_PASS ? w.pass->calls - 1 : w.pass->calls;
    if (w.pass->kind == FO_FACTORED_PASS && !w.pass->sums)
        return;
    const ptrdiff_t chunk = w.pass->sums || plan->chunk > FO_CHUNK ? FO_CHUNK : plan->chunk;
    for (ptrdiff_t start = begin; start < end; start += chunk) {
        const ptrdiff_t n = end - start < chunk ? end - start : chunk;
        run_calls(&w, calls, start, n);
        for (int s = 0; s < w.pass->sums; s++)
            plan->parts[s * plan->blocks + tensor->first_block + start / FO_CHUNK] =
                sum_of(&w, &w.pass->sum[s], start, n);
    }
}

static void set_register(fo_rule *rule, const fo_tensor *tensor, int reg, double value)
{
    if (reg >= FO_ALL)
        rule->reg[reg - FO_ALL] = value;
    else
        tensor->reg[reg] = value;
}

static ptrdiff_t blocks_of(const fo_tensor *t) { return (t->size + FO_CHUNK - 1) / FO_CHUNK; }

/* The bands of each column are added in order, where the first of them lies; then all becomes vectors of the state. */
static void make_factors(const fo_rule *rule, const fo_tensor *t, int dtype, const fo_pass *pass)
{
    const fo_call *call = &pass->call[pass->calls - 1];
    const int bands = fo_bands(t->rows), size = (int)fo_item_size(dtype);
    double coef[FO_MAX_COEFS];
    resolve(rule, t, call, coef);
    for (ptrdiff_t m = 0; m < t->matrices; m++) {
        double *columns = t->lines + t->matrices * t->rows + m * bands * t->columns;
        for (int band = 1; band < bands; band++)
            for (ptrdiff_t j = 0; j < t->columns; j++)
                columns[j] += columns[band * t->columns + j];
        fo_functions_for(dtype)->adafactor_factors(
            t->rows, t->columns, t->lines + m * t->rows, columns, t->slot[call->slot[0]] + m * t->rows * size,
            t->slot[call->slot[1]] + m * t->columns * size, t->slot[call->slot[2]] + m * t->rows * size, coef);
    }
}

static void run_scalar(fo_rule *rule, const fo_tensor *tensor, const fo_pass *pass)
{
    double in[FO_MAX_COEFS], out[FO_MAX_OUTS];
    resolve(rule, tensor, &pass->call[0], in);
    fo_scalars[pass->call[0].kernel].run(in, out);
    for (int k = 0; k < pass->outs; k++)
        set_register(rule, tensor, pass->out[k], out[k]);
    if (pass->go)
        rule->go = out[pass->go - 1] != 0;
}

void passes_finish_tensor(const fo_plan *plan, ptrdiff_t t, int pass)
{
    const fo_tensor *tensor = &plan->tensors[t];
    const fo_program *program = &plan->programs[tensor->program];
    const fo_pass *p = &program->pass[pass];
    fo_rule *rule = &plan->rules[program->rule];
    for (int s = 0; s < p->sums; s++)
        if (p->sum[s].reg < FO_ALL) {
            const double *parts = plan->parts + s * plan->blocks + tensor->first_block;
            block_sum total = {0};
            for (ptrdiff_t k = 0; k < blocks_of(tensor); k++)
                block_sum_add(&total, parts[k]);
            set_register(rule, tensor, p->sum[s].reg, block_sum_total(&total));
        }
    if (p->kind == FO_FACTORED_PASS && tensor->size)
        make_factors(rule, tensor, plan->grads[t].dtype, p);
    if (p->kind == FO_SCALAR_PASS && !p->all)
        run_scalar(rule, tensor, p);
}

/* The pass of a program in a phase: programs end together, because only their last passes write parameters. */
int passes_in(const fo_program *program, int phases, int phase) { return phase - (phases - program->passes); }

static const fo_pass *pass_in(const fo_plan *plan, ptrdiff_t t, int phases, int phase, int rule)
{
    const fo_program *program = &plan->programs[plan->tensors[t].program];
    const int k = passes_in(program, phases, phase);
    return plan->grads[t].data && program->rule == rule && k >= 0 ? &program->pass[k] : NULL;
}

/* A sum over all tensors of a rule, their blocks end to end. */
static double sum_over_rule(const fo_plan *plan, int phases, int phase, int rule, int s)
{
    block_sum total = {0};
    for (ptrdiff_t t = 0; t < plan->count; t++) {
        const fo_tensor *tensor = &plan->tensors[t];
        if (pass_in(plan, t, phases, phase, rule))
            for (ptrdiff_t k = 0; k < blocks_of(tensor); k++)
                block_sum_add(&total, plan->parts[s * plan->blocks + tensor->first_block + k]);
    }
    return block_sum_total(&total);
}

void passes_finish_rules(const fo_plan *plan, int phases, int phase)
{
    for (int rule = 0; rule < plan->rule_count; rule++) {
        const fo_pass *pass = NULL;
        const fo_tensor *first = NULL;
        for (ptrdiff_t t = 0; t < plan->count && !pass; t++) {
            pass = pass_in(plan, t, phases, phase, rule);
            first = &plan->tensors[t];
        }
        if (!pass)
            continue;
        for (int s = 0; s < pass->sums; s++)
            if (pass->sum[s].reg >= FO_ALL)
                plan->rules[rule].reg[pass->sum[s].reg - FO_ALL] = sum_over_rule(plan, phases, phase, rule, s);
        if (pass->kind == FO_SCALAR_PASS && pass->all)
            run_scalar(&plan->rules[rule], first, pass);
    }
}
