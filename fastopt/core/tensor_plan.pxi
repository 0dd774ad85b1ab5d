# A plan whose parameters, gradients and state are tensors of another library, included by _core.pyx. Their owner may replace
# any of them between two steps: so each step looks at all of them again, and where one is not what the plan was made of, it
# does nothing and says so. Only then is Python asked for more (fastopt/torch/binding.py).

cdef enum:
    OTHERWISE, REFUSED, TAKEN_BACK, APPLIED

# What a float64 counts to.
cdef double MOST_STEPS = 2.0**53

# A tensor in the dict of a parameter's state, and where and how it lay: its shape, then its strides.
cdef struct kept_t:
    PyObject* key
    PyObject* tensor
    char* data
    int64_t* extents
    int ndim, bits

# A parameter as it was bound: `home` is what is stepped, itself or a dense copy; `extents` has its shape, its strides, those
# of home, and its axes by falling stride of home; `count` and `numbers` are tensors of one element, with their bits.
cdef struct bound_t:
    PyObject* p
    PyObject* home
    PyObject* state
    char* data
    int64_t* extents
    int ndim, bits, group, keeps, count_bits, number_bits
    bint ready, versioned, still
    kept_t* kept
    char* count
    char** numbers


cdef inline double _read(char* at, int bits) noexcept:
    return (<double*>at)[0] if bits == 64 else <double>(<float*>at)[0]


cdef inline void _write(char* at, int bits, double x) noexcept:
    if bits == 64:
        (<double*>at)[0] = x
    else:
        (<float*>at)[0] = <float>x


cdef bint _is_fixed(x):
    """Whether a value of a group stays what it is while it is the same object, as a tensor does not."""
    if type(x) is tuple:
        return all([_is_fixed(y) for y in x])
    return isinstance(x, (float, int, bool, str, type(None)))


cdef class TensorPlan(Programmed):
    """Bound tensors, each a record with p, home, group, state (a dict, or None before its first gradient), kept ((key, tensor)
    of that dict), slots (tensors in the order of the rule's), average, steps (the tensor that counts them, or None), numbers
    (tensors of the scalars of its cohort, in their order), lines ((rows, columns) or None), versioned, and still (its gradient counts as
    None).

    `attempt` is called by an owner, who is asked to refresh(k, group), the numbers of a group whose dict has changed, for plain(g), a gradient that is
    aligned and not read with the other sign, and to refuse_alias(i, g), one that shares memory with what is written; `increment` marks
    tensors as written.
    """
    cdef Source source
    cdef bound_t* bound
    cdef readonly list items
    cdef list grads, values, params_at, live, order
    cdef object owner, increment
    cdef public list cohorts
    cdef list fresh
    cdef bint carrying
    cdef int64_t* times

    def __cinit__(self, Source source, list items, list groups, object state, bint flush, increment):
        cdef Py_ssize_t i
        self.source, self.items, self.increment = source, items, increment
        self._allocate(len(items), flush)
        self.grads = [None] * len(items)
        self.bound = <bound_t*>calloc(max(1, len(items)), sizeof(bound_t))
        if not self.bound:
            raise MemoryError
        for i in range(self.plan.count):
            self._bind(i, items[i])
        self._allocate_parts()
        self._protect()
        self.remember(groups, state)

    def __dealloc__(self):
        cdef Py_ssize_t i, k
        for i in range(self.plan.count if self.bound else 0):
            free(self.bound[i].extents)
            for k in range(self.bound[i].keeps if self.bound[i].kept else 0):
                free(self.bound[i].kept[k].extents)
            free(self.bound[i].kept)
            free(self.bound[i].numbers)
        free(self.bound)
        free(self.times)

    # What a plan is made of

    cdef _bind(self, Py_ssize_t i, item):
        cdef bound_t* b = &self.bound[i]
        cdef dl_tensor found
        cdef Py_ssize_t k
        b.p, b.home, b.group = <PyObject*>item.p, <PyObject*>item.home, item.group
        self.source._look(b.p, &found)
        b.data, b.ndim, b.bits = _start(&found), found.ndim, found.bits
        b.extents = <int64_t*>calloc(max(1, 4 * b.ndim), sizeof(int64_t))
        if not b.extents:
            raise MemoryError
        for k in range(b.ndim):
            b.extents[k], b.extents[b.ndim + k] = found.shape[k], found.strides[k]
        self.source._look(b.home, &found)
        for k in range(b.ndim):
            b.extents[2 * b.ndim + k] = found.strides[k]
        _falling(b.ndim, b.extents + 2 * b.ndim, b.extents + 3 * b.ndim)
        self._add_tensor(i, _start(&found), _elements(&found), cnp.NPY_FLOAT if b.bits == 32 else cnp.NPY_DOUBLE)
        b.ready, b.versioned, b.still = item.state is not None, item.versioned, item.still
        if b.ready:
            self._bind_state(i, item)

    cdef _bind_state(self, Py_ssize_t i, item):
        cdef bound_t* b = &self.bound[i]
        cdef fo_tensor* tensor = &self.plan.tensors[i]
        cdef dl_tensor found
        cdef Py_ssize_t k, j, of_one = tensor.size * (b.bits // 8)
        cdef kept_t* at
        b.state, b.keeps = <PyObject*>item.state, len(item.kept)
        b.kept = <kept_t*>calloc(max(1, b.keeps), sizeof(kept_t))
        b.numbers = <char**>calloc(max(1, len(item.numbers)), sizeof(char*))
        if not b.kept or not b.numbers:
            raise MemoryError
        for k in range(b.keeps):
            key, kept = item.kept[k]
            self.source._look(<PyObject*>kept, &found)
            at = &b.kept[k]
            at.key, at.tensor, at.data = <PyObject*>key, <PyObject*>kept, _start(&found)
            at.ndim, at.bits = found.ndim, found.bits
            at.extents = <int64_t*>calloc(max(1, 2 * at.ndim), sizeof(int64_t))
            if not at.extents:
                raise MemoryError
            for j in range(at.ndim):
                at.extents[j], at.extents[at.ndim + j] = found.shape[j], found.strides[j]
        for k in range(len(item.slots)):
            self.source._look(<PyObject*>item.slots[k], &found)
            tensor.slot[FO_SLOT_STATE + k] = _start(&found)
        if item.average is not None:
            self.source._look(<PyObject*>item.average, &found)
            tensor.slot[FO_SLOT_AVERAGE] = _start(&found)
        if item.steps is not None:
            self.source._look(<PyObject*>item.steps, &found)
            b.count, b.count_bits = _start(&found), found.bits
        for k in range(len(item.numbers)):
            self.source._look(<PyObject*>item.numbers[k], &found)
            b.numbers[k], b.number_bits = _start(&found), found.bits
        if item.lines is not None:
            self._add_lines(i, item.lines[0], item.lines[1])
        self.plan.bytes += of_one * (2 + len(item.slots) + (item.average is not None))

    cdef _protect(self):
        cdef uintptr_t low, high
        cdef dl_tensor found
        cdef list ranges = []
        for i, item in enumerate(self.items):
            for written in (item.home, item.p, *item.slots, item.average):
                if written is not None:
                    self.source._look(<PyObject*>written, &found)
                    if _reach(&found, &low, &high):
                        ranges.append((low, high, i))
        self._note_ranges(sorted(set(ranges)))

    def remember(self, list groups, state):
        """What these dicts are made of now."""
        self.values, self.live, self.params_at = [[None] * len(groups) for _ in range(3)]
        for k in range(len(groups)):
            self.remember_group(k, groups[k])
        self.order = [x for pair in state.items() for x in pair]

    def remember_group(self, Py_ssize_t k, dict group):
        cdef bint live = False
        for key, x in group.items():
            if key != "params" and key != "param_names" and not _is_fixed(x):
                live = True
        self.values[k], self.live[k], self.params_at[k] = list(group.values()), live, list(group).index("params")

    def set_cohorts(self, list cohorts, list fresh):
        """What each program is of; `fresh` says of those that count no steps that this is their first."""
        self.cohorts, self.fresh = cohorts, fresh
        self.carrying = any([cohort.scalars for cohort in cohorts])
        free(self.times)
        self.times = <int64_t*>calloc(max(1, len(cohorts)), sizeof(int64_t))
        if not self.times:
            raise MemoryError

    # A step

    def attempt(self, owner, list groups, object state, double unscale):
        """A step with the gradients that the parameters have, for its owner: OTHERWISE, with nothing done, where something is not as it was
        bound; REFUSED where a measured gradient is not finite; TAKEN_BACK where rules took it back; or APPLIED.

        No bytecode runs between the writing of parameters and the counts.
        """
        cdef Py_ssize_t i
        # Kept for the step only: the owner has the plan.
        self.owner = owner
        try:
            if not self._is_as_bound(groups, state) or not self._has_numbers(groups):
                return OTHERWISE
            self.plan.unscale = unscale
            self._stage()
            if not self._go():
                return REFUSED
            return self._count()
        finally:
            self.owner = None
            for i in range(self.plan.count):
                self.grads[i] = None

    cdef bint _is_as_bound(self, list groups, object state) except -1:
        cdef Py_ssize_t i = 0, j, k, position = 0, n = 0
        cdef PyObject* key
        cdef PyObject* value
        cdef list params
        if len(groups) != len(self.values):
            return False
        for k in range(len(groups)):
            found = groups[k].get("params") if isinstance(groups[k], dict) else None
            if type(found) is not list and type(found) is not tuple:
                return False
            params = <list>found if type(found) is list else list(found)
            for j in range(len(params)):
                if i == self.plan.count or self.bound[i].p != PyList_GET_ITEM(params, j) or self.bound[i].group != k:
                    return False
                i += 1
        if i != self.plan.count or not isinstance(state, dict):
            return False
        while PyDict_Next(state, &position, &key, &value):
            if n + 2 > len(self.order) or key != PyList_GET_ITEM(self.order, n) or value != PyList_GET_ITEM(self.order, n + 1):
                return False
            n += 2
        if n != len(self.order):
            return False
        for i in range(self.plan.count):
            if not self._is_tensor_as_bound(i):
                return False
        return True

    cdef bint _is_tensor_as_bound(self, Py_ssize_t i) except -1:
        cdef bound_t* b = &self.bound[i]
        cdef dl_tensor found
        cdef Py_ssize_t k
        g = None if b.still else (<object>b.p).grad
        self.grads[i] = g
        if g is None:
            self.plan.grads[i].data = NULL
            return True
        if not b.ready or not self.source._usable(b.p, &found):
            return False
        if _start(&found) != b.data or found.ndim != b.ndim or found.bits != b.bits:
            return False
        for k in range(b.ndim):
            if found.shape[k] != b.extents[k] or found.strides[k] != b.extents[b.ndim + k]:
                return False
        for k in range(b.keeps):
            if not self._is_kept(b.state, &b.kept[k]):
                return False
        return self._admit(i, g)

    cdef bint _is_kept(self, PyObject* state, kept_t* at) except -1:
        cdef dl_tensor found
        cdef int j
        cdef PyObject* kept = PyDict_GetItem(<object>state, <object>at.key)
        if kept == NULL or kept != at.tensor or not self.source._sees(kept, &found):
            return False
        if _start(&found) != at.data or found.ndim != at.ndim or found.bits != at.bits:
            return False
        for j in range(at.ndim):
            if found.shape[j] != at.extents[j] or found.strides[j] != at.extents[at.ndim + j]:
                return False
        return True

    cdef bint _admit(self, Py_ssize_t i, g) except -1:
        """The view of a gradient; False where it does not fit, for Python to say why."""
        cdef bound_t* b = &self.bound[i]
        cdef fo_view* view = &self.plan.grads[i]
        cdef dl_tensor found
        cdef bint dense
        cdef Py_ssize_t k
        if not self.source._usable(<PyObject*>g, &found) or found.ndim != b.ndim or found.bits != b.bits:
            return False
        for k in range(b.ndim):
            if found.shape[k] != b.extents[k]:
                return False
        dense = _alike(b.ndim, b.extents, found.strides, b.extents + 2 * b.ndim)
        # A view that is read with the other sign, as the imaginary part of a conjugate, has gaps, if it has two elements.
        if not dense or self.plan.tensors[i].size < 2 or not _aligned(&found):
            plain = self.owner.plain(g)
            if plain is not g:
                self.grads[i] = plain
                return self._admit(i, plain)
        if not (dense and view.dense and view.checked == _start(&found)) and self._overlaps(&found):
            self.owner.refuse_alias(i, g)
        view.data = view.checked = _start(&found)
        view.ndim, view.size, view.dense, view.fortran = b.ndim, self.plan.tensors[i].size, dense, 0
        view.dtype = FO_F32 if b.bits == 32 else FO_F64
        if view.size == 0:
            view.data = NULL
        if dense:
            return True
        _strided(view, &found, b.extents + 3 * b.ndim)
        return True

    cdef bint _overlaps(self, dl_tensor* found) noexcept:
        """Whether its bytes reach into what a step writes; its elements may still lie between."""
        cdef uintptr_t low, high
        cdef Py_ssize_t first
        if not _reach(found, &low, &high):
            return False
        first = self._first_beyond(low)
        return first < self.range_count and self.ranges[first].low < high

    cdef bint _has_numbers(self, list groups) except -1:
        """Puts the numbers of this step into the programs; False where tensors of one have come apart."""
        cdef Py_ssize_t i, k, program
        cdef int64_t t
        cdef double count
        cdef bound_t* b
        for k in range(len(groups)):
            if (self.live[k] or not self._has_values(k, groups[k])) and not self.owner.refresh(k, groups[k]):
                return False
        for k in range(len(self.cohorts)):
            self.times[k] = 0
        for i in range(self.plan.count):
            b = &self.bound[i]
            if self.grads[i] is None:
                continue
            program = self.plan.tensors[i].program
            if b.count == NULL:
                t = 1 if self.fresh[program] else 2
            else:
                count = _read(b.count, b.count_bits)
                if not (0 <= count < MOST_STEPS):
                    return False
                t = <int64_t>count + 1
                if <double>(t - 1) != count:
                    return False
            if self.times[program] == 0:
                self.times[program] = t
                if self.carrying:
                    self._take_scalars(b, self.cohorts[program])
            elif self.times[program] != t or (self.carrying and not self._has_scalars(b, self.cohorts[program])):
                return False
        for k in range(len(self.cohorts)):
            if self.times[k]:
                self._set_numbers_of(k)
        return True

    cdef bint _has_values(self, Py_ssize_t k, object group):
        cdef list values = self.values[k]
        cdef Py_ssize_t position = 0, n = 0, skipped = self.params_at[k]
        cdef PyObject* key
        cdef PyObject* value
        while PyDict_Next(group, &position, &key, &value):
            if n == len(values) or (value != PyList_GET_ITEM(values, n) and n != skipped):
                return False
            n += 1
        return n == len(values)

    cdef _take_scalars(self, bound_t* b, Cohort cohort):
        cdef Py_ssize_t k = 0
        for name in cohort.scalars:
            cohort.scalars[name] = _read(b.numbers[k], b.number_bits)
            k += 1

    cdef bint _has_scalars(self, bound_t* b, Cohort cohort):
        cdef Py_ssize_t k = 0
        for x in cohort.scalars.values():
            if x != _read(b.numbers[k], b.number_bits):
                return False
            k += 1
        return True

    cdef _set_numbers_of(self, Py_ssize_t k):
        cdef Cohort cohort = self.cohorts[k]
        if cohort.needs_loss:
            self.set_numbers(k, {"loss": self.owner.loss})
        if cohort.changing is None:
            return
        h = cohort.h
        if cohort.scalars:
            h = self.owner.advance(cohort, self.times[k])
        numbers = cohort.changing(h, self.times[k])
        if numbers:
            self.set_numbers(k, numbers)

    cdef _stage(self):
        cdef Py_ssize_t i
        for i in range(self.plan.count):
            if self.bound[i].home != self.bound[i].p and self.plan.grads[i].data != NULL:
                (<object>self.bound[i].home).copy_((<object>self.bound[i].p).detach())

    cdef int _count(self) except -1:
        """Counts, writes what is kept elsewhere, and marks parameters as written."""
        cdef Py_ssize_t i, k, program
        cdef bound_t* b
        cdef Cohort cohort
        cdef list written = []
        cdef bint any_went = False
        for i in range(self.plan.count):
            b = &self.bound[i]
            program = self.plan.tensors[i].program
            if self.grads[i] is None or not self.plan.rules[self.plan.programs[program].rule].go:
                continue
            any_went = True
            if b.count != NULL:
                _write(b.count, b.count_bits, <double>self.times[program])
            if self.carrying:
                cohort = self.cohorts[program]
                k = 0
                for name in cohort.scalars:
                    _write(b.numbers[k], b.number_bits, cohort.advanced[name])
                    k += 1
            if b.home != b.p:
                (<object>b.p).detach().copy_(<object>b.home)
            if b.versioned:
                written.append(<object>b.p)
        for k in range(len(self.cohorts)):
            if self.times[k]:
                self.fresh[k] = False
        self.increment(written)
        return APPLIED if any_went or self.plan.count == 0 else TAKEN_BACK

    @property
    def norm(self):
        """The norm of the last step's gradients; None where not measured."""
        return self.plan.norm if self.plan.measure else None
