# What the machine and this build of the core offer, and how it computes, included by _core.pyx.

def isas():
    return tuple([fo_isa_name(i).decode() for i in range(fo_isa_count()) if fo_isa_available(i)])


def active_isa():
    return fo_isa_name(fo_isa_active()).decode()


def use_isa(str name):
    for i in range(fo_isa_count()):
        if fo_isa_name(i).decode() == name and fo_isa_available(i):
            fo_isa_use(i)
            return
    raise ValueError(f"instruction set {name!r} is not to be had: this CPU and build offer {', '.join(isas())}")


def build():
    return {"compiler": FO_COMPILER.decode(), "flags": FO_FLAGS.decode()}


cdef int _default_threads = 1


def set_default_threads(int n):
    global _default_threads
    _default_threads = n


def default_threads():
    return _default_threads


def threads_started():
    """Threads that the pool has made in this process so far."""
    return fo_threads_started()


def threads_available():
    """Whether this build has threads at all."""
    return fo_threads_available() != 0


def prefetch(int always):
    """Steps ask for memory ahead always (1), never (0), or where they touch more than the caches hold (-1)."""
    fo_prefetch(always)


def power(double base, int64_t n):
    return fo_power(base, n)


def exp(double x):
    """e^x; 0 where that is less than the smallest normal number. x is at most 709."""
    return fo_exp(x)


def log(double x):
    """The natural logarithm of a positive normal number."""
    return fo_log(x)


def corrections(double beta1, double beta2, int64_t t):
    """1 - beta1^t, and sqrt(1 - beta2^t)."""
    return 1 - fo_power(beta1, t), sqrt(1 - fo_power(beta2, t))


def control_word():
    return fo_control()


def control_words(int threads):
    """The floating-point control words of the pool's threads, this one's first."""
    cdef uint64_t words[256]
    return tuple([words[i] for i in range(fo_controls(words, min(threads, 255)))])


def flushing(bint flush, function, *args):
    """function(*args) with subnormals flushed to zero, or kept."""
    cdef uint64_t control = fo_flush(flush)
    try:
        return function(*args)
    finally:
        fo_restore(control)


cdef class subnormals:
    """Context manager: flush subnormals to zero on this thread (`flush=True`), or keep them.

    fastopt sets and restores the same mode inside each step; use this around NumPy code whose bits are
    to be compared with it. The thread's floating-point control word is restored on exit.
    """
    cdef int flush
    cdef list before

    def __init__(self, flush=True):
        self.flush = boolean("flush", flush)
        self.before = []
        # NumPy 2.0 to 2.3 find them out at the first use, and keep them: with subnormals flushed, warned of and wrong.
        np.finfo(np.float32), np.finfo(np.float64)

    def __enter__(self):
        self.before.append(fo_flush(self.flush))

    def __exit__(self, *error):
        fo_restore(self.before.pop())
