# The vectors of a descent, included by _core.pyx: csrc/kernels/vectors.c on memory of its own, so that no call has to check
# an array.

cdef class Vectors:
    """A point x with its gradient g, a direction d, a trial point with its gradient, and up to `history` pairs of
    steps and gradient changes: vectors of n elements in one arena.

    `memory` makes the arena, zeros of a shape and type, aligned to 64 bytes. ReferenceVectors is its twin.
    """
    cdef fo_vectors v
    cdef list _vectors
    cdef double[::1] _scalars
    cdef readonly object arena, x, g, d, trial_x, trial_g

    def __init__(self, Py_ssize_t n, object dtype, int history, object memory):
        cdef Py_ssize_t size = np.dtype(dtype).itemsize
        cdef Py_ssize_t width = (n * size + 63) // 64 * 64 // size
        cdef int i, slots = history + 1 if history else 0
        self.arena = memory((5 + 2 * slots, width), dtype)
        self._vectors = [row[:n] for row in self.arena]
        self.x, self.g, self.d, self.trial_x, self.trial_g = self._vectors[:5]
        self._scalars = np.zeros(2 * slots + 1)
        self.v.pairs = <char*>cnp.PyArray_DATA(self._vectors[5]) if slots else NULL
        self.v.rho, self.v.alpha = &self._scalars[0], &self._scalars[slots]
        self.v.n, self.v.stride, self.v.slots = n, cnp.PyArray_STRIDE(self.arena, 0), slots
        self.v.dtype = FO_F32 if cnp.PyArray_TYPE(self.arena) == cnp.NPY_FLOAT else FO_F64
        self.v.d = <char*>cnp.PyArray_DATA(self.d)
        self._point()

    cdef _point(self):
        self.v.x, self.v.g = <char*>cnp.PyArray_DATA(self.x), <char*>cnp.PyArray_DATA(self.g)
        self.v.trial_x, self.v.trial_g = <char*>cnp.PyArray_DATA(self.trial_x), <char*>cnp.PyArray_DATA(self.trial_g)

    def direct(self):
        """d = -H g by the pairs kept; returns g.d"""
        cdef double slope
        with nogil:
            slope = fo_direction(&self.v)
        return slope

    def move(self, double alpha):
        """trial_x = x + alpha d"""
        with nogil:
            fo_move(&self.v, alpha)

    def slope(self):
        """g.d"""
        return fo_dot(self.v.dtype, self.v.n, self.v.g, self.v.d)

    def trial_slope(self):
        """trial_g.d"""
        return fo_dot(self.v.dtype, self.v.n, self.v.trial_g, self.v.d)

    def steepness(self):
        """(max|g|, the 2-norm of g): NaN or infinite where an element is"""
        return norm([self.g], "max_abs", False)[0], sqrt(fo_dot(self.v.dtype, self.v.n, self.v.g, self.v.g))

    def accept(self):
        """The trial point becomes the point; its pair is kept where s.y is safely positive."""
        if self.v.slots:
            with nogil:
                fo_remember(&self.v, 0)
        self.x, self.trial_x = self.trial_x, self.x
        self.g, self.trial_g = self.trial_g, self.g
        self._point()

    @property
    def count(self):
        """How many pairs are kept."""
        return self.v.count

    def forget(self):
        self.v.count = 0

    def pairs(self):
        """The pairs (s, y) kept, oldest first: live arrays."""
        ages = range(self.v.count - 1, -1, -1)
        return [self._pair((self.v.newest - age + self.v.slots) % self.v.slots) for age in ages]

    def replace(self, list pairs, list values):
        """Keeps these pairs (s, y), oldest first, in place of those it had, but for any whose s.y is not safely positive;
        then `publish` of attributes, with nothing in between."""
        self.v.count = 0
        for pair in pairs:
            publish(list(zip(pair, self._pair(fo_spare(&self.v)))), [])
            fo_remember(&self.v, 1)
        publish([], values)

    def _pair(self, int slot):
        return self._vectors[5 + 2 * slot], self._vectors[6 + 2 * slot]


def dot(cnp.ndarray a, cnp.ndarray b):
    """The dot product of two vectors, for tests and the self-test: 1-d, contiguous, of one type and length."""
    check_parameters(("a",), [a])
    check_parameters(("b",), [b])
    if a.ndim != 1 or cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b) or not cnp.PyArray_SAMESHAPE(a, b):
        raise ValueError("dot: vectors must be 1-d, of one dtype and length")
    cdef int dtype = FO_F32 if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT else FO_F64
    return fo_dot(dtype, a.size, cnp.PyArray_DATA(a), cnp.PyArray_DATA(b))
