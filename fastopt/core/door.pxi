# The door, included by _core.pyx: what is refused of arrays, before anything is written. A gradient's own checks at
# every step are in Plan._admit; these are what it and the construction share.

cdef object _check_array(str what, object a):
    """Refuses whatever is not a plain float32 or float64 array in native byte order."""
    if not isinstance(a, np.ndarray):
        raise TypeError(f"{what} is {kind(a)}, not a numpy array: {way_in(a)}")
    refuse_masked(what, a)
    if cnp.PyArray_ISCOMPLEX(a):
        raise TypeError(f"{what} has dtype {a.dtype}: {no_complex(a.dtype)}")
    if cnp.PyArray_TYPE(a) != cnp.NPY_FLOAT and cnp.PyArray_TYPE(a) != cnp.NPY_DOUBLE:
        raise TypeError(
            f"{what} has dtype {a.dtype}: fastopt computes in float32 and float64; "
            "convert it once with .astype(np.float32)"
        )
    if cnp.PyArray_ISBYTESWAPPED(a):
        raise TypeError(
            f"{what} has dtype {a.dtype.str}, the other byte order: convert it with .astype({a.dtype.name!r})"
        )


cdef bint _byte_range(object a, uintptr_t* low, uintptr_t* high):
    """The bytes between an array's first and last element; False where there are none."""
    cdef Py_ssize_t reach
    cdef int i
    low[0] = <uintptr_t>cnp.PyArray_DATA(a)
    high[0] = low[0] + cnp.PyArray_ITEMSIZE(a)
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, i) == 0:
            return False
        reach = (cnp.PyArray_DIM(a, i) - 1) * cnp.PyArray_STRIDE(a, i)
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach
    return True


cdef list _ranges(arrays):
    """(low, high, index) of every array that has bytes, sorted."""
    cdef uintptr_t low, high
    found = []
    for i, a in enumerate(arrays):
        if _byte_range(a, &low, &high):
            found.append((low, high, i))
    found.sort()
    return found


cdef object _refuse_overlap(str what, names, arrays):
    cdef list ranges = _ranges(arrays)
    seen = {}
    for name, a in zip(names, arrays):
        if id(a) in seen:
            raise ValueError(
                f"{what}s {seen[id(a)]!r} and {name!r} are the same array: it would be written twice; pass it once"
            )
        seen[id(a)] = name
    reaching = None
    for low, high, i in ranges:
        if reaching is not None and low < reaching[1] and _share(arrays[i], arrays[reaching[2]]):
            first, second = sorted((i, reaching[2]))
            raise ValueError(
                f"{what}s {names[first]!r} and {names[second]!r} overlap in memory: some elements would be "
                "written twice; pass views that do not overlap, or copies"
            )
        if reaching is None or high > reaching[1]:
            reaching = (low, high, i)


cdef bint _share(object a, object b):
    """Whether two arrays whose byte ranges meet have an element in common."""
    try:
        return np.shares_memory(a, b, max_work=1_000_000)
    except np.exceptions.TooHardError:
        return True


def check_parameters(names, params):
    """Refuses what cannot be updated in place: names the parameter, what was found and the fix."""
    for name, a in zip(names, params):
        what = f"parameter {name!r}"
        _check_array(what, a)
        if not cnp.PyArray_ISWRITEABLE(a):
            raise ValueError(
                f"{what} is read-only and is to be updated in place: pass a writable array "
                "(a.copy(), or a.flags.writeable = True where it owns its memory)"
            )
        if not cnp.PyArray_IS_C_CONTIGUOUS(a) and not cnp.PyArray_IS_F_CONTIGUOUS(a):
            raise ValueError(
                f"{what} is not contiguous (shape {a.shape}, strides {a.strides}): pass a C- or "
                "Fortran-contiguous array, for example np.ascontiguousarray(a), and use that one in the model"
            )
        if not cnp.PyArray_ISALIGNED(a):
            raise ValueError(f"{what} is not aligned to its {a.itemsize}-byte elements: pass a.copy()")
    _refuse_overlap("parameter", names, params)


cdef bint _collect(object template, object tree, list leaves, Py_ssize_t* filled):
    """Puts the leaves of `tree` in the order of `template`; False where the plain containers differ."""
    cdef PyObject* branch
    cdef Py_ssize_t i
    if isinstance(template, cnp.ndarray):
        if isinstance(tree, (dict, list, tuple)):
            return False
        leaves[filled[0]] = tree
        filled[0] += 1
        return True
    if type(template) is dict:
        if type(tree) is not dict or len(<dict>tree) != len(<dict>template):
            return False
        for key, item in (<dict>template).items():
            branch = PyDict_GetItem(tree, key)
            if branch == NULL or not _collect(item, <object>branch, leaves, filled):
                return False
        return True
    if type(template) is list and type(tree) is list and len(<list>tree) == len(<list>template):
        for i in range(len(<list>template)):
            # The keys of dicts in it are compared by code of their own, which may shorten it.
            if i >= len(<list>tree) or not _collect((<list>template)[i], (<list>tree)[i], leaves, filled):
                return False
        return True
    return False
