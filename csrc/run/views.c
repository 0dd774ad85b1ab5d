/* Elements of an array of any strides: see views.h. */
#include <string.h>

#include "run/views.h"

/* Does ROW for the pieces of one stride that make up the elements [start, start + n) of a view in its walking
 * order; in it `row` is where a piece begins, `stride` its step in bytes, `count` its elements, `done` those before. */
#define FOR_EACH_ROW(view, start, n, ROW) \
    do { \
        const fo_view *const v_ = (view); \
        const int last_ = v_->fortran ? 0 : v_->ndim - 1, inward_ = v_->fortran ? -1 : 1; \
        const ptrdiff_t length_ = v_->ndim ? v_->shape[last_] : 1; \
        const ptrdiff_t stride = v_->ndim ? v_->strides[last_] : 0; \
        for (ptrdiff_t done = 0; done < (n);) { \
            ptrdiff_t rest_ = ((start) + done) / length_; \
            const ptrdiff_t first_ = ((start) + done) % length_; \
            char *row = v_->data + first_ * stride; \
            for (int axis_ = last_ - inward_, k_ = 1; k_ < v_->ndim; k_++, axis_ -= inward_) { \
                row += rest_ % v_->shape[axis_] * v_->strides[axis_]; \
                rest_ /= v_->shape[axis_]; \
            } \
            const ptrdiff_t room_ = length_ - first_, want_ = (n) - done; \
            const ptrdiff_t count = room_ < want_ ? room_ : want_; \
            ROW; \
            done += count; \
        } \
    } while (0)

void view_load(const fo_functions *f, const fo_view *view, ptrdiff_t start, ptrdiff_t n, factor by, int ahead, char *out)
{
    const ptrdiff_t size = fo_item_size(view->dtype);
    void *const buf[] = {out, view->data + start * size};
    if (view->dense)
        (ahead ? f->ahead : f->kernel)[fo_k_scale](n, buf, &by.first);
    else
        FOR_EACH_ROW(view, start, n, f->gather(count, out + done * size, row, stride, by.first));
    if (by.second != 1)
        f->kernel[fo_k_decay](n, buf, &by.second);
}

void view_store(const fo_functions *f, const fo_view *view, ptrdiff_t start, ptrdiff_t n, const char *in)
{
    const ptrdiff_t size = fo_item_size(view->dtype);
    if (view->dense) {
        memcpy(view->data + start * size, in, (size_t)(n * size));
        return;
    }
    FOR_EACH_ROW(view, start, n, f->scatter(count, in + done * size, row, stride));
}
