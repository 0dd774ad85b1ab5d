/* Vectors from which a matrix of second moments is made: see adafactor.h. A template like the rules. */

/* r and c take in the means over rows and columns, a is r over the mean of r: then a[i] c[j] stands for the matrix. `coef`:
 * keep, gain, eps_add, floor_r. */
static void FN(adafactor_factors)(ptrdiff_t rows, ptrdiff_t columns, const double *row_sums, const double *column_sums,
                                  void *row_state, void *column_state, void *row_scale, const double *coef)
{
    real *r = row_state, *c = column_state, *a = row_scale;
    const double keep = coef[0], gain = coef[1], eps_add = coef[2], floor_r = coef[3];
    double total = 0;
    for (ptrdiff_t i = 0; i < rows; i++) {
        r[i] = (real)(keep * (double)r[i] + gain * (row_sums[i] / (double)columns + eps_add));
        total += (double)r[i];
    }
    for (ptrdiff_t j = 0; j < columns; j++)
        c[j] = (real)(keep * (double)c[j] + gain * (column_sums[j] / (double)rows + eps_add));
    const double mean = total / (double)rows, divisor = mean < floor_r ? floor_r : mean;
    for (ptrdiff_t i = 0; i < rows; i++)
        a[i] = (real)((double)r[i] / divisor);
}
