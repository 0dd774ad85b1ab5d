# Tensors of another library outside a step, included by _core.pyx: their norm, their clipping, and walks of kernels over them.
# These are made for one use, and look at every tensor then: nothing is kept that could have moved.

cdef int _view_of(fo_view* view, dl_tensor* found, const int64_t* axes) except -1:
    """A tensor with its axes from the slowest, so that one without gaps is dense."""
    cdef int64_t expected = 1
    cdef int k
    view.data, view.ndim, view.size = _start(found), found.ndim, _elements(found)
    view.fortran, view.dense, view.dtype = 0, 1, FO_F32 if found.bits == 32 else FO_F64
    for k in range(found.ndim - 1, -1, -1):
        if found.shape[axes[k]] != 1 and found.strides[axes[k]] != expected:
            view.dense = 0
        expected *= found.shape[axes[k]]
    if view.size == 0:
        view.data, view.dense = NULL, 1
    if not view.dense:
        _strided(view, found, axes)
    return 0


cdef class TensorViews:
    """Tensors of float32 or float64, in any strides."""
    cdef fo_view* views
    cdef Py_ssize_t count
    cdef list tensors
    cdef bint flush

    def __cinit__(self, Source source, list tensors, bint flush=False):
        cdef dl_tensor found
        cdef int64_t axes[MAX_AXES]
        cdef Py_ssize_t i
        self.tensors, self.count, self.flush = tensors, len(tensors), flush
        self.views = <fo_view*>calloc(max(1, self.count), sizeof(fo_view))
        if not self.views:
            raise MemoryError
        for i in range(self.count):
            if not source._usable(PyList_GET_ITEM(tensors, i), &found):
                raise TypeError(f"tensor {i} is no plain memory of float32 or float64")
            _falling(found.ndim, found.strides, axes)
            _view_of(&self.views[i], &found, axes)

    def __dealloc__(self):
        _free_views(self.views, self.count)

    def repeated(self):
        """The first, by index, several of whose elements are one in memory, as an expanded tensor's are, or None."""
        cdef Py_ssize_t i
        cdef int k
        for i in range(self.count):
            for k in range(0 if self.views[i].dense else self.views[i].ndim):
                if self.views[i].strides[k] == 0 and self.views[i].shape[k] > 1:
                    return i
        return None

    def norm(self, str kind):
        """(norm over all together, whether every element is finite)"""
        cdef int finite = 1
        cdef double value
        cdef int k = _norm_kinds[kind]
        with nogil:
            value = fo_norm(self.views, self.count, k, self.flush, &finite)
        return value, finite != 0

    def rewrite(self, double max_norm, double norm):
        """Multiplies all by max_norm / norm where that is below 1, in place."""
        with nogil:
            fo_rewrite(self.views, self.count, max_norm, norm, <double>INFINITY, self.flush)


cdef class TensorPass(Programmed):
    """One walk over tensors p without gaps, each with what stands for its gradient, of its shape and dtype in any strides, and
    with an average that lies as it does, or None."""
    cdef list kept

    def __cinit__(self, Source source, list params, list grads, list averages, bint flush=False):
        cdef dl_tensor found
        cdef int64_t axes[MAX_AXES]
        cdef int64_t strides[MAX_AXES]
        cdef int64_t shape[MAX_AXES]
        cdef fo_view as_p
        cdef Py_ssize_t i
        cdef int k, ndim, bits
        self.kept = [params, grads, averages]
        self._allocate(len(params), flush)
        for i in range(self.plan.count):
            if not source._usable(PyList_GET_ITEM(params, i), &found):
                raise TypeError(f"parameter {i} is no plain memory of float32 or float64")
            ndim, bits = found.ndim, found.bits
            for k in range(ndim):
                shape[k], strides[k] = found.shape[k], found.strides[k]
            _falling(ndim, strides, axes)
            memset(&as_p, 0, sizeof(as_p))
            _view_of(&as_p, &found, axes)
            if not as_p.dense:
                free(as_p.extents)
                raise ValueError(f"parameter {i} lies in memory with gaps")
            self._add_tensor(i, _start(&found), as_p.size, cnp.NPY_FLOAT if bits == 32 else cnp.NPY_DOUBLE)
            self._look_beside(source, grads, i, ndim, bits, shape, &found)
            _view_of(&self.plan.grads[i], &found, axes)
            if averages[i] is not None:
                self._look_beside(source, averages, i, ndim, bits, shape, &found)
                if not _alike(ndim, shape, strides, found.strides):
                    raise ValueError(f"average {i} does not lie in memory as its parameter")
                self.plan.tensors[i].slot[FO_SLOT_AVERAGE] = _start(&found)
            self.plan.bytes += as_p.size * (bits // 8) * (2 + (averages[i] is not None))
        self._allocate_parts()

    cdef _look_beside(self, Source source, list tensors, Py_ssize_t i, int ndim, int bits, int64_t* shape, dl_tensor* found):
        cdef int k
        if not source._usable(PyList_GET_ITEM(tensors, i), found) or found.ndim != ndim or found.bits != bits:
            raise TypeError(f"tensor {i} is no plain memory like its parameter")
        for k in range(ndim):
            if found.shape[k] != shape[k]:
                raise ValueError(f"tensor {i} has another shape than its parameter")

    def run(self, program, double factor, int threads):
        """The walk of a program, with gradients times a factor."""
        self.set_programs([program], [[]], [factor])
        self.configure(<double>INFINITY, False, threads)
        self._go()
