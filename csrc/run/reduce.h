/* Sums over many blocks, and norms: blocks are added in index order, so that no bit depends on threads. */
#ifndef FASTOPT_REDUCE_H
#define FASTOPT_REDUCE_H

#include "kernels/kernels.h"

/* A sum of blocks in two levels, because one serial sum of 10^9 of them takes a second: superblocks of FO_SUPERBLOCK
 * consecutive blocks, then those in order. */
enum { FO_SUPERBLOCK = 1024 };
typedef struct {
    double total, open;
    int count;
} block_sum;

static inline void block_sum_add(block_sum *sum, double part)
{
    sum->open += part;
    if (++sum->count == FO_SUPERBLOCK) {
        sum->total += sum->open;
        sum->open = 0;
        sum->count = 0;
    }
}

static inline double block_sum_total(const block_sum *sum) { return sum->total + sum->open; }

/* One block's part of a reduction; `scratch` has room for a block. With `ahead` sums of squares
 * ask for their memory before its turn. */
double reduce_block(const fo_view *view, ptrdiff_t start, int kind, double unit, int ahead, char *scratch);

/* The norm of kind over all views, or those of one group; of sums of squares `first` is the plain sum, where there is one
 * already, or NULL. */
enum { EVERY_GROUP = -1 };
double reduce_norm(const fo_view *views, ptrdiff_t count, int group, int kind, const double *first, int ahead,
                   int *finite);

#endif
