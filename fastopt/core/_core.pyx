# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The only door to csrc/.

Everything that can be wrong with a buffer is found here (door.pxi), before anything is written; below, C
trusts its pointers. A Plan holds the parameters and their state for one optimizer, for one thread at a time
(claims.pxi): `step` takes the gradients, the optimizer's coefficients, and makes one call without the GIL
over all of them. ReferencePlan in fastopt/engine/numpy_plan.py puts NumPy in place of that call and shares
everything else.
"""

from cpython.dict cimport PyDict_GetItem, PyDict_Next
from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject, Py_TYPE
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_INCREF
from libc.math cimport INFINITY, isfinite, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

cimport numpy as cnp

import numpy as np

from fastopt.core.csrc cimport *
from fastopt.base.arguments import boolean, refuse_masked
from fastopt.base.foreign import no_complex, way_in
from fastopt.base.memory import copies_of
from fastopt.base.tree import kind

cnp.import_array()

cdef extern from "Python.h":
    object PyType_GenericAlloc(type cls, Py_ssize_t items)
    void PyTuple_SET_ITEM(object t, Py_ssize_t i, object x)
    PyObject* PyTuple_GET_ITEM(object t, Py_ssize_t i)
    PyObject* PyList_GET_ITEM(object a, Py_ssize_t i)

cdef extern from *:
    """
    #if defined(__GNUC__)
    #pragma GCC diagnostic ignored "-Wunused-parameter"
    #pragma GCC diagnostic ignored "-Wmissing-field-initializers"
    #endif
    #ifndef FO_FLAGS
    #define FO_FLAGS "unknown"
    #endif
    #if defined(__clang__)
    #define FO_COMPILER "clang " __clang_version__
    #else
    #define FO_COMPILER "gcc " __VERSION__
    #endif
    """
    const char* FO_FLAGS
    const char* FO_COMPILER

ctypedef struct range_t:
    uintptr_t low
    uintptr_t high
    Py_ssize_t owner


def _read_registry():
    kernels = {}
    for k in range(FO_KERNEL_COUNT):
        info = &fo_registry[k]
        kernels[info.name.decode()] = (
            k,
            {98: "before", 114: "rule", 97: "after", 112: "pass"}[info.kind],
            tuple([info.buffer[i].decode() for i in range(info.buffers)]),
            tuple([info.coef[i].decode() for i in range(info.coefs)]),
        )
    return kernels


cdef dict _kernels = _read_registry()
KERNELS = {name: entry[1:] for name, entry in _kernels.items()}
CHUNK = FO_CHUNK
LANES = FO_LANES
cdef dict _norm_kinds = {"sum_squares": fo_r_sum_squares, "sum_abs": fo_r_sum_abs, "max_abs": fo_r_max_abs}


include "runtime.pxi"
include "door.pxi"
include "views.pxi"
include "claims.pxi"
include "programs.pxi"


cdef _made(type cls, bint applied, norm, t, skipped):
    """cls(applied, norm, t, skipped) for a named tuple, without its own constructor, which is slow beside a small step."""
    cdef object made = PyType_GenericAlloc(cls, 4)
    _put(made, 0, bool(applied))
    _put(made, 1, norm)
    _put(made, 2, t)
    _put(made, 3, skipped)
    return made


cdef inline _put(made, Py_ssize_t i, x):
    Py_INCREF(x)
    PyTuple_SET_ITEM(made, i, x)


cdef class Plan(Programmed):
    """Parameters, what a step writes beside them, and the programs that update them.

    `template` is the tree of params, `states[i]` the state of `params[i]` in the order of its rule's slots, `averages[i]`
    its running average or None, which may be float64 beside another type. These are laid out in memory as the parameter
    is, but for vectors of its rows and columns, which `extents[i]` tells.
    """
    cdef readonly object template
    cdef readonly tuple names, params, states, averages, extents, frozen
    cdef readonly list grads
    cdef readonly bint flush
    cdef bint reads_parameters, any_frozen
    cdef object __weakref__

    def __cinit__(
        self,
        object template,
        tuple names,
        tuple params,
        tuple states,
        tuple averages,
        bint flush,
        tuple extents=(),
        tuple frozen=(),
    ):
        cdef Py_ssize_t i
        self.template, self.flush = template, flush
        self.names, self.params, self.states, self.averages = names, params, states, averages
        self.frozen, self.any_frozen = frozen or (False,) * len(params), any(frozen)
        self.extents = extents or ((),) * len(params)
        self.grads = [None] * len(params)
        self._allocate(len(params), flush)
        for i in range(self.plan.count):
            self._add_tensor(i, <char*>cnp.PyArray_DATA(params[i]), cnp.PyArray_SIZE(params[i]), cnp.PyArray_TYPE(params[i]))
            self.plan.bytes += 2 * params[i].nbytes + sum([a.nbytes for a in (averages[i], *states[i]) if a is not None])
            self._add_state(i, self.extents[i])
        self._allocate_parts()
        self._protect()

    cdef _add_state(self, Py_ssize_t i, tuple extents):
        """Where the state of a parameter lies; of vectors, how they go with it, and memory for what they come from."""
        cdef fo_tensor* tensor = &self.plan.tensors[i]
        cdef Py_ssize_t k
        p, average = self.params[i], self.averages[i]
        cdef bint wide = average is not None and cnp.PyArray_TYPE(average) == cnp.NPY_DOUBLE
        alike = [a for k, a in enumerate(self.states[i]) if not (extents and extents[k])]
        for buffer in (average, *alike):
            if buffer is not None and (
                cnp.PyArray_SIZE(buffer) != tensor.size
                or (cnp.PyArray_TYPE(buffer) != tensor.dtype and not (buffer is average and wide))
            ):
                raise ValueError(f"parameter {self.names[i]!r} was given another size or dtype meanwhile")
        if average is not None:
            tensor.slot[FO_SLOT_AVERAGE] = <char*>cnp.PyArray_DATA(average)
        for k in range(len(self.states[i])):
            tensor.slot[FO_SLOT_STATE + k] = <char*>cnp.PyArray_DATA(self.states[i][k])
        if any(extents):
            shape = tuple(p.shape) if cnp.PyArray_IS_C_CONTIGUOUS(p) else tuple(reversed(p.shape))
            self._add_lines(i, shape[len(shape) - 2], shape[len(shape) - 1])

    cdef _protect(self):
        cdef list written = list(self.params) + [a for a in self.averages if a is not None]
        for state in self.states:
            written.extend(state)
        self._note_ranges(_ranges(written))

    def split(self, Py_ssize_t per_thread, Py_ssize_t chunk):
        """How work is cut, for tests: elements that are worth a thread, always then, and of a chunk. No bit changes."""
        self.plan.always_pool = True
        self.plan.per_thread, self.plan.chunk = max(1, per_thread), min(max(1, chunk), FO_CHUNK)

    def admit(self, object tree, object match):
        """Claims the plan and checks a step's gradients; returns how many are None. `release` ends it.

        `match(tree)` gives the leaves of a tree that is not built of the same lists and dicts as the
        parameters, or says what is wrong with it.
        """
        cdef Py_ssize_t missing = self._take(tree, None, match)
        try:
            self._place()
        except BaseException:
            self._release()
            raise
        return missing

    def exchange(self, list grads):
        """Checks other gradients in the place of those admitted, None or an array for each parameter."""
        self.grads[:] = grads
        self._place()

    cdef Py_ssize_t _take(self, object tree, Engine engine, match) except -1:
        """Claims the plan and collects gradients; returns how many are None. An engine's match stands in for None."""
        cdef Py_ssize_t i, filled = 0, missing = 0
        self._claim()
        self.changes += 1
        try:
            if not _collect(self.template, tree, self.grads, &filled):
                self.grads[:] = (engine.match if match is None else match)(tree)
            for i in range(self.plan.count):
                if self.any_frozen and (<tuple>self.frozen)[i]:
                    self.grads[i] = None
                elif self.grads[i] is None:
                    missing += 1
        except BaseException:
            self._release()
            raise
        return missing

    cdef int _place(self) except -1:
        """Checks what is admitted, and notes where it lies.

        Whatever of Python runs before a call without the GIL, as a schedule or another thread, may resize arrays: so
        every such call comes right after this.
        """
        cdef Py_ssize_t i
        for i in range(self.plan.count):
            g = self.grads[i]
            if self.reads_parameters:
                self._confirm(i)
                _fill_view(&self.plan.grads[i], g, not cnp.PyArray_IS_C_CONTIGUOUS(g))
            else:
                self._admit(i, g)
        return 0

    def admitted(self, object tree, object match, function, *args):
        """function(*args) between `admit` and `release`."""
        self._take(tree, None, match)
        try:
            self._place()
            return function(*args)
        finally:
            self._release()

    def with_parameters(self, function, *args):
        """function(*args) with every parameter in the place of its gradient, for a pass that reads nothing else."""
        self._claim()
        try:
            self.reads_parameters = True
            self.grads[:] = self.params
            return function(*args)
        finally:
            self._release()

    cdef int _admit(self, Py_ssize_t i, object g) except -1:
        """The door for one gradient."""
        # A cast that does not check: _check_array, or CheckExact below, has.
        cdef cnp.ndarray a, p = <cnp.ndarray>(<tuple>self.params)[i]
        cdef fo_view* view = &self.plan.grads[i]
        cdef bint fortran
        if g is None:
            view.data = NULL
            return 0
        if not cnp.PyArray_CheckExact(g) or cnp.PyArray_TYPE(<cnp.ndarray>g) != cnp.PyArray_TYPE(p):
            _check_array(f"gradient of {self.names[i]!r}", g)
            if cnp.PyArray_TYPE(g) != cnp.PyArray_TYPE(p):
                raise TypeError(
                    f"gradient of {self.names[i]!r} has dtype {g.dtype} and its parameter {self.params[i].dtype}: "
                    f"compute it in the parameter's dtype, or convert it with .astype(np.{self.params[i].dtype})"
                )
        a = <cnp.ndarray>g
        if cnp.PyArray_ISBYTESWAPPED(a):
            _check_array(f"gradient of {self.names[i]!r}", g)
        if not cnp.PyArray_SAMESHAPE(a, p):
            raise ValueError(
                f"gradient of {self.names[i]!r} has shape {g.shape} and its parameter {self.params[i].shape}: "
                "they must be equal" + (" (transposed?)" if g.shape == self.params[i].shape[::-1] else "")
            )
        fortran = not cnp.PyArray_IS_C_CONTIGUOUS(p)
        # A dense gradient where the last dense one lay overlaps nothing, as that did not.
        if not (view.dense and view.checked == cnp.PyArray_DATA(a) and _is_dense(a, fortran)):
            self._refuse_written(i, g)
            view.checked = <char*>cnp.PyArray_DATA(a)
        _fill_view(view, a, fortran)
        return self._confirm(i)

    cdef int _confirm(self, Py_ssize_t i) except -1:
        """Refuses a parameter whose array is no more what was checked when the plan was made."""
        cdef fo_tensor* tensor = &self.plan.tensors[i]
        cdef cnp.ndarray p = <cnp.ndarray>(<tuple>self.params)[i]
        if cnp.PyArray_DATA(p) != tensor.slot[FO_SLOT_P] or cnp.PyArray_SIZE(p) != tensor.size \
                or cnp.PyArray_TYPE(p) != tensor.dtype:
            raise ValueError(
                f"parameter {self.names[i]!r} has another size, dtype or place in memory than when the optimizer was "
                "made (ndarray.resize?): make a new optimizer"
            )
        if not cnp.PyArray_ISWRITEABLE(p):
            raise ValueError(
                f"parameter {self.names[i]!r} has become read-only and is to be updated in place: make it writable again"
            )
        return 0

    def confirm(self):
        """Refuses parameters whose arrays are no more what was checked when the plan was made."""
        for i in range(self.plan.count):
            self._confirm(i)

    def overlaps(self, Plan other):
        """Whether there is a byte, or an array without any, that passes of this plan and of the other write."""
        cdef Py_ssize_t i = 0, k = 0
        while i < self.range_count and k < other.range_count:
            if self.ranges[i].high <= other.ranges[k].low:
                i += 1
            elif other.ranges[k].high <= self.ranges[i].low:
                k += 1
            else:
                return True
        for i in range(self.plan.count):
            if self.plan.tensors[i].size == 0 and any([p is self.params[i] for p in other.params]):
                return True
        return False

    cdef _refuse_written(self, Py_ssize_t i, object g):
        """A gradient that shares memory with what the step writes would change under it."""
        cdef uintptr_t low, high
        cdef Py_ssize_t first
        if not _byte_range(g, &low, &high):
            return
        first = self._first_beyond(low)
        while first < self.range_count and self.ranges[first].low < high:
            name, written = self._written(self.ranges[first].owner)
            if _share(g, written):
                raise ValueError(
                    f"gradient of {self.names[i]!r} shares memory with {name}, which the step writes: pass a copy"
                )
            first += 1

    cdef _written(self, Py_ssize_t owner):
        names = [f"parameter {name!r}" for name in self.names]
        arrays = list(self.params)
        for name, a in zip(self.names, self.averages):
            if a is not None:
                names.append(f"the average of {name!r}")
                arrays.append(a)
        for name, state in zip(self.names, self.states):
            names.extend([f"the state of {name!r}"] * len(state))
            arrays.extend(state)
        return names[owner], arrays[owner]

    def run(self):
        """One step over the admitted gradients, without the GIL; returns whether it was applied.

        It is refused, with nothing written, when a measured gradient is not finite, or its norm is not while
        clipping.
        """
        self._place()
        return self._go()

    def run_and_publish(self, list values):
        """`run`, then `publish` of attributes, with nothing in between."""
        self.run()
        publish([], values)

    def measure(self, str kind):
        """(norm over all admitted gradients together, whether every element is finite)"""
        cdef int finite = 1
        cdef double value
        cdef int k = _norm_kinds[kind]
        self._place()
        with nogil:
            value = fo_norm(self.plan.grads, self.plan.count, k, self.plan.flush, &finite)
        return value, finite != 0

    @property
    def unscale(self):
        """What the gradients of this step are multiplied by first."""
        return self.plan.unscale

    @property
    def norm(self):
        """The norm of the last step's gradients; None where not measured."""
        return self.plan.norm if self.plan.measure else None

    def release(self):
        """Lets go of the gradients and of the claim."""
        self._release()

    cdef _release(self):
        cdef Py_ssize_t i
        for i in range(self.plan.count):
            self.grads[i] = None
        self.reads_parameters = False
        fo_yield(&self.plan)


include "pieces.pxi"
include "engine.pxi"
include "tensors.pxi"
include "tensor_plan.pxi"
include "tensor_passes.pxi"
include "gradients.pxi"
include "vectors.pxi"
include "losses.pxi"
