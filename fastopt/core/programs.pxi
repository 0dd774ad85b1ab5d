# Programs as csrc/run has them, from descriptions by name (fastopt/engine/program.py), included by _core.pyx because only
# here names become slots, registers and places of numbers; a step writes numbers into these places and compiles nothing.

cdef dict _sums = {"sum_squares": fo_r_sum_squares, "sum_abs": fo_r_sum_abs, "max_abs": fo_r_max_abs}
for _k in range(FO_SUM_COUNT):
    _sums[fo_sums[_k].name.decode()] = FO_REDUCTION_COUNT + _k
cdef dict _scalars = {fo_scalars[_k].name.decode(): _k for _k in range(FO_SCALAR_COUNT)}
SUMS = {fo_sums[_k].name.decode(): tuple([fo_sums[_k].buffer[_i].decode() for _i in range(fo_sums[_k].buffers)])
        for _k in range(FO_SUM_COUNT)}
SCALARS = {fo_scalars[_k].name.decode(): (tuple([fo_scalars[_k].in_[_i].decode() for _i in range(fo_scalars[_k].ins)]),
                                          tuple([fo_scalars[_k].out[_i].decode() for _i in range(fo_scalars[_k].outs)]))
           for _k in range(FO_SCALAR_COUNT)}
FACTORS = ("r", "c", "a"), ("keep", "gain", "eps_add", "floor_r")


cdef _free_programs(fo_plan* plan):
    cdef int k
    for k in range(plan.program_count if plan.programs else 0):
        free(plan.programs[k].pass_)
    free(plan.programs)
    plan.programs, plan.program_count = NULL, 0


cdef class _Names:
    """Where the names of a program lead: slots of buffers, registers, and the places of numbers."""
    cdef dict slots, registers, places

    def __init__(self, program):
        cdef int i
        if len(program.slots) > FO_MAX_STATE or len(program.scratch) >= FO_MAX_SCRATCH:
            raise ValueError(f"a rule has at most {FO_MAX_STATE} buffers of state and {FO_MAX_SCRATCH - 1} of scratch")
        if max(len(program.tensor), len(program.all)) >= FO_MAX_REGISTERS:
            raise ValueError(f"a rule has at most {FO_MAX_REGISTERS - 1} registers of a tensor, and of all")
        self.slots = {"p": FO_SLOT_P, "g": FO_SLOT_G, "out": FO_SLOT_G, "average": FO_SLOT_AVERAGE}
        for i, name in enumerate(program.slots):
            self.slots[name] = FO_SLOT_STATE + i
        for i, name in enumerate(program.scratch):
            self.slots[name] = FO_SLOT_SCRATCH + 1 + i
        # The last register of a tensor is how many elements it has.
        self.registers = {name: i for i, name in enumerate(program.tensor)}
        if "elements" in self.registers:
            self.registers["elements"] = FO_MAX_REGISTERS - 1
        self.registers.update({name: FO_ALL + i for i, name in enumerate(program.all)})
        self.places = {}

    cdef _number(self, fo_call* call, int i, str prefix, str name, dict values):
        """The i-th number of a call: a register of that name, or a place for numbers."""
        reg = None if prefix else self.registers.get(name)
        if reg is not None:
            call.reg[i] = reg + 1
            call.registers = 1
            return
        call.reg[i], call.coef[i] = 0, values.get(name, 0.0)
        places = self.places.setdefault(prefix, {})
        places[name] = (*places.get(name, ()), <uintptr_t>&call.coef[i])


cdef int _reads_gradient(fo_pass* p) noexcept:
    cdef int c, b
    for c in range(p.calls):
        for b in range(p.call[c].buffers):
            if p.call[c].slot[b] == FO_SLOT_G:
                return 1
    for c in range(p.sums):
        for b in range(p.sum[c].buffers):
            if p.sum[c].slot[b] == FO_SLOT_G:
                return 1
    return 0


cdef _fill_call(fo_call* call, _Names names, int kernel, str prefix, buffers, coefs, dict values):
    cdef int i
    call.kernel, call.buffers, call.coefs, call.registers = kernel, len(buffers), len(coefs), 0
    for i in range(call.buffers):
        call.slot[i] = names.slots[buffers[i]]
    for i in range(call.coefs):
        names._number(call, i, prefix, coefs[i], values)


cdef _fill_start(fo_call* call, int slot):
    """The state in a slot becomes the gradient."""
    call.kernel, call.buffers, call.coefs, call.registers = _kernels["scale"][0], 2, 1, 0
    call.slot[0], call.slot[1], call.coef[0] = slot, FO_SLOT_G, 1


cdef _fill_walk(fo_pass* p, _Names names, walk):
    cdef int i
    p.kind = FO_FACTORED_PASS if walk.factored else FO_WALK_PASS
    p.calls = p.edits = p.fuses = p.sums = 0
    p.copies, p.wide = walk.copies, walk.wide
    if len(walk.calls) + len(walk.begins) > FO_MAX_CALLS:
        raise ValueError(f"a walk has at most {FO_MAX_CALLS} calls, with stages and buffers that begin as the gradient")
    for prefix, name, values in walk.calls:
        if name == "factors":
            buffers, coefs = FACTORS
            _fill_call(&p.call[p.calls], names, -1, "", buffers, coefs, values)
        else:
            if not prefix:
                for slot in walk.begins:
                    _fill_start(&p.call[p.calls], names.slots[slot])
                    p.calls += 1
            kernel, _, buffers, coefs = _kernels[name]
            _fill_call(&p.call[p.calls], names, kernel, prefix, buffers, coefs, values)
            if buffers[0] == "g":
                p.edits = 1
            p.fuses = p.fuses or fo_plain(kernel)
            if walk.wide and name == "average":
                # It comes last, and is not among the calls on buffers of the parameter's type.
                continue
        p.calls += 1
    for total in walk.sums:
        p.sum[p.sums].reduction = _sums[total.reduction]
        p.sum[p.sums].buffers = len(total.buffers)
        p.sum[p.sums].reg = names.registers[total.register]
        for i in range(p.sum[p.sums].buffers):
            p.sum[p.sums].slot[i] = names.slots[total.buffers[i]]
        p.sums += 1
    # A loop that scales the gradient itself leaves nothing to start from.
    p.fuses = p.fuses and not walk.begins
    p.reads = walk.factored or _reads_gradient(p)


cdef _fill_scalar(fo_pass* p, _Names names, scalar):
    cdef int i
    ins, outs = SCALARS[scalar.function]
    p.kind, p.calls, p.sums, p.all, p.outs = FO_SCALAR_PASS, 1, 0, scalar.all, len(outs)
    _fill_call(&p.call[0], names, _scalars[scalar.function], "", (), ins, scalar.values)
    p.go = outs.index("go") + 1 if "go" in outs else 0
    for i in range(p.outs):
        p.out[i] = names.registers[outs[i]]


cdef class Programmed(Claimed):
    """A plan, as far as its memory and its programs go: from where its tensors come, arrays or others, is not said here."""
    cdef int threads
    cdef list places, vectors
    cdef double* registers_of_tensors
    cdef range_t* ranges
    cdef Py_ssize_t range_count

    cdef _allocate(self, Py_ssize_t count, bint flush):
        self.vectors = []
        self.plan.flush, self.plan.count = flush, count
        self.plan.max_norm, self.plan.unscale = <double>INFINITY, 1
        self.plan.per_thread, self.plan.chunk = FO_PER_THREAD, FO_CHUNK
        self.plan.tensors = <fo_tensor*>calloc(max(1, count), sizeof(fo_tensor))
        self.plan.grads = <fo_view*>calloc(max(1, count), sizeof(fo_view))
        self.registers_of_tensors = <double*>calloc(max(1, FO_MAX_REGISTERS * count), sizeof(double))
        if not self.plan.tensors or not self.plan.grads or not self.registers_of_tensors:
            raise MemoryError

    cdef _add_tensor(self, Py_ssize_t i, char* data, Py_ssize_t size, int dtype):
        """The i-th parameter, one after another."""
        cdef fo_tensor* tensor = &self.plan.tensors[i]
        tensor.first_block, tensor.size, tensor.dtype = self.plan.blocks, size, dtype
        tensor.slot[FO_SLOT_P] = data
        tensor.reg = self.registers_of_tensors + i * FO_MAX_REGISTERS
        tensor.reg[FO_MAX_REGISTERS - 1] = <double>size
        self.plan.blocks += (size + FO_CHUNK - 1) // FO_CHUNK
        self.plan.elements += size

    cdef _add_lines(self, Py_ssize_t i, Py_ssize_t rows, Py_ssize_t columns):
        """Memory for the sums over rows and columns that vectors of state come from."""
        cdef fo_tensor* tensor = &self.plan.tensors[i]
        tensor.rows, tensor.columns = rows, columns
        tensor.matrices = tensor.size // max(1, rows * columns)
        lines = np.zeros(tensor.matrices * (rows + fo_bands(rows) * columns))
        tensor.lines = <double*>cnp.PyArray_DATA(lines)
        self.vectors.append(lines)

    cdef _allocate_parts(self):
        self.plan.parts = <double*>calloc(max(1, FO_MAX_SUMS * self.plan.blocks), sizeof(double))
        if not self.plan.parts:
            raise MemoryError

    cdef _note_ranges(self, list found):
        """Where everything lies that a step writes, (low, high, index): no gradient may overlap it."""
        self.ranges = <range_t*>calloc(max(1, len(found)), sizeof(range_t))
        if not self.ranges:
            raise MemoryError
        self.range_count = len(found)
        for k, (low, high, owner) in enumerate(found):
            self.ranges[k].low, self.ranges[k].high, self.ranges[k].owner = low, high, owner

    cdef Py_ssize_t _first_beyond(self, uintptr_t low) noexcept:
        """The first of these ranges that ends behind this place."""
        cdef Py_ssize_t first = 0, last = self.range_count, middle
        while first < last:
            middle = (first + last) // 2
            if self.ranges[middle].high <= low:
                first = middle + 1
            else:
                last = middle
        return first

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

    def set_programs(self, list programs, list rules, list groups):
        """Programs by name, the first values of each rule's registers of all tensors, and the sign
        that each group's gradients are taken with. Registers of rules that were there before keep their values."""
        cdef Py_ssize_t i, k
        cdef fo_program* program
        _free_programs(&self.plan)
        self.places = []
        self.plan.programs = <fo_program*>calloc(max(1, len(programs)), sizeof(fo_program))
        if not self.plan.programs:
            raise MemoryError
        self.plan.program_count, self.plan.phases, self.plan.all = len(programs), 1, 0
        for k in range(self.plan.program_count):
            self._fill_program(&self.plan.programs[k], programs[k])
        self._set_rules(rules)
        self._set_groups(groups)

    cdef _fill_program(self, fo_program* program, description):
        cdef Py_ssize_t i
        cdef _Names names = _Names(description)
        program.rule, program.group, program.all = description.rule, description.group, len(description.all)
        for i in range(len(description.extents)):
            program.extent[FO_SLOT_STATE + i] = description.extents[i]
        program.pass_ = <fo_pass*>calloc(len(description.passes), sizeof(fo_pass))
        if not program.pass_:
            raise MemoryError
        program.passes = len(description.passes)
        for i in range(program.passes):
            if hasattr(description.passes[i], "function"):
                _fill_scalar(&program.pass_[i], names, description.passes[i])
            else:
                _fill_walk(&program.pass_[i], names, description.passes[i])
        self.plan.phases = max(self.plan.phases, program.passes)
        self.plan.all = self.plan.all or program.all
        self.places.append(names.places)

    cdef _set_rules(self, list rules):
        cdef Py_ssize_t i, k
        free(self.plan.rules)
        self.plan.rule_count = 0
        self.plan.rules = <fo_rule*>calloc(max(1, len(rules)), sizeof(fo_rule))
        if not self.plan.rules:
            raise MemoryError
        self.plan.rule_count = len(rules)
        for k in range(self.plan.rule_count):
            self.plan.rules[k].go = 1
            for i, x in enumerate(rules[k]):
                self.plan.rules[k].reg[i] = x

    cdef _set_groups(self, list groups):
        cdef Py_ssize_t k
        free(self.plan.groups)
        self.plan.group_count = 0
        self.plan.groups = <fo_group*>calloc(max(1, len(groups)), sizeof(fo_group))
        if not self.plan.groups:
            raise MemoryError
        self.plan.group_count = len(groups)
        for k in range(self.plan.group_count):
            self.plan.groups[k].sign, self.plan.groups[k].max_norm = groups[k], <double>INFINITY
        for k in range(self.plan.count):
            self.plan.grads[k].group = self.plan.programs[self.plan.tensors[k].program].group

    cpdef set_numbers(self, Py_ssize_t program, dict values, str stage=""):
        """These numbers in a program, by name: the rule's own, or those of a stage."""
        cdef dict places = (<dict>(<list>self.places)[program]).get(stage)
        cdef double x
        if places is None:
            return
        for name, value in values.items():
            x = value
            for address in <tuple>places.get(name, ()):
                (<double*><uintptr_t>address)[0] = x

    def registers(self, Py_ssize_t rule, Py_ssize_t count):
        """The values of a rule's registers of all tensors."""
        return [self.plan.rules[rule].reg[i] for i in range(count)]

    def assign(self, Py_ssize_t tensor, int program):
        """The parameter at this index goes through this program."""
        self.plan.tensors[tensor].program = program
