# Arrays as csrc sees them, included by _core.pyx.

cdef inline bint _is_dense(cnp.ndarray a, bint fortran) noexcept:
    return cnp.PyArray_ISALIGNED(a) and (
        cnp.PyArray_IS_F_CONTIGUOUS(a) if fortran else cnp.PyArray_IS_C_CONTIGUOUS(a)
    )


cdef inline int _fill_view(fo_view* view, cnp.ndarray a, bint fortran) except -1:
    view.data = <char*>cnp.PyArray_DATA(a)
    view.ndim = cnp.PyArray_NDIM(a)
    view.size = cnp.PyArray_SIZE(a)
    view.fortran = fortran
    view.dense = _is_dense(a, fortran)
    view.dtype = FO_F32 if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT else FO_F64
    if not view.dense:
        _copy_extents(view, a)
    return 0


cdef int _copy_extents(fo_view* view, cnp.ndarray a) except -1:
    """The array's own are freed when another thread sets its shape."""
    cdef Py_ssize_t* extents
    cdef int i
    if view.ndim > view.room:
        extents = <Py_ssize_t*>realloc(view.extents, 2 * view.ndim * sizeof(Py_ssize_t))
        if not extents:
            raise MemoryError
        view.extents, view.room = extents, view.ndim
    for i in range(view.ndim):
        view.extents[i], view.extents[view.ndim + i] = cnp.PyArray_DIM(a, i), cnp.PyArray_STRIDE(a, i)
    view.shape, view.strides = view.extents, view.extents + view.ndim
    return 0


cdef _free_views(fo_view* views, Py_ssize_t count):
    for i in range(count if views else 0):
        free(views[i].extents)
    free(views)


cdef class _Views:
    cdef fo_view* views
    cdef Py_ssize_t count
    cdef list arrays

    def __cinit__(self, list arrays):
        cdef Py_ssize_t i
        cdef cnp.ndarray a
        self.arrays = arrays
        self.views = <fo_view*>calloc(max(1, len(arrays)), sizeof(fo_view))
        if not self.views:
            raise MemoryError
        self.count = len(arrays)
        for i in range(self.count):
            a = arrays[i]
            # The caller has checked; since then another thread may have changed the type.
            if cnp.PyArray_TYPE(a) != cnp.NPY_FLOAT and cnp.PyArray_TYPE(a) != cnp.NPY_DOUBLE:
                _check_array("an array", a)
            _fill_view(&self.views[i], a, cnp.PyArray_IS_F_CONTIGUOUS(a) and not cnp.PyArray_IS_C_CONTIGUOUS(a))

    def __dealloc__(self):
        _free_views(self.views, self.count)
