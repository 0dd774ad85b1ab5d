# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The only door to csrc/.

Everything that can be wrong with a buffer is found here (door.pxi), before anything is written; below, C
trusts its pointers. A Plan holds the parameters and their state for one optimizer, for one thread at a time
(claims.pxi): `step` takes the gradients, the optimizer's coefficients, and makes one call without the GIL
over all of them. ReferencePlan in fastopt/engine/numpy_plan.py puts NumPy in place of that call and shares
everything else.
"""

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_INCREF
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, realloc

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
    cdef int threads
    cdef double* registers_of_tensors
    cdef range_t* ranges
    cdef Py_ssize_t range_count
    cdef readonly object template
    cdef readonly tuple names, params, states, averages, extents, frozen
    cdef readonly list grads
    cdef list vectors
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
        cdef Py_ssize_t i, k, size, blocks = 0
        self.template, self.flush = template, flush
        self.names, self.params, self.states, self.averages = names, params, states, averages
        self.frozen, self.any_frozen = frozen or (False,) * len(params), any(frozen)
        self.extents = extents or ((),) * len(params)
        self.grads = [None] * len(params)
        self.vectors = []
        self.plan.flush = flush
        self.plan.count = len(params)
        self.plan.max_norm, self.plan.unscale = <double>INFINITY, 1
        self.plan.per_thread, self.plan.chunk = FO_PER_THREAD, FO_CHUNK
        self.plan.tensors = <fo_tensor*>calloc(max(1, len(params)), sizeof(fo_tensor))
        self.plan.grads = <fo_view*>calloc(max(1, len(params)), sizeof(fo_view))
        self.registers_of_tensors = <double*>calloc(max(1, FO_MAX_REGISTERS * len(params)), sizeof(double))
        if not self.plan.tensors or not self.plan.grads or not self.registers_of_tensors:
            raise MemoryError
        for i in range(self.plan.count):
            self.plan.tensors[i].first_block = blocks
            size = cnp.PyArray_SIZE(params[i])
            self.plan.tensors[i].size = size
            self.plan.tensors[i].dtype = cnp.PyArray_TYPE(params[i])
            blocks += (size + FO_CHUNK - 1) // FO_CHUNK
            self.plan.elements += size
            self.plan.bytes += 2 * params[i].nbytes + sum([a.nbytes for a in (averages[i], *states[i]) if a is not None])
            self.plan.tensors[i].slot[FO_SLOT_P] = <char*>cnp.PyArray_DATA(params[i])
            self._add_state(i, self.extents[i])
        self.plan.blocks = blocks
        self.plan.parts = <double*>calloc(max(1, FO_MAX_SUMS * blocks), sizeof(double))
        if not self.plan.parts:
            raise MemoryError
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
            tensor.rows, tensor.columns = shape[len(shape) - 2], shape[len(shape) - 1]
            tensor.matrices = tensor.size // max(1, tensor.rows * tensor.columns)
            lines = np.zeros(tensor.matrices * (tensor.rows + fo_bands(tensor.rows) * tensor.columns))
            tensor.lines = <double*>cnp.PyArray_DATA(lines)
            self.vectors.append(lines)
        tensor.reg = self.registers_of_tensors + i * FO_MAX_REGISTERS
        tensor.reg[FO_MAX_REGISTERS - 1] = <double>tensor.size

    cdef _protect(self):
        """Notes where everything lies that a step writes: no gradient may overlap it."""
        cdef list written = list(self.params) + [a for a in self.averages if a is not None]
        for state in self.states:
            written.extend(state)
        cdef list found = _ranges(written)
        self.ranges = <range_t*>calloc(max(1, len(found)), sizeof(range_t))
        if not self.ranges:
            raise MemoryError
        self.range_count = len(found)
        for k, (low, high, owner) in enumerate(found):
            self.ranges[k].low, self.ranges[k].high, self.ranges[k].owner = low, high, owner

    def __dealloc__(self):
        free(self.plan.tensors)
        _free_views(self.plan.grads, self.plan.count)
        _free_programs(&self.plan)
        free(self.registers_of_tensors)
        free(self.plan.rules)
        free(self.plan.groups)
        free(self.plan.parts)
        free(self.ranges)

    def configure(self, double max_norm, bint measure, int threads):
        """Clip by norm above max_norm (infinite: do not), measure the norm of the gradients; on at most this many threads,
        0 for as many as set_default_threads says."""
        self.plan.max_norm, self.plan.measure, self.plan.by_group = max_norm, measure, False
        self.threads = threads

    def clip_groups(self, list max_norms):
        """Clip each group by the norm of its own gradients above this; after `configure`, with measuring on."""
        cdef Py_ssize_t k
        for k in range(self.plan.group_count):
            self.plan.groups[k].max_norm = max_norms[k]
        self.plan.by_group = True

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
        cdef Py_ssize_t first = 0, last = self.range_count, middle
        if not _byte_range(g, &low, &high):
            return
        while first < last:
            middle = (first + last) // 2
            if self.ranges[middle].high <= low:
                first = middle + 1
            else:
                last = middle
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

    cdef bint _go(self):
        cdef int applied
        self.plan.threads = self.threads if self.threads else _default_threads
        with nogil:
            applied = fo_step(&self.plan)
        return applied == 1

    def taken_back(self):
        """Whether a rule took the last step back, before any of its parameters was written."""
        for k in range(self.plan.rule_count):
            if not self.plan.rules[k].go:
                return True
        return False

    def went(self, Py_ssize_t rule):
        """Whether the last step moved the parameters of this rule."""
        return self.plan.rules[rule].go != 0

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
include "gradients.pxi"
include "vectors.pxi"
include "losses.pxi"
