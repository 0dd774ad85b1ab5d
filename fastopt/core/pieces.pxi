# What programs are made of, a piece at a time, for tests and the self-test, included by _core.pyx.

cdef int _number_of_type(object a):
    return FO_F32 if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT else FO_F64


cdef Py_ssize_t _fill_buffers(str what, names, list buffers, void** buf) except -1:
    """The places of arrays that are 1-d, contiguous, and of one type and length, which is returned."""
    cdef Py_ssize_t n = len(buffers[0]) if len(buffers) else 0
    cdef int i
    if len(buffers) != len(names):
        raise ValueError(f"{what} takes buffers {names}")
    check_parameters(names, buffers)
    for i in range(len(buffers)):
        if buffers[i].shape != (n,) or buffers[i].dtype != buffers[0].dtype:
            raise ValueError(f"{what}: buffers must be 1-d, of one dtype and length")
        buf[i] = cnp.PyArray_DATA(buffers[i])
    return n


def run_kernel(str name, list buffers, list coefs, bint flush=True):
    """One kernel over whole buffers."""
    cdef void* buf[FO_MAX_BUFFERS]
    cdef double coef[FO_MAX_COEFS]
    id, _, buffer_names, coef_names = _kernels[name]
    cdef int kernel = id, dtype, i
    cdef Py_ssize_t n = _fill_buffers(name, buffer_names, buffers, buf)
    if len(coefs) != len(coef_names):
        raise ValueError(f"{name} takes coefficients {coef_names}")
    for i in range(len(coefs)):
        coef[i] = coefs[i]
    dtype = _number_of_type(buffers[0])
    with nogil:
        fo_run(kernel, dtype, n, buf, coef, flush)


def run_sum(str name, list buffers):
    """A sum of a walk over one block, in this thread's floating-point mode."""
    cdef void* buf[FO_MAX_BUFFERS]
    cdef Py_ssize_t n = _fill_buffers(name, SUMS[name], buffers, buf)
    if n > FO_CHUNK:
        raise ValueError(f"{name}: a block has at most {FO_CHUNK} elements")
    return fo_run_sum(_sums[name] - FO_REDUCTION_COUNT, _number_of_type(buffers[0]), n, <const void**>buf)


def run_scalar(str name, list values):
    """What a function between walks gives, in this thread's floating-point mode."""
    cdef double given[FO_MAX_COEFS]
    cdef double found[FO_MAX_OUTS]
    cdef int i
    ins, outs = SCALARS[name]
    if len(values) != len(ins):
        raise ValueError(f"{name} takes {ins}")
    for i in range(len(ins)):
        given[i] = values[i]
    fo_scalars[<int>_scalars[name]].run(given, found)
    return tuple([found[i] for i in range(len(outs))])


def run_factors(row_sums, column_sums, r, c, a, double keep, double gain, double eps_add, double floor_r):
    """Adafactor's vectors of one matrix, in this thread's floating-point mode: see csrc/kernels/factors.h."""
    cdef void* sums[2]
    cdef void* vectors[3]
    cdef double[4] coef = [keep, gain, eps_add, floor_r]
    cdef Py_ssize_t rows = _fill_buffers("factors", ("r", "a"), [r, a], vectors)
    cdef Py_ssize_t columns = _fill_buffers("factors", ("c",), [c], vectors)
    if _fill_buffers("factors", ("row_sums",), [row_sums], sums) != rows:
        raise ValueError("factors: one sum for each row")
    if _fill_buffers("factors", ("column_sums",), [column_sums], sums) != columns:
        raise ValueError("factors: one sum for each column")
    if row_sums.dtype != np.float64 or column_sums.dtype != np.float64 or c.dtype != r.dtype:
        raise ValueError("factors: sums are float64, and r, c and a of one dtype")
    fo_run_factors(_number_of_type(r), rows, columns, <const double*>cnp.PyArray_DATA(row_sums),
                   <const double*>cnp.PyArray_DATA(column_sums), cnp.PyArray_DATA(r), cnp.PyArray_DATA(c),
                   cnp.PyArray_DATA(a), coef)
