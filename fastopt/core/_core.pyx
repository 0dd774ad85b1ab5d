# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The only door to csrc/.

Everything that can be wrong with a buffer is found here (door.pxi), before anything is written; below, C
trusts its pointers. A Plan holds the parameters and their state for one optimizer, for one thread at a time
(claims.pxi): `step` takes the gradients, the optimizer's coefficients, and makes one call without the GIL
over all of them. ReferencePlan in fastopt/numpy_backend.py puts NumPy in place of that call and shares
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
from fastopt.base.memory import copies_of

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


cdef _count(opt, list stepped):
    """Counts a step that was applied to these cohorts and no others."""
    for cohort in opt._cohorts:
        if cohort in stepped:
            cohort.scalars = cohort.advanced
        else:
            cohort.skipped += 1


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


cdef class Plan(Claimed):
    """The parameters of one optimizer, their state, and the programs that update them.

    `template` is the tree of params, `states[i]` the state buffers of `params[i]` in the order of the rule in
    csrc/registry.h, `averages[i]` its running average or None; both are laid out in memory as the parameter is.
    """
    cdef Py_ssize_t program_count
    cdef int threads
    cdef int rule_id
    cdef dict rule_coefs
    cdef range_t* ranges
    cdef Py_ssize_t range_count
    cdef readonly str rule
    cdef readonly object template
    cdef readonly tuple names, params, states, averages
    cdef readonly list grads
    cdef readonly bint flush
    cdef bint reads_parameters
    cdef object __weakref__

    def __cinit__(
        self, str rule, object template, tuple names, tuple params, tuple states, tuple averages, bint flush
    ):
        cdef Py_ssize_t i, k, size, blocks = 0
        self.rule, self.template, self.flush = rule, template, flush
        self.names, self.params, self.states, self.averages = names, params, states, averages
        self.rule_id, _, _, coefs = _kernels[rule]
        self.rule_coefs = {name: i for i, name in enumerate(coefs)}
        self.grads = [None] * len(params)
        self.plan.flush = flush
        self.plan.count = len(params)
        self.plan.max_norm, self.plan.sign, self.plan.unscale = <double>INFINITY, 1, 1
        self.plan.per_thread, self.plan.chunk = FO_PER_THREAD, FO_CHUNK
        self.plan.tensors = <fo_tensor*>calloc(max(1, len(params)), sizeof(fo_tensor))
        self.plan.grads = <fo_view*>calloc(max(1, len(params)), sizeof(fo_view))
        if not self.plan.tensors or not self.plan.grads:
            raise MemoryError
        for i in range(self.plan.count):
            self.plan.tensors[i].first_block = blocks
            size = cnp.PyArray_SIZE(params[i])
            self.plan.tensors[i].size = size
            self.plan.tensors[i].dtype = cnp.PyArray_TYPE(params[i])
            for buffer in (averages[i], *states[i]):
                if buffer is not None and (
                    cnp.PyArray_SIZE(buffer) != size or cnp.PyArray_TYPE(buffer) != cnp.PyArray_TYPE(params[i])
                ):
                    raise ValueError(f"parameter {names[i]!r} was given another size or dtype meanwhile")
            blocks += (size + FO_CHUNK - 1) // FO_CHUNK
            self.plan.elements += size
            self.plan.tensors[i].slot[FO_SLOT_P] = <char*>cnp.PyArray_DATA(params[i])
            if averages[i] is not None:
                self.plan.tensors[i].slot[FO_SLOT_AVERAGE] = <char*>cnp.PyArray_DATA(averages[i])
            for k in range(len(states[i])):
                self.plan.tensors[i].slot[FO_SLOT_STATE + k] = <char*>cnp.PyArray_DATA(states[i][k])
        self.plan.parts = <double*>calloc(max(1, blocks), sizeof(double))
        if not self.plan.parts:
            raise MemoryError
        self._protect()

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
        free(self.plan.programs)
        free(self.plan.parts)
        free(self.ranges)

    def configure(self, double max_norm, double sign, bint measure, int threads):
        """Clip by norm above max_norm (infinite: do not), multiply gradients by the sign, measure their norm;
        on at most this many threads, 0 for as many as set_default_threads says."""
        self.plan.max_norm, self.plan.sign, self.plan.measure = max_norm, sign, measure
        self.threads = threads

    def split(self, Py_ssize_t per_thread, Py_ssize_t chunk):
        """How work is cut, for tests: elements that are worth a thread, always then, and of a chunk. No bit changes."""
        self.plan.always_pool = True
        self.plan.per_thread, self.plan.chunk = max(1, per_thread), min(max(1, chunk), FO_CHUNK)

    def set_programs(self, list programs):
        """Each program is a list of (kernel name, coefficients by name), in the order of the pipeline."""
        cdef Py_ssize_t k
        if len(programs) != self.program_count:
            free(self.plan.programs)
            self.program_count = 0
            self.plan.programs = <fo_program*>calloc(max(1, len(programs)), sizeof(fo_program))
            if not self.plan.programs:
                raise MemoryError
            self.program_count = len(programs)
        for k in range(self.program_count):
            self._fill_program(&self.plan.programs[k], programs[k])

    cdef _fill_program(self, fo_program* program, list calls):
        cdef int i
        cdef fo_call* call
        program.calls = program.edits = 0
        for name, values in calls:
            kernel, _, buffers, coefs = _kernels[name]
            call = &program.call[program.calls]
            call.kernel, call.buffers = kernel, len(buffers)
            for i in range(len(buffers)):
                call.slot[i] = fo_slot(kernel, i)
            if kernel == self.rule_id:
                program.rule = program.calls
            for coef, value in (<dict>values).items():
                call.coef[coefs.index(coef)] = value
            if buffers[0] == "g":
                program.edits = 1
            program.calls += 1

    def set_coefficients(self, int program, dict values):
        """These of the rule's coefficients in this program, by name."""
        cdef fo_program* p = &self.plan.programs[program]
        cdef int i
        for name, value in values.items():
            i = self.rule_coefs[name]
            p.call[p.rule].coef[i] = value

    def assign(self, Py_ssize_t tensor, int program):
        """The parameter at this index goes through this program."""
        self.plan.tensors[tensor].program = program

    def step(self, opt, object tree, type report, double unscale, bint accumulated=False):
        """A step of opt with its gradients times unscale, what was accumulated or not: a report(applied, norm, steps,
        skipped).

        No bytecode, and so no handler of a signal, runs between the writing of parameters and the counts.
        """
        cdef bint applied = False, compiled = type(self) is Plan
        cdef object norm = None, t, stepped
        cdef Py_ssize_t missing = self._take(tree, opt, None)
        self.plan.unscale = unscale
        try:
            stepped = opt._ready(missing)
            t = opt._t
            if stepped:
                self._place()
                applied = self._go() if compiled else self.run()
                if not compiled or self.plan.measure:
                    norm = self.norm
                if applied:
                    t += 1
                    opt._t = t
                    if missing or opt._carrying:
                        _count(opt, <list>stepped)
                else:
                    opt._refuse()
                    opt._skipped += 1
            if accumulated:
                opt._accumulated = None
        finally:
            self._release()
        return _made(report, applied, norm, t, opt._skipped)

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

    cdef Py_ssize_t _take(self, object tree, opt, match) except -1:
        """Claims the plan and collects gradients; returns how many are None. opt._match stands in for a match of None."""
        cdef Py_ssize_t i, filled = 0, missing = 0
        self._claim()
        self.changes += 1
        try:
            if not _collect(self.template, tree, self.grads, &filled):
                self.grads[:] = (opt._match if match is None else match)(tree)
            for i in range(self.plan.count):
                if self.grads[i] is None:
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


def run_kernel(str name, list buffers, list coefs, bint flush=True):
    """One kernel over whole buffers, for tests and the self-test: 1-d, contiguous, of one type and length."""
    cdef void* buf[8]
    cdef double coef[12]
    cdef int id = _kernels[name][0], dtype, i
    cdef Py_ssize_t n = len(buffers[0])
    _, _, buffer_names, coef_names = _kernels[name]
    if len(buffers) != len(buffer_names) or len(coefs) != len(coef_names):
        raise ValueError(f"{name} takes buffers {buffer_names} and coefficients {coef_names}")
    check_parameters(buffer_names, buffers)
    for i in range(len(buffers)):
        if buffers[i].shape != (n,) or buffers[i].dtype != buffers[0].dtype:
            raise ValueError(f"{name}: buffers must be 1-d, of one dtype and length")
        buf[i] = cnp.PyArray_DATA(buffers[i])
    for i in range(len(coefs)):
        coef[i] = coefs[i]
    dtype = FO_F32 if cnp.PyArray_TYPE(buffers[0]) == cnp.NPY_FLOAT else FO_F64
    with nogil:
        fo_run(id, dtype, n, buf, coef, flush)


include "gradients.pxi"
include "vectors.pxi"
include "losses.pxi"
