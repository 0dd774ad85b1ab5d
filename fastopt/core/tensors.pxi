# Tensors of another library as the core sees them, included by _core.pyx: DLPack's C exchange table shows them without taking
# hold of them. What is refused of them, and what they are called, is for who binds them (fastopt/torch/binding.py).

cdef struct dl_tensor:
    void* data
    int32_t device, device_id
    int32_t ndim
    uint8_t code, bits
    uint16_t lanes
    int64_t* shape
    int64_t* strides
    uint64_t byte_offset

cdef struct dl_table:
    uint32_t major, minor
    void* older
    void* allocate
    void* share
    void* wrap
    int (*look)(void* tensor, dl_tensor* out) noexcept
    void* stream

cdef enum:
    DL_CPU = 1
    DL_FLOAT = 2
    MAX_AXES = 64


cdef class Source:
    """How tensors of the exact types are looked at: by the table of their class where it has one and `table` is true, else
    as what to_array(tensor) shares with NumPy."""
    cdef dl_table* table
    cdef object to_array
    cdef tuple types
    cdef int64_t room[2 * MAX_AXES]

    def __init__(self, tuple types, to_array, bint table=True):
        self.types, self.to_array = types, to_array
        capsule = getattr(types[0], "__dlpack_c_exchange_api__", None) if table else None
        if capsule is not None:
            self.table = <dl_table*>PyCapsule_GetPointer(capsule, "dlpack_exchange_api")
            if self.table.major != 1 or self.table.look == NULL:
                self.table = NULL

    @property
    def by_table(self):
        return self.table != NULL

    cdef bint _knows(self, PyObject* tensor) noexcept:
        cdef Py_ssize_t i
        for i in range(len(self.types)):
            if <PyObject*>Py_TYPE(<object>tensor) == PyTuple_GET_ITEM(self.types, i):
                return True
        return False

    cdef int _look(self, PyObject* tensor, dl_tensor* out) except -1:
        cdef cnp.ndarray a
        cdef int i
        if self.table != NULL:
            return self.table.look(tensor, out)
        a = self.to_array(<object>tensor)
        out.data, out.byte_offset, out.ndim = cnp.PyArray_DATA(a), 0, a.ndim
        out.device, out.code, out.lanes = DL_CPU, DL_FLOAT if a.dtype.kind == "f" else 255, 1
        out.bits = 8 * cnp.PyArray_ITEMSIZE(a)
        out.shape, out.strides = self.room, &self.room[MAX_AXES]
        for i in range(a.ndim):
            out.shape[i], out.strides[i] = cnp.PyArray_DIM(a, i), cnp.PyArray_STRIDE(a, i) // cnp.PyArray_ITEMSIZE(a)
        return 0

    cdef bint _sees(self, PyObject* tensor, dl_tensor* out) except -1:
        """Looks at it; False where there is no memory to look at, as of a sparse tensor."""
        if self.table != NULL:
            if self.table.look(tensor, out):
                PyErr_Clear()
                return False
            return True
        self._look(tensor, out)
        return True

    cdef bint _usable(self, PyObject* tensor, dl_tensor* out) except -1:
        """Looks at it: whether it is plain memory of float32 or float64 here, aligned or not."""
        return (
            self._knows(tensor) and self._sees(tensor, out)
            and out.device == DL_CPU and out.code == DL_FLOAT and out.lanes == 1 and (out.bits == 32 or out.bits == 64)
            and (out.data != NULL or _elements(out) == 0)
        )

    def usable(self, tensor):
        """Whether a tensor is plain memory of float32 or float64 here."""
        cdef dl_tensor found
        return self._usable(<PyObject*>tensor, &found)

    def overlap(self, list tensors):
        """The first two, by index, of these that share an element, or None."""
        cdef dl_tensor found
        cdef uintptr_t low, high
        cdef list ranges = []
        for i, tensor in enumerate(tensors):
            self._look(<PyObject*>tensor, &found)
            if _reach(&found, &low, &high):
                ranges.append((low, high, i))
        ranges.sort()
        # Those that reach beyond the start of the next: several may, with their elements between those of each other.
        reaching = []
        for low, high, i in ranges:
            reaching = [other for other in reaching if other[0] > low]
            for _, k in reaching:
                if _share(self.to_array(tensors[i]), self.to_array(tensors[k])):
                    return tuple(sorted((i, k)))
            reaching.append((high, i))
        return None


cdef inline char* _start(dl_tensor* t) noexcept:
    return <char*>t.data + t.byte_offset


cdef Py_ssize_t _elements(dl_tensor* t) noexcept:
    cdef Py_ssize_t n = 1
    cdef int i
    for i in range(t.ndim):
        n *= t.shape[i]
    return n


cdef bint _reach(dl_tensor* t, uintptr_t* low, uintptr_t* high) noexcept:
    """The bytes between its first and last element; False where there are none."""
    cdef int i
    low[0] = <uintptr_t>_start(t)
    high[0] = low[0] + t.bits // 8
    for i in range(t.ndim):
        if t.shape[i] == 0:
            return False
        high[0] += (t.shape[i] - 1) * t.strides[i] * (t.bits // 8)
    return True


cdef inline bint _aligned(dl_tensor* t) noexcept:
    return <uintptr_t>_start(t) % (t.bits // 8) == 0


cdef bint _alike(int ndim, const int64_t* shape, const int64_t* a, const int64_t* b) noexcept:
    """Whether strides go to the same places."""
    cdef int i
    for i in range(ndim):
        if a[i] != b[i] and shape[i] > 1:
            return False
    return True


cdef int _falling(int ndim, const int64_t* strides, int64_t* axes) noexcept:
    """Axes from the slowest to the fastest in memory; of equal strides, in their order."""
    cdef int i, k
    for i in range(ndim):
        k = i
        while k > 0 and strides[axes[k - 1]] < strides[i]:
            axes[k] = axes[k - 1]
            k -= 1
        axes[k] = i
    return 0


cdef int _strided(fo_view* view, dl_tensor* found, const int64_t* axes) except -1:
    """Its extents into a view, axis by axis in this order."""
    cdef int k
    if view.room < found.ndim:
        free(view.extents)
        view.extents = <Py_ssize_t*>calloc(2 * found.ndim, sizeof(Py_ssize_t))
        if not view.extents:
            view.room = 0
            raise MemoryError
        view.room = found.ndim
    for k in range(found.ndim):
        view.extents[k] = found.shape[axes[k]]
        view.extents[found.ndim + k] = found.strides[axes[k]] * (found.bits // 8)
    view.shape, view.strides = view.extents, view.extents + found.ndim
    return 0
