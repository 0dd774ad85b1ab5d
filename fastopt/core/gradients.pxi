# Gradients on their own, included by _core.pyx: their checks, norms, and clipping in place. See fastopt/training/clipping.py.

def check_gradients(names, list arrays, bint write, str what="gradient"):
    """The door for gradients on their own; with `write`, they must be writable and not overlap."""
    for name, a in zip(names, arrays):
        _check_array(f"{what} {name!r}", a)
        if write and not cnp.PyArray_ISWRITEABLE(a):
            raise ValueError(
                f"{what} {name!r} is read-only and is to be clipped in place: pass a writable copy, "
                "or let the optimizer clip with clip_norm= or clip_value="
            )
    if write:
        _refuse_overlap("gradient", names, arrays)


def norm(list arrays, str kind, bint flush=True):
    """(norm over all arrays together, whether every element is finite)"""
    cdef int finite = 1
    cdef double value
    cdef _Views v = _Views(arrays)
    cdef int k = _norm_kinds[kind]
    with nogil:
        value = fo_norm(v.views, v.count, k, flush, &finite)
    return value, finite != 0


def rewrite(list arrays, double max_norm, double norm, double bound, bint flush=True):
    """a *= max_norm / norm where that is below 1, clamped to [-bound, bound], in place, any strides."""
    cdef _Views v = _Views(arrays)
    with nogil:
        fo_rewrite(v.views, v.count, max_norm, norm, bound, flush)
